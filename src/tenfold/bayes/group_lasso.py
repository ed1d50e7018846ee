"""Proximal group lasso: after every step of the optimiser the slices of all ranks shrink, and small ones become exactly zero.

The objective is  mean loss + strength / N x sum over ranks and slices of sqrt(D) ||slice||,  a slice being what all factors hold
there and D its number of entries. The proximal step of one rank multiplies a slice by
max(0, 1 - rate x strength / N x sqrt(D) / ||slice||).

Source: Yuan and Lin 2006, doi:10.1111/j.1467-9868.2005.00532.x (group lasso); on rank slices as in the code that belongs to
arXiv 2104.03420. Slices of different ranks overlap, so that ranks are taken one after another: not the exact step of their sum.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.bayes.guards import check_positive
from tenfold.bayes.method import RankMethod
from tenfold.bayes.reduction import Reduction
from tenfold.bayes.run import Run, Spectra
from tenfold.bayes.surgery import factor_parameter
from tenfold.bayes.warmup import Warmup, as_warmup
from tenfold.weight import FactorizedWeight


class GroupLasso(RankMethod):
    """Slices with exact zeros. The optimiser has to be watched: its learning rate is the size of the step.

    Args:
        n_examples: N.
        strength: of the penalty; as for all lasso penalties its best value has to be found.
        warmup: (start, end) in steps.

    Raises:
        ValueError: as for `attach`.
        TypeError: a setting is no number.
    """

    quantity = "the norm of each slice"

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        n_examples: int,
        strength: float = 1.0,
        warmup: Warmup | tuple[int, int] = (0, 0),
    ) -> None:
        check_positive("GroupLasso", "n_examples", n_examples, 60000)
        check_positive("GroupLasso", "strength", strength, 1.0)
        self.n_examples, self.strength, self.warmup = n_examples, strength, as_warmup(warmup)
        self.run = Run(model, layers)
        self.run.hold()
        self.run.record(self.spectra())

    def penalty(self) -> Tensor:
        """0: the method acts on the factors itself."""
        return torch.zeros(())

    def spectra(self) -> Spectra:
        return {name: {rank: _norms(one, rank) for rank in one.network.ranks} for name, one in self.run.live.items()}

    def marks(self, name: str) -> Mapping[str, Tensor]:
        """Slices that are not zero."""
        weight = self.run.weights[name]
        return {rank: _norms(weight, rank) > 0 for rank in weight.network.ranks}

    def _update(self) -> None:
        rates = self.run.watched.rate_by_id()
        factors = {id(factor) for weight in self.run.live.values() for factor in weight.factors.parameters()}
        if factors and factors.isdisjoint(rates):
            raise RuntimeError(
                "GroupLasso has no optimiser of its factors; it needs one, whose learning rate is the size of its step: call "
                "watch(optimizer) first, with the optimiser that trains the factorised layers"
            )
        step = self.strength * self.warmup.factor(self.run.steps) / self.n_examples
        for weight in self.run.live.values():
            for rank in weight.network.ranks:
                carriers = _trained(weight, rank)
                if not carriers:
                    continue
                norms = _norms(weight, rank)
                count = sum(factor.numel() / factor.shape[axis] for factor, axis in carriers)
                rate = max(rates.get(id(factor), 0.0) for factor, _ in carriers)
                scale = (1 - rate * step * math.sqrt(count) / norms.clamp_min(1e-300)).clamp_min(0)
                for factor, axis in carriers:
                    factor.mul_(scale.to(factor).reshape([-1 if n == axis else 1 for n in range(factor.dim())]))

    def _values(self, name: str) -> list[Tensor]:
        weight = self.run.weights[name]
        return [factor_parameter(weight, number) for number in range(len(weight.factors))]

    def _follow(self, name: str, reduction: Reduction) -> None:
        """It has no tensors of its own."""

    def _extra_state(self) -> dict[str, Any]:
        return {"settings": f"GroupLasso({self.n_examples}, {self.strength}, {self.warmup})"}

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        """It has no tensors of its own."""


def _carriers(weight: FactorizedWeight, rank: str) -> list[tuple[nn.Parameter, int]]:
    """The factors with a rank, and its axis in each."""
    return [(factor_parameter(weight, number), axis) for number, axis in weight.network.carriers(rank)]


def _trained(weight: FactorizedWeight, rank: str) -> list[tuple[nn.Parameter, int]]:
    """The same without factors that are frozen."""
    return [(factor, axis) for factor, axis in _carriers(weight, rank) if factor.requires_grad]


def _norms(weight: FactorizedWeight, rank: str) -> Tensor:
    """(size of the rank,): the norm of what all factors hold in each slice, those alone that are trained where there are some."""
    carriers = _trained(weight, rank) or _carriers(weight, rank)
    parts = [factor.detach().double().movedim(axis, 0).flatten(1).square().sum(1) for factor, axis in carriers]
    return torch.stack(parts).sum(0).sqrt()
