"""The least-squares update of one factor of a network while all others are fixed, from planned contractions.

The Gram matrix of all other factors has as many rows as the factor has entries in all its ranks together. Where building and factorising
it would cost more than some products with it, as for the cores of Tucker terms and trees, the update is a few steps of conjugate
gradients from the factor as it is: it lowers the objective and leaves the rest to the next sweep. They are preconditioned by the Kronecker
product of the partial traces of the Gram matrix, which for a single Tucker term is that matrix itself.

Source: normal equations of Kolda and Bader 2009, doi:10.1137/07070111X, section 3.4; conjugate gradients: Hestenes and Stiefel 1952.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tenfold.contract.pairs import BATCH
from tenfold.network import Network
from tenfold.solvers.contractions import Contraction, Indices, planned, sizes_of, split_indices, twin
from tenfold.solvers.descent import solve_gram

STEPS = 8  # of conjugate gradients in each update
EXACT = 256  # entries in all ranks of a factor up to which its Gram matrix is always built
FLOOR = 1e-12  # of the largest eigenvalue of a partial trace: what is below counts as that


@dataclass(frozen=True)
class Update:
    """The update of one factor. Shared modes stand on this factor and on another one; own modes on this factor only.

    Its system is X (gram + ridge) = right with gram (batch, shared, R, R), X and right (batch, shared, own, R) for R = all ranks together.

    gram: the contraction to the Gram matrix; None where it is not built. product: that of X with it. traces: to its partial trace
    for every rank.
    """

    number: int
    gram: Contraction | None
    product: Contraction
    traces: tuple[Contraction, ...]
    right: Contraction
    order: tuple[int, ...]
    sizes: tuple[int, int, int]
    ranks: tuple[int, ...]
    perm: tuple[int, ...]

    @classmethod
    def of(cls, network: Network, number: int) -> "Update":
        """The plan of an update."""
        mine = network.factors[number]
        others = [indices for k, indices in enumerate(network.factors) if k != number]
        shared, own, ranks = split_indices(network, number)
        order = (*shared, *own, *ranks)
        gram = _contraction(network, [*others, *_twins(others, network.ranks)], (*shared, *ranks, *map(twin, ranks)))
        product = _contraction(network, [order, *others, *_twins(others, network.ranks)], (*shared, *own, *map(twin, ranks)))
        sizes = [math.prod(network.sizes[i] for i in group) for group in (shared, own, ranks)]
        direct = gram.flops + sizes[0] * (sizes[2] ** 3 // 3 + 2 * sizes[1] * sizes[2] ** 2)
        is_built = sizes[2] <= EXACT or direct <= (STEPS + 1) * product.flops
        traces = [
            _contraction(network, [*others, *_twins(others, {i for i in network.ranks if i == rank or i not in ranks})], (rank, twin(rank)))
            for rank in ([] if is_built else ranks)
        ]
        return cls(
            number,
            gram if is_built else None,
            product,
            tuple(traces),
            _contraction(network, [network.modes, *others], order),
            tuple(network.sizes[i] for i in order),
            (sizes[0], sizes[1], sizes[2]),
            tuple(network.sizes[i] for i in ranks),
            tuple(order.index(i) for i in mine),
        )

    def laid_out(self, target: Tensor) -> tuple["Update", Tensor]:
        """The update and the target (batch, *modes) in the layout that it needs, so that no sweep moves it."""
        pairs = []
        for pair in self.right.pairs:
            if pair.left == 0:
                target = target.permute(pair.left_perm).reshape(pair.left_shape).contiguous()
                pair = replace(pair, left_perm=tuple(range(target.dim())))
            elif pair.right == 0:
                target = target.permute(pair.right_perm).reshape(pair.right_shape).contiguous()
                pair = replace(pair, right_perm=tuple(range(target.dim())))
            pairs.append(pair)
        return replace(self, right=Contraction(tuple(pairs), self.right.perm)), target

    def solve(self, target: Tensor, factors: Sequence[Tensor], ridge: Tensor) -> tuple[Tensor, Tensor]:
        """The new factor, and by how much it lowers the squared error below that of a factor of zeros (batch,)."""
        others = [factor for k, factor in enumerate(factors) if k != self.number]
        shared, own, rank = self.sizes
        right = self.right.run([target, *others]).reshape(-1, shared, own, rank)
        if self.gram is not None:
            gram = self.gram.run([*others, *others]).reshape(-1, shared, rank, rank)
            new = solve_gram(gram, right, ridge)
            applied = new @ gram
        else:
            old = factors[self.number]
            back = sorted(range(len(self.perm)), key=lambda axis: self.perm[axis])
            old = old.permute(0, *(axis + 1 for axis in back)).reshape(-1, shared, own, rank)
            new, applied = self._descended(others, right, old, ridge)
        gain = (new * (2 * right - applied)).flatten(1).sum(1)
        shaped = new.reshape(-1, *self.order).permute(0, *(axis + 1 for axis in self.perm)).contiguous()
        return shaped, gain

    def _descended(self, others: list[Tensor], right: Tensor, x: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor]:
        """Some steps from x towards the solution, every row by itself; and its product with the Gram matrix."""
        weight = ridge.view(-1, 1, 1, 1)

        def product(y: Tensor) -> Tensor:
            return self.product.run([y.reshape(-1, *self.order), *others, *others]).reshape(y.shape)

        precondition = self._preconditioner(others, ridge)
        tiny = torch.finfo(x.dtype).tiny
        applied = product(x)
        rest = right - applied - weight * x
        step = direction = precondition(rest)
        slope = (rest * step).sum(-1, keepdim=True)
        for _ in range(STEPS):
            along = product(direction)
            curve = (direction * (along + weight * direction)).sum(-1, keepdim=True)
            length = torch.where(curve > tiny, slope / curve.clamp_min(tiny), torch.zeros_like(curve))
            x, applied = x + length * direction, applied + length * along
            rest = rest - length * (along + weight * direction)
            step = precondition(rest)
            last, slope = slope, (rest * step).sum(-1, keepdim=True)
            direction = step + torch.where(last > tiny, slope / last.clamp_min(tiny), torch.zeros_like(last)) * direction
        return x, applied

    def _preconditioner(self, others: list[Tensor], ridge: Tensor) -> Callable[[Tensor], Tensor]:
        """The inverse of (Kronecker product of partial traces) / trace^(ranks - 1) + ridge, a function of (batch, shared, own, R)."""
        parts = [torch.linalg.eigh(trace.run([*others, *others])) for trace in self.traces]
        total = parts[0][0].sum(-1).clamp_min(torch.finfo(ridge.dtype).tiny)
        values = torch.ones_like(total)[:, None]
        for number, (found, _) in enumerate(parts):
            found = found.clamp_min(FLOOR * found[:, -1:].clamp_min(0)) / (total[:, None] if number else self.sizes[0])
            values = (values[:, :, None] * found[:, None, :]).flatten(1)
        scale = 1 / (values + ridge[:, None]).clamp_min(torch.finfo(ridge.dtype).tiny)

        def rotated(y: Tensor, is_back: bool) -> Tensor:
            for axis, (_, vectors) in enumerate(parts, 3):
                moved = y.movedim(axis, -1)
                flat = moved.reshape(moved.shape[0], -1, moved.shape[-1]) @ (vectors.mT if is_back else vectors)
                y = flat.reshape(moved.shape).movedim(-1, axis)
            return y

        def apply(y: Tensor) -> Tensor:
            inner = rotated(y.reshape(*y.shape[:3], *self.ranks), False).reshape(y.shape)
            return rotated((inner * scale[:, None, None]).reshape(*y.shape[:3], *self.ranks), True).reshape(y.shape)

        return apply


def _twins(operands: Sequence[Indices], doubled: Collection[str]) -> list[Indices]:
    return [tuple(twin(i) if i in doubled else i for i in indices) for indices in operands]


def _contraction(network: Network, operands: Sequence[Indices], output: Indices) -> Contraction:
    """The contraction of batched operands to (batch, *output)."""
    return planned(tuple((BATCH, *indices) for indices in operands), (BATCH, *output), sizes_of(network))
