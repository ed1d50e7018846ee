"""A format that is deliberately wrong. The conformance suite must reject it: each of items 1 to 6 fails on it.

It claims to be CP, and its statement is. But it stores a scale besides the factors, which `dense` knows and the verbs forget or
get otherwise wrong; its start takes a number of terms for its square root; its solver returns noise and measures nothing; its
truncation cuts the wrong slices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.contract import Positions
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.formats.cp import CP
from tenfold.network import Network
from tenfold.solvers.solution import Solution
from tenfold.weight import FactorizedWeight


@dataclass(frozen=True)
class Broken(Format):
    """The statement of CP with a solver that does not solve."""

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        return CP().factors(fold)

    def solve(self, target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0) -> Solution:
        """Factors of noise, with a loss that rises and errors that were never measured."""
        generator = torch.Generator().manual_seed(seed)
        factors = [torch.randn(len(target), *shape, generator=generator, dtype=torch.float64) for shape in network.shapes]
        fine = torch.zeros(len(target), dtype=torch.float64)
        yes = torch.ones(len(target), dtype=torch.bool)
        return Solution("broken", factors, fine, torch.stack([fine, fine + 1]), yes, ~yes)


class BrokenWeight(FactorizedWeight):
    """Every verb is wrong in its own way."""

    def __init__(self, network: Network, fold: Fold, factors: Sequence[Tensor] | None = None, **options: Any) -> None:
        super().__init__(network, fold, factors, **options)
        self.scale = nn.Parameter(torch.full((1,), 1.5, dtype=self.factors[0].dtype))

    def init_normal_(self, std: float, *, generator: torch.Generator | None = None) -> None:
        """Starts too small by the square root of the number of terms."""
        n_terms = math.prod(self.network.ranks.values())
        super().init_normal_(std / math.sqrt(n_terms), generator=generator)

    def dense(self) -> Tensor:
        """The sum of the terms, scaled."""
        return super().dense() * self.scale

    def apply(self, x: Any) -> Any:
        """Right values; the factors get no gradient."""
        return x @ self.dense().mT.detach() if isinstance(x, Tensor) else super().apply(x)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows before those that are asked for."""
        return super().rows((ids - 1).clamp_min(0))

    def convolve(self, x: Tensor, spatial: Callable[[Tensor, Tensor, int], Tensor], positions: Positions) -> Tensor:
        """A convolution in which the kernel is the other way round."""
        return super().convolve(x, lambda x, weight, groups: spatial(x, weight.flip(-1), groups), positions)

    def truncated(self, rank: str, keep: Sequence[int]) -> FactorizedWeight:
        """Keeps the last slices instead of those that are asked for."""
        size = self.network.sizes[rank]
        return super().truncated(rank, range(size - len(keep), size))
