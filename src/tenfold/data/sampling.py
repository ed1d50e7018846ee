"""Sampling: which frames of a clip are kept. Always in their order, and never one frame twice: a short clip gives fewer frames."""

import abc
import zlib
from dataclasses import dataclass

import numpy as np


class Sampling(abc.ABC):
    """A way to choose frames. Its `repr` is part of the key under which frames are cached, so it has to hold every setting."""

    @abc.abstractmethod
    def positions(self, n_frames: int, name: str) -> np.ndarray:
        """Ascending positions of the frames to keep of a clip with `n_frames` frames (at least one).

        Args:
            name: of the clip, relative to the root of its data set, with forward slashes.
        """


def _check_count(n: int, what: str) -> None:
    if n < 1:
        raise ValueError(f"{what} is {n}; at least 1 frame is needed: give for instance {what}=6")


@dataclass(frozen=True)
class Evenly(Sampling):
    """`n` frames, the middle ones of `n` parts of equal length.

    >>> Evenly(3).positions(12, "a.avi").tolist()
    [2, 6, 10]
    """

    n: int

    def __post_init__(self) -> None:
        _check_count(self.n, "n")

    def positions(self, n_frames: int, name: str) -> np.ndarray:
        n = min(self.n, n_frames)
        return (2 * np.arange(n) + 1) * n_frames // (2 * n)


@dataclass(frozen=True)
class RandomSorted(Sampling):
    """`n` frames drawn without replacement and sorted: the same ones whenever the seed and the clip's name are the same.

    Source: the published script of Ye et al. 2018 (Block-Term RNN), which draws them once, when the clips are prepared.

    >>> RandomSorted(3).positions(12, "a.avi").tolist()
    [2, 4, 5]
    """

    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check_count(self.n, "n")

    def positions(self, n_frames: int, name: str) -> np.ndarray:
        random = np.random.RandomState([self.seed, zlib.crc32(name.encode())])  # numbers frozen for all versions of numpy
        return np.sort(random.permutation(n_frames)[: self.n])


@dataclass(frozen=True)
class AllFrames(Sampling):
    """All frames up to a maximum; what follows is cut off.

    >>> AllFrames(3).positions(12, "a.avi").tolist()
    [0, 1, 2]
    """

    maximum: int | None = None

    def __post_init__(self) -> None:
        if self.maximum is not None:
            _check_count(self.maximum, "maximum")

    def positions(self, n_frames: int, name: str) -> np.ndarray:
        return np.arange(n_frames if self.maximum is None else min(n_frames, self.maximum))
