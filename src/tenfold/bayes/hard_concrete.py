"""Hard-concrete gates: a random gate on every slice of every rank, exactly 0 or 1 with finite probability, and a target size.

The expected number of values is exact: a product over the ranks of every factor. Two multipliers hold it at the target, for a plain
penalty on the number of open gates does not hit a size.

Source: Louizos, Welling, Kingma 2018, arXiv 1712.01312 (gates); Wang, Wohlwend, Lei 2020, arXiv 1910.04732 (the target, by an augmented
Lagrangian). Deviation: gates that are frozen, since their first factor is, stay as they are, without noise, and count as open.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfold.bayes.guards import check_number, check_positive, check_whole_number
from tenfold.bayes.run import Run
from tenfold.bayes.scaled_method import ScaledMethod
from tenfold.bayes.warmup import Warmup, as_warmup

BETA, LOW, HIGH = 2 / 3, -0.1, 1.1  # sharpness, and the ends that the gate is stretched to, as in the source
START, OPEN = 1.0, 3.0  # the parameter of a gate at first, where it can still close, and of one that is surely 1 in eval


def gate(parameter: Tensor, noise: Tensor) -> Tensor:
    """Gates in [0, 1]; `noise` is the logit of uniform numbers, 0 for the middle gate."""
    return (torch.sigmoid((parameter + noise) / BETA) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


def open_probability(parameter: Tensor) -> Tensor:
    """How probable it is that a gate is not zero."""
    return torch.sigmoid(parameter - BETA * math.log(-LOW / HIGH))


class HardConcrete(ScaledMethod):
    """Gates that are trained towards a given number of values.

    Args:
        target: the number of values that the factorised weights shall have, as a part of what they have now.
        rate: how fast the multipliers rise while the size is above the target.
        warmup: (start, end) in steps, in which the target falls from 1.
        seed: of the noise.

    Raises:
        ValueError: as for `attach`.
        TypeError: a setting is no number.
    """

    quantity = "the gate of each slice"
    read = staticmethod(gate)
    start: ClassVar[float] = START
    neutral: ClassVar[float] = OPEN
    outside: ClassVar[float] = 0.0
    is_noise: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        target: float,
        rate: float = 0.05,
        warmup: Warmup | tuple[int, int] = (0, 0),
        seed: int = 0,
    ) -> None:
        check_number("HardConcrete", "target", target, 0.25)
        if not 0 < target <= 1:
            raise ValueError(
                f"HardConcrete got target={target}; it is the part of the values to keep, above 0 and at most 1: give one like 0.25"
            )
        check_positive("HardConcrete", "rate", rate, 0.05)
        check_whole_number("HardConcrete", "seed", seed, 0)
        self.target, self.rate, self.warmup, self.seed = target, rate, as_warmup(warmup), int(seed)
        self.settings = f"HardConcrete({target}, {rate}, {self.warmup}, {self.seed})"
        self.multipliers = [0.0, 0.0]
        self.run = Run(model, layers)
        self.start_numel = sum(weight.network.numel for weight in self.run.weights.values())
        self._insert()
        self._draw()

    def expected_size(self) -> Tensor:
        """The expected number of values of all weights, as a part of what they had at the start; with a gradient."""
        total = torch.zeros((), dtype=torch.float64)
        for name in self.run.live:
            container = self.factors[name]
            gates = {rank: gate for rank, gate in container.scales.items() if gate.requires_grad}
            counts = {rank: open_probability(gate).sum() for rank, gate in gates.items()}
            for indices in container.network.factors:
                size = torch.ones((), dtype=torch.float64)
                for index in indices:
                    size = size * (counts[index].double().to(size.device) if index in counts else container.network.sizes[index])
                total = total + size
        return total / self.start_numel

    def penalty(self) -> Tensor:
        excess = self.expected_size() - self._target()
        return self.multipliers[0] * excess + self.multipliers[1] * excess.square()

    def marks(self, name: str) -> Mapping[str, Tensor]:
        """Slices whose gate is above zero in eval."""
        return {rank: scale.detach() > 0 for rank, scale in self.scales(name).items()}

    def _update(self) -> None:
        excess = float(self.expected_size().detach()) - self._target()
        self.multipliers[0] += self.rate * excess
        self.multipliers[1] += self.rate * excess**2
        self._draw()

    def _target(self) -> float:
        return 1 - self.warmup.factor(self.run.steps) * (1 - self.target)

    def _draw(self) -> None:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.run.steps) % 2**63)
        for name in self.run.live:
            for rank, size in self.factors[name].network.ranks.items():
                uniform = torch.rand(size, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
                if self.factors[name].scales[rank].requires_grad:
                    self.factors[name].set_outside(rank, uniform.logit())

    def _extra_state(self) -> dict[str, Any]:
        return {**super()._extra_state(), "multipliers": list(self.multipliers), "start_numel": self.start_numel}

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        super()._load_extra(state)
        self.multipliers, self.start_numel = list(state["multipliers"]), state["start_numel"]
