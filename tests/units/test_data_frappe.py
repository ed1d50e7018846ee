"""Frappe files: both layouts give the same rows, and what is refused."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from tenfold.data.frappe import read_frappe

IDS = np.array([[1, 957, 5039, 5046, 5053, 5055, 5058, 5060, 5069, 5149], [956, 5038, 5045, 5052, 5054, 5057, 5059, 5068, 5145, 5381]])
DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_both_layouts(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=IDS.astype(np.int16), y=np.array([-1, 1]))
    (tmp_path / "one.libfm").write_text(
        "".join(f"{y} " + " ".join(f"{i}:1" for i in row) + "\n" for y, row in zip((-1, 1), IDS, strict=True))
    )
    for name in ("one.npz", "one.libfm"):
        rows = read_frappe(tmp_path / name)
        assert rows.ids.tolist() == IDS.tolist() and rows.targets.tolist() == [0.0, 1.0]
        assert rows.n_features == sum(group.size for group in rows.groups) == 5382


def test_real_file() -> None:
    place = DATA / "frappe" / "validation.npz"
    if not place.exists():
        pytest.skip("Frappe is not below $TENFOLD_DATA")
    rows = read_frappe(place)
    assert len(rows) == 57722 and round(float(rows.targets.mean()), 2) == 0.33
    for group in rows.groups:
        mine = rows.ids[:, group.first : group.last]
        assert int(mine.min()) >= group.start and int(mine.max()) < group.start + group.size


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.libfm does not exist; a libfm or .npz file of Frappe is needed: check the path"):
        read_frappe(tmp_path / "none.libfm")
    (tmp_path / "bad.libfm").write_text("1 a:1\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is '1 a:1'; 'target feature:1 feature:1 ..' is needed: check the file"):
        read_frappe(tmp_path / "bad.libfm")
    (tmp_path / "short.libfm").write_text("1 4:1 5:1\n")
    with pytest.raises(ValueError, match="line 1 of .* has 2 features; 10 are needed: check that it is this data set"):
        read_frappe(tmp_path / "short.libfm")
    np.savez(tmp_path / "x.npz", x=IDS)
    with pytest.raises(ValueError, match="has no array y; x and y are needed: check that it is this data set"):
        read_frappe(tmp_path / "x.npz")
    np.savez(tmp_path / "narrow.npz", x=IDS[:, :3], y=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"rows of shape \(2, 3\) and targets of shape \(2,\); \(n, 10\) and \(n\) are needed: check that"):
        read_frappe(tmp_path / "narrow.npz")
    np.savez(tmp_path / "stars.npz", x=IDS, y=np.array([3, 1]))
    with pytest.raises(ValueError, match=r"has the targets \[1, 3\]; 0 or -1 and 1 are needed: check the file"):
        read_frappe(tmp_path / "stars.npz")


def test_damaged_lines_are_refused(tmp_path: Path) -> None:
    place, line = tmp_path / "one.libfm", " ".join(f"{feature}:1" for feature in IDS[0])

    def refused(text: str, message: str) -> None:
        place.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_frappe(place)

    for target in ("inf", "nan", "0.5", "2"):
        refused(f"1 {line}\n{target} {line}\n", rf"line 2 of .* has the target {target}; 0 or -1 and 1 are needed: check the file")
    refused(f"1 {line.replace('957', '9_57')}\n", "line 1 of .*; 'target feature:1 feature:1 ..' is needed: check the file")
    refused("\n", "has no rows; at least one is needed: check the path")
    refused(
        f"1 {line}\n1 {line.replace(' 957:', ' 20:')}\n",
        "row 2 of .* has the feature 20 in the field 'item'; its features are numbered from 957 to 5038: check that it is this data set",
    )
    refused(
        f"1 {line}\n1 {line.replace(' 957:', ' 99999999999999999999:')}\n",
        "has the feature 99999999999999999999; whole numbers of 64 bits are needed: number them anew, in order",
    )
    whole = gzip.compress(f"1 {line}\n".encode())
    for packed in (whole, whole[: len(whole) // 2]):
        place.write_bytes(packed)
        with pytest.raises(ValueError, match="holds no text; a libfm or .npz file of Frappe is needed: unpack a compressed file, or check"):
            read_frappe(place)


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "words.npz", x=np.full((3, 10), "a"), y=np.array([1, 0, 0]))
    with pytest.raises(ValueError, match="has the feature a; whole numbers are needed: check that it is this data set"):
        read_frappe(tmp_path / "words.npz")
    np.savez(tmp_path / "half.npz", x=IDS, y=np.array([0.5, 1]))
    with pytest.raises(ValueError, match=r"has the targets \[0.5, 1.0\]; 0 or -1 and 1 are needed: check the file"):
        read_frappe(tmp_path / "half.npz")
    np.savez(tmp_path / "none.npz", x=IDS[:0], y=np.zeros(0))
    with pytest.raises(ValueError, match="has no rows; at least one is needed: check the path"):
        read_frappe(tmp_path / "none.npz")
    np.savez(tmp_path / "floats.npz", x=IDS.astype(np.float32), y=np.array([0.0, 1.0]))
    assert read_frappe(tmp_path / "floats.npz").ids.tolist() == IDS.tolist()
