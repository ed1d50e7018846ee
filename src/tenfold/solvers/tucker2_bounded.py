"""Tucker-2 within an error bound: both ranks searched together for the smallest cost.

With orthonormal bases U, V the squared error is ||T||^2 - ||T x U' x V'||^2. For a fixed basis V the best U of every rank is told by the
eigenvalues of one Gram matrix, so for each rank of V orthogonal iteration finds the smallest rank of U that meets the bound. Starting with
V = 1 instead lets the first mode take the whole error, and alternation does not recover from it.

Source: Phan et al. 2020, arXiv 2008.05441 (Tucker-2 with a bound); De Lathauwer, De Moor, Vandewalle 2000, doi:10.1137/S0895479898346995
(orthogonal iteration). Deviation: the joint search.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.axes import ordered
from tenfold.solvers.hosvd import hosvd
from tenfold.solvers.solution import Solution, check_target

Cost = Callable[[int, int], float]

SWEEPS = 6  # of orthogonal iteration for each rank
ROUNDING = 1e-9  # relative to ||T||^2


def tucker2_bounded(target: Tensor, network: Network, delta: float, *, cost: Cost | None = None) -> tuple[Network, Solution]:
    """The network with the cheapest ranks that reach a relative error of `delta`, and its factors; for one tensor (1, *network.shape).

    Args:
        network: one core with two ranks, each joined to a factor with modes of its own; its rank sizes are not used.
        cost: of a pair of ranks, in the order of the core, increasing in both; left out, the number of stored values.

    Raises:
        ValueError: another network or shape, values that are not finite, several tensors, or a bound that is not between 0 and 1.
    """
    check_target(target, network)
    if len(target) != 1:
        raise ValueError(f"{len(target)} tensors were given; ranks that fit one of them may not fit another: give one at a time")
    if not 0 <= delta < 1:
        raise ValueError(
            f"delta is {delta}; zero factors have the relative error 1, so it must be from 0 up to below 1: choose a smaller one"
        )
    names, kernel = as_kernel(target, network)
    n_a, n_b, n_rest = kernel.shape
    ranks = Tucker2Search(kernel, delta, cost or (lambda a, b: n_a * a + n_b * b + n_rest * a * b)).run()
    while True:
        resized = network.resized(dict(zip(names, ranks, strict=True)))
        solution = hosvd(target, resized)
        if float(solution.errors) <= delta + ROUNDING or ranks == tuple(kernel.shape[:2]):
            return resized, solution
        ranks = (min(ranks[0] + 1, kernel.shape[0]), min(ranks[1] + 1, kernel.shape[1]))


def as_kernel(target: Tensor, network: Network) -> tuple[tuple[str, str], Tensor]:
    """The two ranks of a Tucker-2 network in the order of its core, and the tensor as (modes of the first, of the second, others)."""
    core = max(range(len(network.factors)), key=lambda k: sum(i in network.ranks for i in network.factors[k]))
    names = tuple(i for i in network.factors[core] if i in network.ranks)
    legs = [[k for k, _ in network.carriers(name) if k != core] for name in names]
    is_tucker = len(names) == 2 and len(network.factors) == 3 and all(len(leg) == 1 for leg in legs) and legs[0] != legs[1]
    if not is_tucker or any(len(network.carriers(mode)) > 1 for mode in network.modes):
        raise ValueError(
            f"{network.statement!r} is not a Tucker-2 network; a core with two ranks, each joined to a factor of its own, is needed: "
            "write 'o a, a b k, b i -> o i k'"
        )
    groups = [[i for i in network.factors[leg[0]] if i in network.modes] for leg in legs]
    groups.append([i for i in network.factors[core] if i in network.modes])
    moved = ordered(target.double(), network.modes, [i for group in groups for i in group])
    sizes = [math.prod(network.sizes[i] for i in group) for group in groups]
    return (names[0], names[1]), moved.reshape(sizes)


@dataclass
class Tucker2Search:
    """The cheapest pair of ranks for a tensor (n_a, n_b, n_rest) whose Tucker-2 error is at most `delta`, with the bases that show it.

    After `run`: best is the cost, bases are (n_a, a) and (n_b, b), orthonormal.
    """

    kernel: Tensor
    delta: float
    cost: Cost
    best: float = field(default=math.inf, init=False)
    bases: tuple[Tensor, Tensor] = field(init=False)
    seen: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.squared = float(self.kernel.square().sum())
        self.needed = self.squared * (1 - self.delta**2 - ROUNDING * 1e-3)  # ||core||^2 has to be at least this
        self.by_b = self.kernel.permute(1, 0, 2).contiguous()
        values, vectors = torch.linalg.eigh(_gram(self.by_b))
        self.basis, self.least_b = vectors.flip(1), self._smallest(values.flip(0))
        self.least_a = self._smallest(torch.linalg.eigvalsh(_gram(self.kernel)).flip(0))

    def run(self) -> tuple[int, int]:
        """A coarse grid of ranks of the second mode, then ever smaller steps around the best."""
        most = self.kernel.shape[1]
        if self.squared == 0:
            self.bases = self.basis.new_ones(self.kernel.shape[0], 1) / self.kernel.shape[0] ** 0.5, self.basis[:, :1]
            return 1, 1
        step = max(1, (most - self.least_b) // 8)
        for b in range(self.least_b, most + 1, step):
            self._try(b)
        while step > 1:
            step = (step + 1) // 2
            middle = self.bases[1].shape[1]
            for b in (middle - step, middle + step):
                self._try(b)
        return self.bases[0].shape[1], self.bases[1].shape[1]

    def _try(self, b: int) -> None:
        """The smallest rank of the first mode beside rank b of the second, unless it cannot be the best."""
        if not self.least_b <= b <= self.kernel.shape[1] or b in self.seen or self.cost(self.least_a, b) >= self.best:
            return
        self.seen.add(b)
        basis = self.basis[:, :b]
        for _ in range(SWEEPS):
            values, vectors = torch.linalg.eigh(_gram((self.by_b.flatten(1).mT @ basis).reshape(*self.by_b.shape[1:], b)))
            a = self._smallest(values.flip(0))
            if a > self.kernel.shape[0]:
                return
            other = vectors.flip(1)[:, :a]
            if self.cost(a, b) < self.best:
                self.best, self.bases = self.cost(a, b), (other, basis)
            if a <= self.least_a:
                return
            reduced = (self.kernel.flatten(1).mT @ other).reshape(*self.kernel.shape[1:], a)
            basis = torch.linalg.eigh(_gram(reduced)).eigenvectors.flip(1)[:, :b]

    def _smallest(self, values: Tensor) -> int:
        """How many of the descending eigenvalues are needed; more than there are where all are too few."""
        return int((values.clamp_min(0).cumsum(0) < self.needed).sum()) + 1


def _gram(tensor: Tensor) -> Tensor:
    flat = tensor.flatten(1)
    return flat @ flat.mT
