"""Watched: the optimisers of a training, the highest rates that they had, and their parameters, which decisions replace."""

from collections.abc import Sequence
from itertools import zip_longest

from torch.optim import Optimizer

from tenfold.bayes.guards import rates


class Watched:
    """Optimisers with the peaks of their learning rates, a peak for each group.

    No parameter has two of them: an optimiser takes the place of those that were watched for some of its parameters.
    """

    def __init__(self) -> None:
        self.peaks: dict[Optimizer, list[float]] = {}
        self._saved: list[float] = []  # what a state says of optimisers that may be watched yet, in the order of all groups

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """In the order in which they were first watched."""
        return tuple(self.peaks)

    def add(self, optimizer: Optimizer) -> None:
        """Takes an optimiser in; its peaks are its rates now, or saved ones where these are higher."""
        mine, before = held([optimizer]), self.peaks.pop(optimizer, [])
        self.peaks = {one: peaks for one, peaks in self.peaks.items() if mine.isdisjoint(held([one]))}
        self.peaks[optimizer] = _highest(before, self._raised(optimizer, sum(map(len, self.peaks.values()))))

    def observe(self) -> None:
        """Takes note of the rates of a step; groups that were added meanwhile begin here."""
        for optimizer, peaks in self.peaks.items():
            self.peaks[optimizer] = _highest(peaks, rates(optimizer))
        if self.peaks:
            self._saved = []

    def rate_by_id(self) -> dict[int, float]:
        """The learning rate of every parameter by its `id`."""
        return {id(one): float(group["lr"]) for optimizer in self.peaks for group in optimizer.param_groups for one in group["params"]}

    def state(self) -> list[float]:
        """The peaks of all groups."""
        known = [peak for peaks in self.peaks.values() for peak in peaks]
        return known + self._saved[len(known) :]

    def load(self, state: Sequence[float]) -> None:
        """Puts saved peaks back: to the optimisers that are watched, and to those that are watched before the next step."""
        self._saved, start = list(state), 0
        for optimizer in self.peaks:
            self.peaks[optimizer] = self._raised(optimizer, start)
            start += len(self.peaks[optimizer])

    def _raised(self, optimizer: Optimizer, start: int) -> list[float]:
        """The rates of an optimiser, or the saved peaks from `start` on where these are higher and there is one for each group."""
        now = rates(optimizer)
        saved = self._saved[start : start + len(now)]
        return _highest(saved, now) if len(saved) == len(now) else now


def held(optimizers: Sequence[Optimizer]) -> set[int]:
    """The ids of all parameters of some optimisers."""
    return {id(one) for optimizer in optimizers for group in optimizer.param_groups for one in group["params"]}


def has_own_list(optimizer: Optimizer) -> bool:
    """Whether an optimiser keeps its parameters in a list beside its groups, as LBFGS and ZeroRedundancyOptimizer do."""
    mine = held([optimizer])
    lists = [one for key, one in vars(optimizer).items() if key != "param_groups" and isinstance(one, list)]
    return any(id(one) in mine for found in lists for one in found)


def _highest(peaks: Sequence[float], now: Sequence[float]) -> list[float]:
    return [max(pair) for pair in zip_longest(peaks, now, fillvalue=0.0)]
