"""Click-through data: rows of text files, whatever their form, and files that cannot be read."""

import gzip
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from click_cases import everything, row, write
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data import ctr
from tenfold.data.avazu import AVAZU, read_avazu
from tenfold.data.criteo import CRITEO, KAGGLE_ROWS, read_criteo
from tenfold.data.ctr import key_of, mixed, parse
from tenfold.data.ctr_batches import Clicks
from tenfold.data.ids import HashedIds, build_vocabulary

DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_criteo = pytest.mark.skipif(not (DATA / "criteo" / "train.csv.gz").exists(), reason="needs the Criteo sample of $TENFOLD_DATA")
needs_avazu = pytest.mark.skipif(not (DATA / "avazu" / "train.csv.gz").exists(), reason="needs the Avazu sample of $TENFOLD_DATA")


def test_rows_are_what_a_plain_reader_finds(tmp_path: Path) -> None:
    rows = [row(k, "01"[k % 2]) for k in range(40)]
    labels, numbers, keys = everything(write(tmp_path / "a.tsv", rows), block_bytes=500)
    for k, one in enumerate(rows):
        assert labels[k] == float(one[0])
        wanted = [math.log1p(max(float(text or 0), 0.0)) for text in one[1:14]]
        np.testing.assert_allclose(numbers[k], wanted, rtol=1e-6)
        assert keys[k].tolist() == [key_of(text) for text in one[14:]]
    assert numbers.dtype == np.float32


@pytest.mark.parametrize("name", ["a.csv.gz", "a.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_forms_of_a_file_give_the_same_rows(tmp_path: Path, name: str, end: str) -> None:
    rows = [row(k) for k in range(9)]
    plain = everything(write(tmp_path / "plain.tsv", rows))
    head = ",".join(CRITEO.columns) + end
    for one, other in zip(plain, everything(write(tmp_path / name, rows, ",", end, head)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_last_line_needs_no_end_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("\t".join(row(1)) + "\n\n" + "\t".join(row(2)))
    assert len(everything(path)[0]) == 2


@pytest.mark.parametrize(("start", "n_bad"), [("\n", 0), ("\r\n\n", 0), ("no row\n", 1), ("a,b\n", 1), ("\n1\t2\n\n", 1)])
@pytest.mark.parametrize("separator", ["\t", ","])
def test_the_first_line_alone_does_not_tell_the_separator(tmp_path: Path, separator: str, start: str, n_bad: int) -> None:
    rows = [row(k) for k in range(9)]
    path = write(tmp_path / "a.txt", rows, separator, "\n", start)
    for one, other in zip(everything(path, most_bad=0.2), everything(write(tmp_path / "plain.tsv", rows)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(read_criteo(path, most_bad=0.2).blocks())[-1][2].bad.count == n_bad


def test_a_header_may_follow_empty_lines(tmp_path: Path) -> None:
    rows = [row(k) for k in range(9)]
    rows[4][0] = "2"
    files = read_criteo(write(tmp_path / "a.csv", rows, ",", "\n", "\n\r\n" + ",".join(CRITEO.columns) + "\n"), most_bad=0.2)
    assert list(files.blocks())[-1][2].bad.first == (("a.csv", 8, "the label '2', not 0 or 1"),)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("head", ["", ",".join(CRITEO.columns) + "\n", "\n"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, name: str, head: str) -> None:
    rows = [row(k) for k in range(9)]
    plain = everything(write(tmp_path / "plain.tsv", rows, ","))
    path = write(tmp_path / name, rows, ",", "\n", "\ufeff" + head)
    for one, other in zip(everything(path, block_bytes=500), plain, strict=True):
        np.testing.assert_array_equal(one, other)
    clicks = [Clicks(read_criteo(path, block_bytes=500), HashedIds.of(CRITEO, 50), 4) for _ in range(2)]
    next(stream := iter(clicks[0]))
    clicks[1].load_state_dict(clicks[0].state_dict())
    np.testing.assert_array_equal(next(iter(clicks[1]))[0][1], next(stream)[0][1])


def test_the_reason_of_a_bad_file_is_of_its_own_separator(tmp_path: Path) -> None:
    rows = [row(k)[:-1] for k in range(9)]
    for separator in ("\t", ","):
        with pytest.raises(ValueError, match=r"line 2: 39 columns, not 40"):
            everything(write(tmp_path / "a.txt", rows, separator, "\n", "\n"))


@given(
    st.lists(st.one_of(st.just(""), st.integers(-(10**14), 10**15 - 1).map(str), st.floats(-1e6, 1e6).map(str)), min_size=1, max_size=20)
)
def test_numbers_of_any_form_are_read(texts: list[str]) -> None:
    lines = [[one, *("5" for _ in range(12)), *("ab" for _ in range(26))] for one in texts]
    parsed = parse(CRITEO, "".join("\t".join(["0", *one]) + "\n" for one in lines).encode(), b"\t")
    assert parsed.n_bad == 0
    np.testing.assert_allclose(parsed.rows.numbers[:, 0], [float(one) if one else math.nan for one in texts], rtol=1e-12)


@given(
    st.lists(st.text(st.characters(blacklist_characters="\t\n\r,\x00", blacklist_categories=["Cs"]), max_size=30), min_size=2, max_size=20)
)
def test_values_have_keys_of_their_own(texts: list[str]) -> None:
    keys = [key_of(text) for text in texts]
    assert len(set(keys)) == len(set(texts))
    assert all(key_of(one) == int.from_bytes(one.encode(), "little") for one in texts if len(one.encode()) <= 8)


def test_a_long_field_costs_its_own_length_and_not_that_of_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 rows one has a field of 80 kB: that is 10,000 pieces of eight bytes, and about 26 for every row."""
    n_read, read = 0, ctr._Fields._eight

    def counted(self: ctr._Fields, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        nonlocal n_read
        n_read += len(start)
        return read(self, start, end)

    monkeypatch.setattr(ctr._Fields, "_eight", counted)
    rows = [row(k) for k in range(300)]
    rows[7][-2] = "a" * 80_000
    parsed = parse(CRITEO, "\n".join(map("\t".join, rows)).encode(), b"\t")
    assert parsed.rows.keys[7, 24] == key_of("a" * 80_000) and parsed.rows.keys[8, 24] == key_of(rows[8][-2])
    assert n_read < 40_000


def test_mixing_keys_loses_none() -> None:
    keys = np.arange(1 << 16, dtype=np.uint64)
    assert len(np.unique(mixed(keys))) == len(keys)


# -- bad rows and bad files --------------------------------------------------------------------------------------------


def test_few_bad_rows_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [row(k) for k in range(100)]
    rows[7] = rows[7][:-1]
    rows[50][0] = "2"
    rows[80][4] = "many"
    rows[90][0] = ""
    files = read_criteo(write(tmp_path / "a.tsv", rows), most_bad=0.05, block_bytes=3000)
    clicks = Clicks(files, HashedIds.of(CRITEO, 10), 32)
    with pytest.warns(
        UserWarning,
        match=r"4 bad rows were left out: a\.tsv, line 8: 39 columns, not 40; a\.tsv, line 51: the label '2', .*line 81: 'many' in column 'I4', which holds whole numbers; and 1 more",
    ):
        assert sum(len(labels) for _, labels in clicks) == 96
    assert clicks.position.bad.count == 4
    assert (clicks.position.rows, clicks.position.missing, clicks.position.negative) == (96, 96, 96)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one[:-1], r"1 of 20 rows are bad \(a\.tsv, line 4: 39 columns, not 40\); at most 0\.10% may be, of 40 columns each, as criteo has them: repair"),
        (lambda one: ["x", *one[1:]], r"1 of 20 rows are bad \(a\.tsv, line 4: the label 'x', not 0 or 1\); at most 0\.10% may be"),
        (lambda one: [*one[:5], "12c", *one[6:]], r"1 of 20 rows are bad \(a\.tsv, line 4: '12c' in column 'I5', which holds whole numbers\)"),
        (lambda one: [*one[:5], "nan", *one[6:]], r"line 4: 'nan' in column 'I5'"),
        (lambda one: [*one[:5], "1_000", *one[6:]], r"line 4: '1_000' in column 'I5'"),
    ],
)  # fmt: skip
def test_too_many_bad_rows_are_an_error(tmp_path: Path, change, message: str) -> None:
    rows = [row(k) for k in range(20)]
    rows[3] = change(rows[3])
    with pytest.raises(ValueError, match=message):
        everything(write(tmp_path / "a.tsv", rows))


def test_damaged_empty_and_missing_files_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", [row(random.Random(k).randrange(10**6)) for k in range(500)])
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ValueError,
            match=r"a\.gz breaks off or is damaged after line [\d,]+ \(EOFError: .*\); a whole gzip file is needed: copy or download",
        ):
            everything(path, block_bytes=4096)
    path.write_bytes(whole[:100] + bytes(50) + whole[150:])
    with pytest.raises(ValueError, match=r"a\.gz breaks off or is damaged after line"):
        everything(path)
    for text in ("", "\n\n", ",".join(CRITEO.columns) + "\n"):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(
            ValueError, match=r"b\.csv \(\d+ bytes\) holds no rows; rows of 40 columns, as criteo has them, are needed: check"
        ):
            everything(tmp_path / "b.csv")
    with pytest.raises(
        ValueError, match=r"the file .*none\.csv does not exist; a file of criteo rows, plain or \.gz, is needed: check the path"
    ):
        read_criteo(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r" is a folder; a file of criteo rows, .* is needed: check the path, or list a folder's files"):
        read_criteo(tmp_path)
    with pytest.raises(ValueError, match=r"no file was given; at least one file of criteo rows is needed"):
        read_criteo([])
    with pytest.raises(ValueError, match=r"most_bad=1\.5; it is the part of the rows that may be bad, from 0 and below 1"):
        read_criteo(path, most_bad=1.5)
    (tmp_path / "c.csv").write_bytes(b"a" * (3 << 20))
    with pytest.raises(ValueError, match=r"c\.csv has a line of more than 1,048,576 bytes; lines of 40 columns are needed"):
        everything(tmp_path / "c.csv")


# -- Avazu ---------------------------------------------------------------------------------------------------------------


def test_the_hour_becomes_an_angle_and_a_weekday(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    hours = ["14102100", "14102106", "14102618", "", "14993399", "14022900", "16022900"]
    path.write_text(
        ",".join(AVAZU.columns)
        + "\n"
        + "".join(",".join([str(k), "1", hour, *"abcdefghijklmnopqrstu"]) + "\n" for k, hour in enumerate(hours))
    )
    ((_, rows, after),) = read_avazu(path).blocks()
    np.testing.assert_allclose(rows.numbers, [[1, 0], [0, 1], [0, -1], [0, 0], [0, 0], [0, 0], [1, 0]], atol=1e-6)
    assert rows.keys[:, -1].tolist() == [2, 2, 7, 0, 0, 0, 1], "a Tuesday twice, a Sunday, three that are no dates, and a 29 February"
    assert (after.missing, after.negative) == (1, 2)
    assert rows.keys[0, :-1].tolist() == [ord(one) for one in "abcdefghijklmnopqrstu"]


@needs_avazu
def test_the_avazu_sample_is_read_whole() -> None:
    files = read_avazu(DATA / "avazu" / "train.csv.gz")
    clicks = Clicks(files, build_vocabulary(files, min_count=2), 1000)
    assert sum(len(labels) for _, labels in clicks) == 8087
    assert clicks.position.bad.count == 0
    dev = [rows for _, rows, _ in read_avazu(DATA / "avazu" / "dev.csv.gz").blocks()]
    assert sum(map(len, dev)) == 480, "a file without a header"


@needs_criteo
def test_the_criteo_sample_is_read_as_a_plain_reader_does() -> None:
    path = DATA / "criteo" / "train.csv.gz"
    labels, numbers, keys = everything(path)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert len(labels) == len(lines) == 7200
    for k in range(0, 7200, 97):
        label, *fields = lines[k].split("\t")
        assert labels[k] == float(label)
        np.testing.assert_allclose(numbers[k], [math.log1p(max(float(one or 0), 0.0)) for one in fields[:13]], rtol=1e-6)
        assert keys[k].tolist() == [key_of(one) for one in fields[13:]]


def test_the_tables_of_kaggle_are_those_of_the_published_count() -> None:
    assert (len(KAGGLE_ROWS), sum(KAGGLE_ROWS)) == (26, 33_762_577)
