"""Alternating least squares for any network.

The dense tensor is linear in each factor, so each factor has a closed-form update from two contractions: the Gram matrix of all
other factors and the right-hand side. `descent` says how sweeps of such updates are driven.

Source: Kolda and Bader 2009, doi:10.1137/07070111X, section 3.4, there for CP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tenfold.contract.pairs import BATCH, contract_in_pairs
from tenfold.contract.run import run_pairs
from tenfold.contract.steps import Pair
from tenfold.network import Network
from tenfold.solvers.descent import Descent, Sweep, first_ridge, solve_gram
from tenfold.solvers.solution import Solution, check_target, equalise, finish


def als(
    target: Tensor,
    network: Network,
    *,
    sweeps: int = 100,
    seed: int = 0,
    ridge: float = 0.0,
    share: float = 0.0,
    tolerance: float = 1e-7,
    dtype: torch.dtype = torch.float32,
    start: Sequence[Tensor] | None = None,
) -> Solution:
    """Factors that minimise ||T - T~||^2 + ridge ||T||^(2 - 2/C) sum of ||factor||^2 (C factors), for each tensor of a batch.

    Args:
        target: (batch, *network.shape), any float dtype.
        sweeps: at most so many; stops where sweeps lower the objective by less than `tolerance` of it each.
        share: the ridge of a tensor is this part of its squared error after half of the sweeps, if that is more than `ridge`.
        dtype: of the first sweeps; the last ones run in float64.
        start: batched factors to start from; left out, they are drawn from `seed`.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    check_target(target, network)
    target = target.double()
    scale = norms(target)
    unit = target / scale.reshape(-1, *[1] * (target.dim() - 1))
    if start is not None:
        factors = [start[0].double() / scale.reshape(-1, *[1] * (start[0].dim() - 1)), *(factor.double() for factor in start[1:])]
    else:
        factors = random_factors(network, target.shape[0], seed, target.device)
    descent = Descent(ridge, share, first_ridge(network) if start is None else 0.0, sweeps, tolerance, dtype)
    factors, history, done = descent.run(lambda kind: _general_sweep(unit.to(kind), network), factors)
    return finish("als", target, network, restore(factors, scale), history, done)


def random_factors(network: Network, batch: int, seed: int, device: torch.device) -> list[Tensor]:
    """Normal factors whose product has about unit norm."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(batch, *shape, generator=generator, dtype=torch.float64) / (torch.tensor(shape).prod().double() ** 0.5)).to(device)
        for shape in network.shapes
    ]


def norms(target: Tensor) -> Tensor:
    """The norm of each tensor of a batch; 1 where it is zero."""
    norm = target.flatten(1).norm(dim=1)
    return torch.where(norm > 0, norm, torch.ones_like(norm))


def restore(factors: list[Tensor], scale: Tensor) -> list[Tensor]:
    """The factors of the unscaled tensor, with equal root mean squares."""
    return equalise([factors[0] * scale.reshape(-1, *[1] * (factors[0].dim() - 1)), *factors[1:]])


def _general_sweep(target: Tensor, network: Network) -> Sweep:
    """One update of every factor, the smallest one last: it also tells the error."""
    order = sorted(range(len(network.factors)), key=lambda k: torch.Size(network.shapes[k]).numel(), reverse=True)
    updates = [_Update.of(target, network, number) for number in order]
    squared = target.flatten(1).square().sum(1)

    def sweep(factors: list[Tensor], ridge: Tensor) -> tuple[list[Tensor], Tensor]:
        factors, error = list(factors), squared
        for update in updates:
            gram, right = update.system(factors)
            new = solve_gram(gram, right, ridge)
            factors[update.number] = update.shaped(new)
            if update is updates[-1]:
                error = squared - (new * (2 * right - new @ gram)).flatten(1).sum(1)
        return factors, error

    return sweep


@dataclass(frozen=True)
class _Update:
    """The least-squares update of one factor: Gram and right-hand side as two planned contractions.

    Gram (batch, shared modes, R, R): all other factors with themselves. Right-hand side (batch, shared modes, own modes, R): the
    target with all other factors. Shared modes stand on this factor and on another one; own modes on this factor only.
    """

    number: int
    target: Tensor
    gram_pairs: tuple[Pair, ...]
    gram_perm: tuple[int, ...]
    right_pairs: tuple[Pair, ...]
    right_perm: tuple[int, ...]
    right_shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    perm: tuple[int, ...]

    @classmethod
    def of(cls, target: Tensor, network: Network, number: int) -> "_Update":
        mine = network.factors[number]
        others = [indices for k, indices in enumerate(network.factors) if k != number]
        elsewhere = {i for indices in others for i in indices}
        shared = [i for i in mine if i in network.modes and i in elsewhere]
        own = [i for i in mine if i in network.modes and i not in elsewhere]
        ranks = [i for i in mine if i not in network.modes]
        twin = {rank: f"{rank}'" for rank in network.ranks}
        sizes = {**network.sizes, **{twin[r]: n for r, n in network.ranks.items()}, BATCH: 1}
        mirrored = [tuple(twin.get(i, i) for i in indices) for indices in others]
        operands = [(BATCH, *indices) for indices in (*others, *mirrored)]
        output = (BATCH, *shared, *ranks, *(twin[r] for r in ranks))
        gram_pairs, found = contract_in_pairs(operands, output, sizes)
        gram_perm = tuple(found.index(i) for i in output)
        order = (*shared, *own, *ranks)
        right_pairs, found = contract_in_pairs([(BATCH, *network.modes), *((BATCH, *i) for i in others)], (BATCH, *order), sizes)
        right_perm = tuple(found.index(i) for i in (BATCH, *order))
        target, right_pairs = _laid_out(target, right_pairs)
        groups = [torch.Size(network.sizes[i] for i in group).numel() for group in (shared, own, ranks)]
        shape = (-1, *(network.sizes[i] for i in order))
        perm = (0, *(order.index(i) + 1 for i in mine))
        return cls(number, target, gram_pairs, gram_perm, right_pairs, right_perm, shape, (groups[0], groups[1], groups[2]), perm)

    def system(self, factors: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The Gram matrices (batch, shared, R, R) and the right-hand sides (batch, shared, own, R)."""
        others = [factor for k, factor in enumerate(factors) if k != self.number]
        shared, own, ranks = self.sizes
        gram = run_pairs([*others, *others], self.gram_pairs).permute(self.gram_perm).reshape(-1, shared, ranks, ranks)
        right = run_pairs([self.target, *others], self.right_pairs).permute(self.right_perm).reshape(-1, shared, own, ranks)
        return gram, right

    def shaped(self, solved: Tensor) -> Tensor:
        """The factor from the solution (batch, shared, own, R)."""
        return solved.reshape(self.right_shape).permute(self.perm).contiguous()


def _laid_out(target: Tensor, pairs: tuple[Pair, ...]) -> tuple[Tensor, tuple[Pair, ...]]:
    """The target in the layout in which its pair needs it, so that no sweep moves it."""
    result = []
    for pair in pairs:
        if pair.left == 0:
            target = target.permute(pair.left_perm).reshape(pair.left_shape).contiguous()
            pair = replace(pair, left_perm=tuple(range(target.dim())))
        elif pair.right == 0:
            target = target.permute(pair.right_perm).reshape(pair.right_shape).contiguous()
            pair = replace(pair, right_perm=tuple(range(target.dim())))
        result.append(pair)
    return target, tuple(result)
