"""Text: characters as numbers, and windows of them for a language model that predicts the next character."""

import gzip
import itertools
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from tenfold.files import said_of


def read_text(path: str | os.PathLike[str]) -> str:
    r"""The text of a UTF-8 file, also of a gzipped one (ending .gz), with its line ends ("\n" or "\r\n") as they are.

    Raises:
        ValueError: the file is missing, damaged or not UTF-8.
    """
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"the file {place} does not exist; a text file, which may be gzipped, is needed: check the path")
    try:
        data = gzip.decompress(place.read_bytes()) if place.suffix == ".gz" else place.read_bytes()
        return data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"the file {place} cannot be read ({type(error).__name__}: {error}); undamaged UTF-8 text, gzipped where the name ends in .gz, "
            "is needed: save it again"
        ) from error


@dataclass(frozen=True)
class Vocabulary:
    """The characters that a model knows; the number of one is its position.

    characters: may have entries longer than one character, such as "<unk>", which no text becomes by itself.
    unknown: the entry that stands for all other characters; None where there shall be none.

    Raises:
        ValueError: an entry is there twice, or `unknown` is not there.

    >>> vocabulary = Vocabulary.of("hello")
    >>> vocabulary.characters, vocabulary.encode("hole").tolist(), vocabulary.decode(torch.tensor([1, 0]))
    (('e', 'h', 'l', 'o'), [1, 3, 2, 0], 'he')
    """

    characters: tuple[str, ...]
    unknown: str | None = None

    def __post_init__(self) -> None:
        twice = sorted({one for one in self.characters if self.characters.count(one) > 1})
        if twice or not self.characters:
            raise ValueError(
                f"the vocabulary has {len(self.characters)} entries, of which {twice} are there more than once; at least one, and each "
                "once, is needed: remove the others"
            )
        if self.unknown is not None and self.unknown not in self.characters:
            raise ValueError(f"unknown is {self.unknown!r}, which is not in the vocabulary; one of its entries is needed: add it")

    @staticmethod
    def of(text: str) -> "Vocabulary":
        """The characters of a text, sorted."""
        return Vocabulary(tuple(sorted(set(text))))

    @staticmethod
    def read(path: str | os.PathLike[str], *, unknown: str | None = None) -> "Vocabulary":
        """The vocabulary of a JSON file: an object of numbers by character, or a list in the order of the numbers.

        Raises:
            ValueError: the file is missing or damaged, or its numbers are not 0, 1, 2 and so on.
        """
        place = Path(path)
        try:
            found = json.loads(read_text(place))
        except json.JSONDecodeError as error:
            raise ValueError(f"{place} is not JSON ({error}); an object or a list of characters is needed: save it again") from error
        if isinstance(found, Mapping) and all(type(number) is int for number in found.values()):
            ordered = sorted(found, key=found.__getitem__)
            if [found[one] for one in ordered] == list(range(len(found))):
                found = ordered
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            with said_of(place):
                return Vocabulary(tuple(found), unknown)
        raise ValueError(
            f"{place} holds a {type(found).__name__} that is no vocabulary; a list of characters, or an object with the numbers 0, 1, 2 "
            "... by character, is needed: write it again"
        )

    def __len__(self) -> int:
        return len(self.characters)

    @cached_property
    def _number_of_code(self) -> np.ndarray:
        """The number of every code point up to the highest known one, -1 where it has none; the last entry stands for all higher ones."""
        codes = {ord(one): number for number, one in enumerate(self.characters) if len(one) == 1}
        table = np.full(max(codes, default=0) + 2, -1, np.int64)
        table[list(codes)] = list(codes.values())
        return table

    def encode(self, text: str) -> Tensor:
        """The numbers of the characters, int64.

        Raises:
            ValueError: a character is not in the vocabulary and there is no `unknown`.
        """
        table = self._number_of_code
        numbers = table[np.minimum(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), len(table) - 1)]
        strange = np.flatnonzero(numbers < 0)
        if len(strange) and self.unknown is None:
            raise ValueError(
                f"{len(strange)} of {len(text)} characters are not in the vocabulary of {len(self)}, the first is {text[strange[0]]!r} at "
                f"position {strange[0]}; every character needs a number: add them, or give unknown"
            )
        if len(strange) and self.unknown is not None:
            numbers[strange] = self.characters.index(self.unknown)
        return torch.from_numpy(numbers)

    def decode(self, numbers: Tensor) -> str:
        """The text of some numbers.

        Raises:
            ValueError: they have several axes, or one of them is no character's.
        """
        if (
            numbers.dim() != 1
            or numbers.is_floating_point()
            or (len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self))
        ):
            span = f" from {numbers.min()} to {numbers.max()}" if numbers.numel() else ""
            raise ValueError(
                f"the numbers have shape {tuple(numbers.shape)} and dtype {numbers.dtype}{span}; one axis of whole numbers from 0 to "
                f"{len(self) - 1} is needed: decode one text at a time, without the numbers that stand for padding"
            )
        return "".join(self.characters[number] for number in numbers.tolist())


def windows(numbers: Tensor, length: int, stride: int | None = None) -> TensorDataset:
    """A data set of (input, target), both (length) int64: windows of a text, and the same one character later.

    Args:
        numbers: of a text, (characters).
        stride: from one window to the next; `length` where left out, so that windows do not overlap. What is left at the end is not used.

    Raises:
        ValueError: the text is shorter than one window and its next character, or length or stride are below 1.

    >>> inputs, targets = windows(torch.arange(8), 3).tensors
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    step = length if stride is None else stride
    if numbers.dim() != 1 or length < 1 or step < 1 or len(numbers) <= length:
        raise ValueError(
            f"the text has shape {tuple(numbers.shape)}, windows have length {length} and stride {step}; one axis with more characters "
            "than a window has, and a length and a stride of at least 1, are needed: take shorter windows or a longer text"
        )
    return TensorDataset(numbers[:-1].unfold(0, length, step), numbers[1:].unfold(0, length, step))


def cut_text(numbers: Tensor, ratios: Sequence[float]) -> tuple[Tensor, ...]:
    """A text cut into parts that follow each other, for training, validation and test.

    Args:
        ratios: share of each part; they add up to 1.

    Raises:
        ValueError: the shares are not above 0 or do not add up to 1.

    >>> [len(part) for part in cut_text(torch.arange(10), (0.8, 0.1, 0.1))]
    [8, 1, 1]
    """
    if not ratios or min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise ValueError(f"the ratios {tuple(ratios)} add up to {sum(ratios):g}; shares above 0 that add up to 1 are needed: change them")
    ends = [round(len(numbers) * sum(ratios[:k])) for k in range(len(ratios) + 1)]
    return tuple(numbers[start:end] for start, end in itertools.pairwise(ends))
