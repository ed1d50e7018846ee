"""Series: files of the .ts format, and malformed lines by their number."""

import gzip
import os
from pathlib import Path

import pytest
import torch

from tenfold.data import Sequences, read_series

UEA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data")) / "uea"
HEADER = """# two channels
@problemName Waves
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
"""


def read(folder: Path, lines: str, header: str = HEADER, **arguments: float) -> Sequences:
    (folder / "a.ts").write_text(header + lines, encoding="utf-8")
    return read_series(folder / "a.ts", missing=arguments.get("missing"))


def test_series_are_steps_by_channels(tmp_path: Path) -> None:
    data = read(tmp_path, "1,2,3:4,5,-6.5e1:down\n\n# more\n 7 , 8 : 9,10 : up \r\n")
    assert (data.classes, data.targets.tolist(), data.lengths.tolist()) == (("up", "down"), [1, 0], [3, 2])
    torch.testing.assert_close(data.inputs[0], torch.tensor([[1.0, 4], [2, 5], [3, -65]]))
    torch.testing.assert_close(data.inputs[1], torch.tensor([[7.0, 9], [8, 10]]))
    (tmp_path / "b.ts.gz").write_bytes(gzip.compress((HEADER + "1:2:up\n").encode()))
    assert read_series(tmp_path / "b.ts.gz").inputs[0].tolist() == [[1, 2]]


def test_classes_can_be_given(tmp_path: Path) -> None:
    read(tmp_path, "1:2:up\n")
    assert read_series(tmp_path / "a.ts", classes=("down", "up")).targets.tolist() == [1]
    with pytest.raises(ValueError, match=r"the classes of .*a\.ts are up, up, some of them twice; each is needed once"):
        read_series(tmp_path / "a.ts", classes=("up", "up"))


def test_missing_values_are_filled_where_asked(tmp_path: Path) -> None:
    assert read(tmp_path, "1,?:NaN,4:up\n", missing=-1.0).inputs[0].tolist() == [[1, -1], [-1, 4]]
    with pytest.raises(
        ValueError, match=r"line 9 of .*a\.ts has 1 missing or infinite values in channel 1; finite numbers are needed: give missing=0"
    ):
        read(tmp_path, "1,?:3,4:up\n")
    with pytest.raises(ValueError, match=r"line 9 of .* has 1 missing or infinite values in channel 2"):
        read(tmp_path, "1,2:3,inf:up\n", missing=0.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "1:2:up\n1:2:3:up\n",
            r"line 10 of .*a\.ts has 3 channels before its class; 2 needed, by @dimensions: separate channels and class by colons",
        ),
        ("1:2:up\n\nup\n", r"line 11 of .*a\.ts has 0 channels before its class; 2 needed"),
        ("1,2:3:up\n", r"line 9 of .*a\.ts has channels of 1 and 2 steps; one number is needed for all: correct it"),
        ("1,2:3,x4:up\n", r"line 9 of .*a\.ts has 'x4' in channel 2; numbers separated by commas are needed: correct it"),
        ("1,2:3,:up\n", r"line 9 of .*a\.ts has '' in channel 2; numbers separated by commas are needed: correct it"),
        ("1:2:sideways\n", r"line 9 of .*a\.ts has the class 'sideways'; one of up, down is needed: correct it, or give classes"),
        ("", r"a\.ts has 0 series after @data; at least one is needed: check that it is whole"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, lines)


@pytest.mark.parametrize(
    ("old", "new", "lines", "message"),
    [
        (
            "@timeStamps false",
            "@timeStamps true",
            "1:2:up\n",
            r"a\.ts has time stamps; values at regular steps are needed: write it without them",
        ),
        (
            "@dimensions 2",
            "@dimensions two",
            "1:2:up\n",
            r"a\.ts has @dimensions 'two'; a whole number above 0 is needed: correct the line",
        ),
        (
            "@classLabel true up down",
            "@classLabel false",
            "1:2\n",
            r"a\.ts has no classes \(@classLabel true NAME NAME \.\.\.\); they are needed",
        ),
        (
            "@classLabel true up down",
            "@targetLabel true",
            "1:2:3\n",
            r"a\.ts has values as targets \(@targetLabel\); classes are needed: take",
        ),
        ("@data", "", "1:2:up\n", r"a\.ts has 9 lines and no line @data; a \.ts file is needed: check the path"),
        (
            "@equalLength false",
            "@equalLength true\n@seriesLength 3",
            "1:2:up\n",
            r"line 10 .* channels of 1 steps; 3 by @seriesLength is needed for all",
        ),
        ("@dimensions 2\n", "", "1:2:up\n1:up\n", r"line 9 of .* has 1 channels and the first series has 2; all need the same: correct it"),
        ("@univariate false\n@dimensions 2", "@univariate true", "1:2:up\n", r"line 8 of .* has 2 channels before its class; 1 needed"),
    ],
)
def test_headers_are_heeded(tmp_path: Path, old: str, new: str, lines: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, lines, HEADER.replace(old, new))


def test_missing_and_damaged_files_raise(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the file .*none\.ts does not exist; a text file, which may be gzipped, is needed: check the path"
    ):
        read_series(tmp_path / "none.ts")
    whole = gzip.compress((HEADER + "1:2:up\n").encode())
    (tmp_path / "cut.ts.gz").write_bytes(whole[:-20])
    with pytest.raises(
        ValueError,
        match=r"cut\.ts\.gz cannot be read \(EOFError: .*\); undamaged UTF-8 text, gzipped where the name ends in \.gz, is needed",
    ):
        read_series(tmp_path / "cut.ts.gz")


@pytest.mark.skipif(not UEA.is_dir(), reason="needs the UEA series: a folder named by $TENFOLD_DATA, or ../shared/data")
def test_published_series() -> None:
    motions = [read_series(UEA / f"BasicMotions_{part}.ts.gz") for part in ("TRAIN", "TEST")]
    assert motions[0].classes == motions[1].classes == ("Standing", "Running", "Walking", "Badminton")
    for data in motions:
        assert (len(data), data.n_features, set(data.lengths.tolist())) == (40, 6, {100})
        assert torch.bincount(data.targets).tolist() == [10] * 4
    torch.testing.assert_close(motions[0].inputs[0][:3, 0], torch.tensor([0.079106, 0.079106, -0.903497]))
    vowels = read_series(UEA / "JapaneseVowels_TRAIN.ts.gz")
    assert (len(vowels), vowels.n_features, len(vowels.classes)) == (270, 12, 9)
    assert (int(vowels.lengths.min()), int(vowels.lengths.max())) == (7, 26)
    assert torch.bincount(vowels.targets).tolist() == [30] * 9
