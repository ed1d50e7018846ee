"""All factors of a network at once in the metric of outputs, exactly: Levenberg-Marquardt with the whole second moment.

Minimises <D, M D> + ridge x (sum of the squared norms of all factors) over the factors, with D = T~ - T and M a metric that acts on
the output modes and on the input and kernel modes together. Steps solve (J' M J + ridge + damping) d = -gradient by a few conjugate
gradients, from planned contractions of J and J'. They are preconditioned by the Gram matrix of each factor's neighbours, which is the
block of J' J itself; so T should be whitened as far as it can be, then M is close to the identity.

Correction (`epc`) knows no such metric, so factors that are to be insensitive get it last, around the tensor of the fit: there the error
is at its least, hence moving away by a distance adds its square to the squared error, whatever the direction.

Source: Nielsen 1999, Damping parameter in Marquardt's method; arXiv 2511.04494 (the metric, there by alternating least squares).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.contract.pairs import BATCH
from tenfold.fold import Fold
from tenfold.network import Network
from tenfold.solvers.als import norms
from tenfold.solvers.axes import per_tensor
from tenfold.solvers.contractions import contract, split_indices
from tenfold.solvers.descent import solve_gram
from tenfold.solvers.epc import epc
from tenfold.solvers.quadratic import Form, assemble
from tenfold.solvers.solution import equalise
from tenfold.solvers.stable_cp import MOST

SHARE = 5e-4  # of the squared error: the ridge of each fit, as in `cp_als`
LEAST_RIDGE = 1e-9  # relative to the squared norm of the target
STEPS, MIN_STEPS = 30, 4  # of Levenberg-Marquardt at most, and at least where each is a lot of work
PRODUCTS = 12  # conjugate gradients in each step
TOLERANCE = 1e-4  # a fit stops where a step gains less than this part of the objective
DAMPING = 1e-3  # at the start, relative to the mean diagonal of J'J
GRAM_LIMIT = 512  # entries in all ranks of a factor up to which its Gram matrix preconditions it; above, its diagonal

CORRECTIONS, TRIES = 30, 6  # sweeps of a correction; corrections at most, each nearer than the last: 1 to 4 are usual
CLOSEST = 1e-8  # of the norm: a correction needs more room than rounding takes
ROOM = 0.9  # of what a distance is thought to allow, where a correction has gone too far

WORK = 4e11  # multiplications with the metric for one weight, in FLOP, at most: about ten seconds on one core
EXACT = 1e-6  # a metric that differs from the identity by less, relative to its mean eigenvalue, leaves nothing to do


def fit_outputs(
    fold: Fold,
    network: Network,
    white: Tensor,
    factors: Sequence[Tensor],
    left: Sequence[Tensor | None],
    steps: int = STEPS,
    slack: float = 1.0,
) -> list[Tensor] | None:
    """Factors of the whitened tensors (batch, *modes), improved under what whitening left of the metric; None where it left nothing.

    Args:
        factors: where to begin, e.g. from a solver that took the whitening for the whole of the metric.
        left: for each weight the metric (groups, in x kernel, in x kernel) or None for the identity; the batch has their groups in turn.
        steps: of Levenberg-Marquardt at most.
        slack: where above 1, the factors are then made less sensitive within this times the error that was reached.
    """
    size = math.prod(fold.sizes[mode] for role in "ik" for mode in fold.role(role))
    eye = torch.eye(size, dtype=white.dtype, device=white.device)
    matrix = torch.cat([eye.expand(fold.groups, -1, -1) if one is None else one.to(white) for one in left])
    matrix = matrix / matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp_min(1e-300)
    if float((matrix - eye).abs().max()) <= EXACT:
        return None
    scale = norms(white)
    first = {part.start for part in network.term_slices}
    unit = [factor / per_tensor(scale, factor) if number in first else factor for number, factor in enumerate(factors)]
    balanced = [factor for part in network.term_slices for factor in equalise(unit[part])]
    fit = OutputFit(network, white / per_tensor(scale, white), Metric.of(fold, network, matrix))
    flops = 2.0 * white[0].numel() * size
    found, history = fit.run(balanced, min(steps, max(MIN_STEPS, int(WORK / (flops * (PRODUCTS + 2))))))
    if slack > 1:
        found = fit.corrected(found, history[-1], slack)
    return [factor * per_tensor(scale, factor) if number in first else factor for number, factor in enumerate(found)]


@dataclass(frozen=True)
class Metric:
    """A symmetric matrix for each tensor of a batch that acts on its input and kernel modes, which `order` puts last."""

    matrix: Tensor
    order: tuple[int, ...]

    @classmethod
    def of(cls, fold: Fold, network: Network, matrix: Tensor) -> "Metric":
        """The metric of tensors (batch, *network.modes)."""
        modes = [mode for role in "oik" for mode in fold.role(role)]
        return cls(matrix, (0, *(network.modes.index(mode) + 1 for mode in modes)))

    def __call__(self, residual: Tensor) -> Tensor:
        moved = residual.permute(self.order)
        flat = moved.reshape(len(moved), -1, self.matrix.shape[-1]) @ self.matrix
        return flat.reshape(moved.shape).permute([self.order.index(axis) for axis in range(moved.dim())])

    def to(self, dtype: torch.dtype) -> "Metric":
        """The same in another precision."""
        return Metric(self.matrix.to(dtype), self.order)


@dataclass
class OutputFit:
    """Factors of one network for a batch of tensors of norm 1 under a metric."""

    network: Network
    target: Tensor
    metric: Metric

    def __post_init__(self) -> None:
        self.low = self.metric.to(torch.float32)

    def along(self, factors: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
        """J d: the first-order change of the tensors when the factors change by `direction`."""
        total = torch.zeros((), dtype=direction[0].dtype, device=direction[0].device)
        for term, part in zip(self.network.terms, self.network.term_slices, strict=True):
            mine, change = list(factors[part]), direction[part]
            operands = [(BATCH, *indices) for indices in term.factors]
            for k in range(len(mine)):
                total = total + contract([*mine[:k], change[k], *mine[k + 1 :]], operands, term.modes, term, len(change[k]), change[k])
        return total

    def back(self, factors: Sequence[Tensor], residual: Tensor) -> list[Tensor]:
        """J' E for every factor."""
        result = []
        for term, part in zip(self.network.terms, self.network.term_slices, strict=True):
            mine = list(factors[part])
            operands = [(BATCH, *indices) for indices in term.factors]
            for k, indices in enumerate(term.factors):
                tensors = [residual, *mine[:k], *mine[k + 1 :]]
                names = [(BATCH, *self.network.modes), *operands[:k], *operands[k + 1 :]]
                result.append(contract(tensors, names, indices, term, len(residual), residual))
        return result

    def error(self, factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Squared errors (batch,) in the metric, and the residual times the metric."""
        residual = assemble(self.network, factors) - self.target
        weighted = self.metric(residual)
        return (residual * weighted).flatten(1).sum(1).clamp_min(0), weighted

    def run(self, factors: Sequence[Tensor], steps: int = STEPS, products: int = PRODUCTS) -> tuple[list[Tensor], Tensor]:
        """Factors with the least objective found, and the squared errors after every step (steps + 1, batch)."""
        x = [factor.clone() for factor in factors]
        error, weighted = self.error(x)
        ridge = (SHARE * error).clamp_min(LEAST_RIDGE)
        total = error + ridge * _square(x)
        damping, growth = DAMPING * self._scale(x), torch.full_like(error, 2.0)
        history = [error]
        for _ in range(steps):
            slope = [-(b + _by(ridge, a)) for a, b in zip(x, self.back(x, weighted), strict=True)]
            step, applied = self._solve(x, slope, ridge + damping, products)
            tried = [a + d for a, d in zip(x, step, strict=True)]
            new_error, new_weighted = self.error(tried)
            new_total = new_error + ridge * _square(tried)
            # what the quadratic model promises: 2 <d, slope> - <d, (J'MJ + ridge) d>
            promised = 2 * _dot(step, slope) - (_dot(step, applied) - damping * _square(step))
            ratio = (total - new_total) / promised.clamp_min(torch.finfo(total.dtype).tiny)
            better = (new_total < total) & torch.isfinite(new_total)
            gain = torch.where(better, (total - new_total) / total.clamp_min(1e-300), torch.zeros_like(total))
            damping = torch.where(better, damping * (1 - (2 * ratio - 1) ** 3).clamp(1 / 3, 2), damping * growth)
            growth = torch.where(better, torch.full_like(growth, 2.0), growth * 2)
            x = [torch.where(per_tensor(better, a), b, a) for a, b in zip(x, tried, strict=True)]
            weighted = torch.where(per_tensor(better, weighted), new_weighted, weighted)
            error, total = torch.where(better, new_error, error), torch.where(better, new_total, total)
            history.append(error)
            if bool((gain < TOLERANCE).all()) and bool(better.any()):
                break
        return x, torch.stack(history)

    def corrected(self, factors: list[Tensor], error: Tensor, slack: float) -> list[Tensor]:
        """Less sensitive factors, whose error in the metric is at most `slack` times what it is: (batch,) `error` is its square."""
        center = assemble(self.network, factors)
        norm = center.flatten(1).square().sum(1).clamp_min(torch.finfo(error.dtype).tiny)
        most, squared = slack**2 * error, (slack**2 - 1) * error  # the squared distance, as if the metric were the identity
        found, is_near = factors, torch.zeros_like(error, dtype=torch.bool)
        for _ in range(TRIES):
            found = epc(center, self.network, factors, delta=(squared / norm).sqrt().clamp(CLOSEST, MOST), sweeps=CORRECTIONS).factors
            reached = self.error(found)[0]
            is_near = reached <= most
            if bool(is_near.all()):
                break
            squared = torch.where(is_near, squared, ROOM * squared * (most - error) / (reached - error))
        return [torch.where(per_tensor(is_near, old), new, old) for new, old in zip(found, factors, strict=True)]

    def _scale(self, factors: Sequence[Tensor]) -> Tensor:
        """(batch,): the mean of the diagonal of J'J."""
        total, count = torch.zeros_like(factors[0].flatten(1)[:, 0]), 0
        for term, part in zip(self.network.terms, self.network.term_slices, strict=True):
            for k, shape in enumerate(term.shapes):
                own, ranks = split_indices(term, k)[1:]
                form = Form(k, frozenset(ranks), float(math.prod(term.sizes[i] for i in own)))
                total, count = total + form.value(term, factors[part]), count + math.prod(shape)
        return total / count

    def _preconditioner(self, factors: Sequence[Tensor], ridge: Tensor) -> Callable[[list[Tensor]], list[Tensor]]:
        blocks: list[Callable[[Tensor], Tensor]] = []
        for term, part in zip(self.network.terms, self.network.term_slices, strict=True):
            for k in range(len(term.factors)):
                blocks.append(_block(term, factors[part], k, ridge))
        return lambda parts: [block(one) for block, one in zip(blocks, parts, strict=True)]

    def _solve(self, x: list[Tensor], slope: list[Tensor], ridge: Tensor, products: int) -> tuple[list[Tensor], list[Tensor]]:
        """The step d with (J'MJ + ridge) d = slope, about, and what the matrix makes of it; in float32, as the objective is not."""
        x, slope, ridge = [one.float() for one in x], [one.float() for one in slope], ridge.float()
        metric = self.low
        precondition = self._preconditioner(x, ridge)
        solution, applied = [torch.zeros_like(one) for one in x], [torch.zeros_like(one) for one in x]
        rest = list(slope)
        step = precondition(rest)
        direction, product = step, _dot(rest, step)
        first, tiny = product, torch.finfo(product.dtype).tiny
        for _ in range(products):
            image = self.back(x, metric(self.along(x, direction)))
            image = [a + _by(ridge, d) for a, d in zip(image, direction, strict=True)]
            curve = _dot(direction, image)
            length = torch.where(curve > 0, product / curve.clamp_min(tiny), torch.zeros_like(curve))
            solution = [a + _by(length, d) for a, d in zip(solution, direction, strict=True)]
            applied = [a + _by(length, d) for a, d in zip(applied, image, strict=True)]
            rest = [a - _by(length, d) for a, d in zip(rest, image, strict=True)]
            step = precondition(rest)
            last, product = product, _dot(rest, step)
            if bool((product <= 1e-4 * first).all()):
                break
            share = torch.where(last > 0, product / last.clamp_min(tiny), torch.zeros_like(last))
            direction = [a + _by(share, d) for a, d in zip(step, direction, strict=True)]
        return [one.double() for one in solution], [one.double() for one in applied]


def _block(network: Network, factors: Sequence[Tensor], number: int, ridge: Tensor) -> Callable[[Tensor], Tensor]:
    """The inverse of the diagonal block of one factor, or of its diagonal where the block is large; of J'J + ridge."""
    shared, own, ranks = split_indices(network, number)
    indices = network.factors[number]
    order = [*shared, *own, *ranks]
    forward = [0, *(indices.index(i) + 1 for i in order)]
    backward = [0, *(order.index(i) + 1 for i in indices)]
    sizes = [math.prod(network.sizes[i] for i in group) for group in (shared, own, ranks)]
    if sizes[2] > GRAM_LIMIT:
        mean = Form(number, frozenset(ranks), 1.0).value(network, factors) / (sizes[0] * sizes[2])
        return lambda x: x / per_tensor(mean + ridge, x)
    gram = Form(number).matrix(network, factors, number).double()
    eye = torch.eye(sizes[2], dtype=gram.dtype, device=gram.device).expand_as(gram)
    inverse = solve_gram(gram, eye, ridge.double()).to(ridge.dtype)

    def apply(x: Tensor) -> Tensor:
        moved = x.permute(forward)
        return (moved.reshape(len(x), *sizes) @ inverse).reshape(moved.shape).permute(backward)

    return apply


def _by(values: Tensor, tensor: Tensor) -> Tensor:
    return per_tensor(values, tensor) * tensor


def _dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).flatten(1).sum(1) for a, b in zip(left, right, strict=True)]).sum(0)


def _square(parts: Sequence[Tensor]) -> Tensor:
    return _dot(parts, parts)
