"""Text: vocabularies, windows and parts."""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenfold.batches import batches
from tenfold.data import Vocabulary, cut_text, read_text, windows

DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))


@given(st.text(min_size=1, max_size=60))
def test_a_vocabulary_of_a_text_gives_it_back(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode("utf-8") or "a"
    vocabulary = Vocabulary.of(text)
    numbers = vocabulary.encode(text)
    assert vocabulary.decode(numbers) == text
    assert len(vocabulary) == len(set(text))
    assert numbers.dtype == torch.int64


def test_files_are_read_with_their_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a\r\nö\n".encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("a\r\nö\n".encode()))
    assert read_text(tmp_path / "a.txt") == read_text(tmp_path / "a.txt.gz") == "a\r\nö\n"
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(
        ValueError, match=r"b\.txt cannot be read \(UnicodeDecodeError: .*\); undamaged UTF-8 text, .* is needed: save it again"
    ):
        read_text(tmp_path / "b.txt")


def test_vocabularies_are_read_from_objects_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps({"b": 0, "a": 2, "\n": 1}))
    assert Vocabulary.read(path).encode("ab\n").tolist() == [2, 0, 1]
    path.write_text(json.dumps(["<unk>", "a", "b"]))
    vocabulary = Vocabulary.read(path, unknown="<unk>")
    assert vocabulary.encode("abc<").tolist() == [1, 2, 0, 0]
    assert vocabulary.decode(torch.tensor([0, 1])) == "<unk>a"


def test_vocabularies_that_do_not_fit_raise(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    for text, message in {
        "{": r"v\.json is not JSON \(.*\); an object or a list of characters is needed: save it again",
        '{"a": 0, "b": 2}': r"v\.json holds a dict that is no vocabulary; .* the numbers 0, 1, 2 \.\.\. by character, is needed: write it again",
        "[1, 2]": r"v\.json holds a list that is no vocabulary",
        '["a", "a"]': r"in .*\.json the vocabulary has 2 entries, of which \['a'\] are there more than once; at least one, and each once, is needed",
        "[]": r"the vocabulary has 0 entries",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            Vocabulary.read(path)
    with pytest.raises(ValueError, match=r"unknown is '\?', which is not in the vocabulary; one of its entries is needed: add it"):
        Vocabulary(("a",), unknown="?")
    with pytest.raises(
        ValueError, match=r"2 of 4 characters are not in the vocabulary of 1, the first is 'b' at position 1; every character needs a"
    ):
        Vocabulary(("a",)).encode("abca")


@pytest.mark.parametrize(
    "numbers", [torch.tensor([0, -1]), torch.tensor([2]), torch.tensor([[0, 1]]), torch.tensor([0.0]), torch.tensor(0)]
)
def test_numbers_that_are_no_text(numbers: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"the numbers have shape .*; one axis of whole numbers from 0 to 1 is needed: decode one text"):
        Vocabulary(("a", "b")).decode(numbers)


def test_half_a_character_is_an_unknown_one() -> None:
    assert Vocabulary(("a", "<unk>"), "<unk>").encode("a\udcff").tolist() == [0, 1]
    with pytest.raises(ValueError, match="1 of 2 characters are not in the vocabulary"):
        Vocabulary(("a",)).encode("a\udcff")


def test_targets_of_windows_are_one_character_later() -> None:
    numbers = torch.arange(20)
    data = windows(numbers, 4, stride=3)
    inputs, targets = data.tensors
    assert inputs[:, 0].tolist() == [0, 3, 6, 9, 12, 15]
    torch.testing.assert_close(targets, inputs + 1)
    assert inputs.untyped_storage().data_ptr() == numbers.untyped_storage().data_ptr(), "no copies"
    (batch, _), *_ = batches(windows(numbers, 4), 3)
    assert batch.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert len(windows(torch.arange(5), 4)) == 1


def test_windows_that_do_not_fit_raise() -> None:
    for n, length, stride in ((4, 4, None), (9, 0, None), (9, 2, 0)):
        with pytest.raises(
            ValueError, match=rf"the text has shape \({n},\), windows have length {length} and stride .* take shorter windows or"
        ):
            windows(torch.arange(n), length, stride)


def test_texts_are_cut_into_parts_that_follow_each_other() -> None:
    parts = cut_text(torch.arange(103), (0.9, 0.05, 0.05))
    assert torch.cat(parts).tolist() == list(range(103))
    assert [len(part) for part in parts] == [93, 5, 5]
    with pytest.raises(
        ValueError, match=r"the ratios \(0\.9, 0\.2\) add up to 1\.1; shares above 0 that add up to 1 are needed: change them"
    ):
        cut_text(torch.arange(9), (0.9, 0.2))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs a text and a vocabulary: a folder named by $TENFOLD_DATA, or ../shared/data")
def test_published_texts() -> None:
    text = read_text(DATA / "chartext" / "tinyshakespeare.txt.gz")
    assert len(text) == 1_115_394
    vocabulary = Vocabulary.of(text)
    assert len(vocabulary) == 65
    assert vocabulary.decode(vocabulary.encode(text)[:500]) == text[:500]
    given_ = Vocabulary.read(DATA / "weights" / "charlstm_bronte_vocab.json")
    novel = read_text(DATA / "chartext" / "bronte.txt.gz")[:200_000]
    assert given_.decode(given_.encode(novel)) == novel
