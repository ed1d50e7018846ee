"""L1 on bond diagonals: a scale on every slice of every rank, with the sum of their absolute values in the loss.

Source: CoMERA, Yang et al. 2024, arXiv 2405.14377 (early stage): the mean of the absolute values of the live entries, times a strength of
0.01; entries below 1e-2 are dropped. Deviation: relative to the largest entry of the rank, since a scale common to all can move to
the factors.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tenfold.bayes.guards import check_positive
from tenfold.bayes.run import Run
from tenfold.bayes.scaled_method import ScaledMethod
from tenfold.bayes.warmup import Warmup, as_warmup


class L1Bonds(ScaledMethod):
    """Scales that an L1 penalty drives to zero, where the loss allows it.

    Args:
        strength: of the mean absolute value of the live scales.
        cut: slices with a scale below this part of the largest of their rank are dropped.
        warmup: (start, end) in steps.

    Raises:
        ValueError: as for `attach`.
        TypeError: a setting is no number.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        strength: float = 0.01,
        cut: float = 0.01,
        warmup: Warmup | tuple[int, int] = (0, 0),
    ) -> None:
        check_positive("L1Bonds", "strength", strength, 0.01)
        check_positive("L1Bonds", "cut", cut, 0.01)
        if cut >= 1:
            raise ValueError(f"L1Bonds got cut={cut}; it is a part of the largest scale, above 0 and below 1: give one like 0.01")
        self.strength, self.cut, self.warmup = strength, cut, as_warmup(warmup)
        self.settings = f"L1Bonds({strength}, {cut}, {self.warmup})"
        self.run = Run(model, layers)
        self._insert()

    def penalty(self) -> Tensor:
        total, count = torch.zeros((), dtype=torch.float64), 0
        for name in self.run.live:
            marks = self.marks(name)
            for rank, scale in self.scales(name).items():
                total = total.to(scale.device) + scale.abs()[marks[rank]].sum(dtype=torch.float64)
                count += int(marks[rank].sum())
        return self.strength * self.warmup.factor(self.run.steps) * total / max(1, count)

    def marks(self, name: str) -> Mapping[str, Tensor]:
        return {rank: scale.detach().abs() > self.cut * scale.detach().abs().max() for rank, scale in self.scales(name).items()}

    def _update(self) -> None:
        """Nothing: the optimiser does it all."""
