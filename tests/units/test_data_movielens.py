"""MovieLens files: all layouts give the same rows, candidates of both layouts, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tenfold.data.movielens import read_candidates, read_ratings

USERS, ITEMS, RATINGS = np.array([1, 2, 3, 1]), np.array([4, 1, 2, 2]), np.array([5, 3, 1, 4])
DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _written(folder: Path, name: str) -> Path:
    place = folder / name
    if name.endswith(".npz"):
        np.savez(place, user=USERS.astype(np.int16), item=ITEMS.astype(np.int16), rating=RATINGS.astype(np.int8))
    else:
        mark = "::" if name.endswith(".dat") else "\t"
        place.write_text("".join(mark.join(map(str, (*row, 0))) + "\n" for row in zip(USERS, ITEMS, RATINGS, strict=True)))
    return place


@pytest.mark.parametrize("name", ["u.data", "ratings.dat", "ratings.npz"])
def test_ratings(tmp_path: Path, name: str) -> None:
    rows = read_ratings(_written(tmp_path, name))
    assert rows.ids.tolist() == [[0, 6], [1, 3], [2, 4], [0, 4]] and rows.targets.tolist() == [5, 3, 1, 4]
    assert (rows.n_features, rows.fields, len(rows)) == (7, ("user", "item"), 4)
    assert [(g.name, g.start, g.size) for g in rows.groups] == [("user", 0, 3), ("item", 3, 4)]
    assert read_ratings(_written(tmp_path, name), n_users=9, n_items=5).ids.tolist() == [[0, 12], [1, 9], [2, 10], [0, 10]]


def test_candidates(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", user=np.array([0, 2]), items=np.array([[5, 1], [3, 2]]))
    (tmp_path / "test.negative").write_text("(0,5)\t1\n(2,3)\t2\n")
    for name in ("one.npz", "test.negative"):
        found = read_candidates(tmp_path / name)
        assert found.users.tolist() == [0, 2] and found.items.tolist() == [[5, 1], [3, 2]]


def test_parts_are_all_rows_once(tmp_path: Path) -> None:
    rows = read_ratings(_written(tmp_path, "u.data"))
    parts = rows.split((0.5, 0.25, 0.25), seed=3)
    assert [len(part) for part in parts] == [2, 1, 1]
    together = torch.cat([torch.cat([part.ids, part.targets[:, None].long()], 1) for part in parts])
    assert sorted(together.tolist()) == sorted(torch.cat([rows.ids, rows.targets[:, None].long()], 1).tolist())
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(parts, rows.split((0.5, 0.25, 0.25), seed=3), strict=True))
    assert_close(rows.counts(), torch.tensor([2, 1, 1, 1, 2, 0, 1]))


def test_real_ratings() -> None:
    place = DATA / "ml100k" / "train90000.npz"
    if not place.exists():
        pytest.skip("MovieLens-100k is not below $TENFOLD_DATA")
    rows = read_ratings(place, n_users=943, n_items=1682)
    assert (len(rows), rows.n_features) == (90000, 2625)
    assert_close(rows.targets.double().mean(), torch.tensor(3.5299, dtype=torch.float64), rtol=0, atol=5e-3)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.data does not exist; a file of MovieLens is needed: check the path"):
        read_ratings(tmp_path / "none.data")
    (tmp_path / "bad.data").write_text("1\t2\t3\t4\n1,2,3\n")
    with pytest.raises(ValueError, match=r"line 2 of .*bad.data is '1,2,3'; 'user item rating time' is needed: check that it is u.data"):
        read_ratings(tmp_path / "bad.data")
    (tmp_path / "score.data").write_text("1\t1_0\t3\t4\n")
    with pytest.raises(ValueError, match=r"line 1 of .*score.data is .*; 'user item rating time' is needed: check that it is u.data"):
        read_ratings(tmp_path / "score.data")
    (tmp_path / "zero.data").write_text("0\t2\t3\t4\n")
    with pytest.raises(ValueError, match="has a user or an item numbered 0; MovieLens starts from 1: check the file"):
        read_ratings(tmp_path / "zero.data")
    (tmp_path / "high.data").write_text("1\t2\t9\t4\n")
    with pytest.raises(ValueError, match="has ratings from 9.0 to 9.0; numbers above 0 up to 5 are needed"):
        read_ratings(tmp_path / "high.data")
    (tmp_path / "empty.data").write_text("\n")
    with pytest.raises(ValueError, match="has no ratings; at least one is needed: check the path"):
        read_ratings(tmp_path / "empty.data")
    with pytest.raises(ValueError, match="has user 3 and item 4, but 2 users and 9 items were given; give at least those numbers, or none"):
        read_ratings(_written(tmp_path, "u.data"), n_users=2, n_items=9)
    np.savez(tmp_path / "other.npz", x=USERS)
    with pytest.raises(ValueError, match="has no array user, item, rating; user, item, rating are needed: check that it is this data set"):
        read_ratings(tmp_path / "other.npz")
    np.savez(tmp_path / "uneven.npz", user=USERS, item=ITEMS[:2], rating=RATINGS)
    with pytest.raises(ValueError, match=r"arrays of the shapes \(4,\), \(2,\), \(4,\); vectors of one length are needed: check the file"):
        read_ratings(tmp_path / "uneven.npz")


def test_refusals_of_candidates(tmp_path: Path) -> None:
    (tmp_path / "uneven").write_text("(0,5)\t1\n(2,3)\n")
    with pytest.raises(ValueError, match=r"rows of different lengths, or none; \(user,item\) and as many others each are needed: check"):
        read_candidates(tmp_path / "uneven")
    np.savez(tmp_path / "flat.npz", user=np.array([0]), items=np.array([5]))
    with pytest.raises(ValueError, match=r"users of shape \(1,\) and items of shape \(1,\); \(n\) and \(n, at least 2\) are needed: check"):
        read_candidates(tmp_path / "flat.npz")
    np.savez(tmp_path / "minus.npz", user=np.array([0]), items=np.array([[5, -1]]))
    with pytest.raises(ValueError, match="has negative numbers; users and items are numbered from 0: check the file"):
        read_candidates(tmp_path / "minus.npz")
    for line in ("(-1,25)\t-7\t8", "(0,25)\t7.5", "hello", "0 25 7 8"):
        (tmp_path / "line").write_text(f"(0,5)\t1\n\n{line}\n")
        with pytest.raises(
            ValueError, match=r"line 3 of .*line is .*; '\(user,item\) item item ..' is needed, numbers from 0: check the file"
        ):
            read_candidates(tmp_path / "line")
    np.savez(tmp_path / "half.npz", user=np.array([0.5]), items=np.array([[5, 1]]))
    with pytest.raises(ValueError, match="has the user 0.5; whole numbers are needed: check that it is this data set"):
        read_candidates(tmp_path / "half.npz")


def test_fractions_and_words_are_refused(tmp_path: Path) -> None:
    for users, ratings, message in (
        (USERS + 0.7, RATINGS, "has the user 1.7; whole numbers are needed: check that it is this data set"),
        (np.array([1, np.nan, 2, 3]), RATINGS, "has the user nan; whole numbers are needed"),
        (np.array(["a", "b", "c", "d"]), RATINGS, "has the user a; whole numbers are needed"),
        (USERS, np.array(["a", "b", "c", "d"]), "has the rating a; numbers above 0 up to 5 are needed"),
    ):
        np.savez(tmp_path / "wrong.npz", user=users, item=ITEMS, rating=ratings)
        with pytest.raises(ValueError, match=message):
            read_ratings(tmp_path / "wrong.npz")
    (tmp_path / "gap.data").write_text("1\t2\t3\t4\n\n1,2,3\n")
    with pytest.raises(ValueError, match="line 3 of .*gap.data is '1,2,3'"):
        read_ratings(tmp_path / "gap.data")


def test_numbers_that_64_bits_do_not_hold_are_refused(tmp_path: Path) -> None:
    """They became others: the largest negative number, or the next even one where two users then were one."""
    large, end = 99999999999999999999, "; whole numbers of 64 bits are needed: number them anew, in order"
    for text, read, name in (
        (f"1\t2\t3\t4\n{large}\t2\t3\t4\n", read_ratings, "user or item"),
        (f"(0,5)\t1\n(2,{large})\t3\n", read_candidates, "user or item"),
    ):
        (tmp_path / "large").write_text(text)
        with pytest.raises(ValueError, match=f"large has the {name} {large}{end}"):
            read(tmp_path / "large")
    for users, value in ((USERS * 1e30, r"1e\+30"), (USERS.astype(np.uint64) << np.uint64(62), "9223372036854775808")):
        np.savez(tmp_path / "large.npz", user=users, item=ITEMS, rating=RATINGS)
        with pytest.raises(ValueError, match=f"has the user {value}{end}"):
            read_ratings(tmp_path / "large.npz")
    (tmp_path / "near.data").write_text(f"{2**53}\t1\t3\n{2**53 + 1}\t1\t3\n")
    assert read_ratings(tmp_path / "near.data").ids[:, 0].tolist() == [2**53 - 1, 2**53]


def test_candidates_without_rows_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz", user=np.zeros(0, np.int64), items=np.zeros((0, 3), np.int64))
    with pytest.raises(
        ValueError, match=r"users of shape \(0,\) and items of shape \(0, 3\); .* are needed: check it, and that there is a row"
    ):
        read_candidates(tmp_path / "none.npz")
