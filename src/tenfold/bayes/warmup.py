"""Warm-up: how a penalty grows, in steps of the optimiser."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.bayes.guards import check_number


@dataclass(frozen=True)
class Warmup:
    """0 up to step `start`, then a straight line to 1 at step `end`. In steps and not in epochs: click data are seen once.

    Raises:
        ValueError: not 0 <= start <= end < inf. TypeError: one is no number.
    """

    start: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        check_number("Warmup", "start", self.start, 500)
        check_number("Warmup", "end", self.end, 3000)
        if not 0 <= self.start <= self.end < math.inf:
            raise ValueError(
                f"Warmup got start={self.start}, end={self.end}; it needs 0 <= start <= end < inf, in steps: give one like (500, 3000)"
            )

    def factor(self, step: int) -> float:
        """The part of the penalty that counts at a step."""
        if step >= self.end:
            return 1.0
        return 0.0 if step <= self.start else (step - self.start) / (self.end - self.start)


def as_warmup(value: "Warmup | tuple[int, int]") -> Warmup:
    """The warm-up from itself or from (start, end)."""
    if isinstance(value, Warmup):
        return value
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:  # pyright: ignore
        raise TypeError(f"the warm-up is {value!r}; it is (start, end) in steps, or a Warmup: give one like (500, 3000)")
    return Warmup(*value)
