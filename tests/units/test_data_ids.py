"""Ids of categories: vocabularies, counted and saved, and hashing."""

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from click_cases import everything, row, write

from tenfold.data import ids as module
from tenfold.data.avazu import read_avazu
from tenfold.data.criteo import CRITEO, read_criteo
from tenfold.data.ctr import key_of
from tenfold.data.ctr_batches import Clicks
from tenfold.data.ids import HashedIds, IdVocabulary, build_vocabulary


def test_a_vocabulary_counts_and_comes_back_from_its_file(tmp_path: Path) -> None:
    rows = [row(k) for k in range(64)]
    files = read_criteo(write(tmp_path / "a.tsv", rows), block_bytes=2000)
    made = build_vocabulary(files, min_count=10, n_rows=50)
    for table in range(26):
        counts: dict[str, int] = {}
        for one in rows[:50]:
            counts[one[14 + table]] = counts.get(one[14 + table], 0) + 1
        kept = {text: count for text, count in counts.items() if count >= 10}
        assert made.sizes[table] == len(kept) + 1
        assert {int(k): int(c) for k, c in zip(made.keys[table], made.counts[table], strict=True)} == {
            key_of(t): c for t, c in kept.items()
        }
        assert (np.diff(made.counts[table]) <= 0).all(), "ids are in the order of the counts"
    made.save(tmp_path / "v.npz")
    again = IdVocabulary.load(tmp_path / "v.npz")
    keys = everything(files.paths[0])[2]
    np.testing.assert_array_equal(again.encode(keys), made.encode(keys))
    assert (again.sizes, again.min_count, again.source) == (made.sizes, 10, files.name)
    strange = np.full((1, 26), key_of("strange"), np.uint64)
    assert not made.encode(strange).any(), "what was not seen has id 0"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tsv", "v.npz"], "no temporary file is left"


def test_counting_in_bounded_memory_finds_the_frequent_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def value(k: int) -> str:
        return f"{k % 3:x}" if k % 2 else f"{1000 + k:x}"

    rows = [[*row(0)[:14], *(value(k) for _ in range(26))] for k in range(3000)]
    files = read_criteo(write(tmp_path / "a.tsv", rows), block_bytes=50_000)
    monkeypatch.setattr(module, "PENDING", 100)
    made = build_vocabulary(files, min_count=100, most_values=50)
    assert {int(key) for key in made.keys[0]} == {key_of(f"{k:x}") for k in range(3)}
    assert 0 < made.undercount < 400
    assert all(500 - made.undercount <= count <= 500 for count in made.counts[0])


def test_hashed_ids_stay_within_their_tables() -> None:
    keys = np.random.default_rng(0).integers(0, 1 << 60, (5000, 26)).astype(np.uint64)
    ids = HashedIds.of(CRITEO, [*range(1, 26), 1000])
    found = ids.encode(keys)
    assert (found >= 0).all() and (found < np.array(ids.sizes)).all()
    np.testing.assert_array_equal(found, ids.encode(keys))
    assert (found != HashedIds.of(CRITEO, ids.sizes, seed=1).encode(keys))[:, 5:].mean() > 0.5
    counts = np.bincount(found[:, 25], minlength=1000)
    assert counts.max() < 30, "5 on average in each of 1000: more than 29 in one has a chance below 1e-9"


def test_ids_of_other_tables_are_refused(tmp_path: Path) -> None:
    criteo = read_criteo(write(tmp_path / "a.tsv", [row(k) for k in range(5)]))
    made = build_vocabulary(criteo)
    other = tmp_path / "avazu.csv"
    other.write_text(",".join(["1", "0", "14102100", *"abcdefghijklmnopqrstu"]) + "\n")
    with pytest.raises(
        ValueError,
        match=r"the vocabulary of criteo data \(a\.tsv \([\d,]+ bytes\)\) is for 26 tables, C1 to C26; avazu data have 22, C1 to weekday: build one",
    ):
        Clicks(read_avazu(other), made, 10)
    with pytest.raises(ValueError, match=r"these hashed ids are for 26 tables"):
        Clicks(read_avazu(other), HashedIds.of(CRITEO, 3), 10)
    with pytest.raises(ValueError, match=r"26 tables were given 1 sizes, the smallest 5; each table needs a size of at least 1"):
        HashedIds.of(CRITEO, [5])
    for damaged in (b"PK\x03\x04 nothing", b""):
        (tmp_path / "v.npz").write_bytes(damaged)
        with pytest.raises(
            ValueError,
            match=r"v\.npz is no vocabulary that can be read \(.*\); a whole file of 'tenfold vocabulary 1' is needed: build it again",
        ):
            IdVocabulary.load(tmp_path / "v.npz")
    with pytest.raises(ValueError, match=r"min_count=0, most_values=None; at least 1 and 2 are needed"):
        build_vocabulary(criteo, min_count=0)
    for n_rows in (0, -5):
        with pytest.raises(ValueError, match=rf"build_vocabulary got n_rows={n_rows}; at least 1 row is needed: raise it, or leave it out"):
            build_vocabulary(criteo, n_rows=n_rows)


def test_a_vocabulary_counts_the_bad_rows_that_it_left_out(tmp_path: Path) -> None:
    rows = [row(k) for k in range(2000)]
    files = read_criteo(write(tmp_path / "a.tsv", [*rows, ["bad"]]), block_bytes=50_000)
    with pytest.warns(UserWarning, match=r"1 bad rows were left out: a\.tsv, line 2001: 1 columns, not 40; repair the file if they matter"):
        made = build_vocabulary(files)
    assert sum(made.counts[0]) == 2000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_vocabulary(files, n_rows=100)


def test_a_vocabulary_whose_header_lacks_a_field_is_refused(tmp_path: Path) -> None:
    header = np.frombuffer(b'{"version": "tenfold vocabulary 1", "tables": ["a"]}', np.uint8)
    np.savez(tmp_path / "v.npz", about=header, keys_0=np.zeros(1, np.uint64), counts_0=np.ones(1, np.int64))
    with pytest.raises(ValueError, match=r"v\.npz is no vocabulary that can be read \(KeyError: 'layout'\); a whole file of"):
        IdVocabulary.load(tmp_path / "v.npz")


def test_every_seed_hashes() -> None:
    keys = np.arange(52, dtype=np.uint64).reshape(2, 26)
    found = [HashedIds.of(CRITEO, 1 << 40, seed=seed).encode(keys) for seed in (-1, 0, 1)]
    assert all((one != other).all() for one, other in itertools.combinations(found, 2))
