"""One Gauss-Newton step for the codes, the bases and the offset of a tower together, where each user's scores may shift freely.

Conjugate gradients on the damped normal equations. The preconditioner has their blocks: of each row's codes, of all atoms of the users, and
of all atoms of the items with the offset. All come from metrics, what moving each row's vector costs, as in `solvers/table_metric.py`.

Source: Schraudolph 2002, doi:10.1162/08997660260028683 (generalised Gauss-Newton steps by conjugate gradients).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.recipes.recommenders.tower_fit import Side, Tower
from tenfold.solvers.table_metric import basis_gram

STEPS, TOLERANCE = 12, 1e-4  # of conjugate gradients; the tolerance is of the preconditioned squared residual
BLOCK = 64  # users that are worked on together

Step = list[Tensor]  # of the user codes, the user basis, the item codes, the item basis, the offset


class StepSystem:
    """The damped normal equations of one step, the shifts eliminated.

    Args:
        items: of each user, (users, n).
        gradients: of their scores, (users, n, width); they are overwritten.
        curvatures: of the loss in the scores, (users, n).
    """

    def __init__(self, tower: Tower, items: Tensor, gradients: Tensor, curvatures: Tensor, damping: float) -> None:
        self.tower, self.items, self.roots = tower, items, curvatures.sqrt()
        self.gradients, self.common = scaled(gradients, curvatures)
        metrics = row_metrics(self.gradients, self.common, items, len(tower.items.codes))
        sides = tower.users, tower.items
        self.rows = [_Rows(side, metric, damping) for side, metric in zip(sides, metrics, strict=True)]
        with_offset = F.pad(tower.items.codes, (0, 1), value=1.0)
        self.atoms = [_Atoms(codes, m, 0.1 * damping) for codes, m in zip((tower.users.codes, with_offset), metrics, strict=True)]
        of_users, of_items = (one.damping for one in self.atoms)
        self.damping = [self.rows[0].damping, of_users, self.rows[1].damping, of_items[:-1], of_items[-1]]

    def solve(self, slopes: Tensor) -> Step:
        """The step, by conjugate gradients from zero."""
        rest = self.back(slopes / self.roots)
        step = [torch.zeros_like(part) for part in rest]
        direction = conditioned = self._conditioned(rest)
        size = start = _dot(rest, conditioned)
        for _ in range(STEPS):
            ahead = self._times(direction)
            length = size / _dot(direction, ahead)
            step = [a + length * b for a, b in zip(step, direction, strict=True)]
            rest = [a - length * b for a, b in zip(rest, ahead, strict=True)]
            conditioned = self._conditioned(rest)
            new = _dot(rest, conditioned)
            if new < TOLERANCE * start:
                break
            direction = [a + new / size * b for a, b in zip(conditioned, direction, strict=True)]
            size = new
        return step

    def _times(self, step: Step) -> Step:
        """The damped normal matrix times a step."""
        return [a + d * b for a, d, b in zip(self.back(self.ahead(step)), self.damping, step, strict=True)]

    def ahead(self, step: Step) -> Tensor:
        """Changes of all scores, scaled (users, n)."""
        of_users = step[0] @ self.tower.users.basis + self.tower.users.codes @ step[1]
        of_items = step[2] @ self.tower.items.basis + self.tower.items.codes @ step[3] + step[4]
        found = [
            (g * (x[:, None] + of_items[items])).sum(-1)
            for g, x, items in zip(self.gradients.split(BLOCK), of_users.split(BLOCK), self.items.split(BLOCK), strict=True)
        ]
        return centred(torch.cat(found), self.common)

    def back(self, values: Tensor) -> Step:
        """The transposed of `ahead`."""
        values = centred(values, self.common)
        of_users, of_items = [], torch.zeros(len(self.tower.items.codes), len(self.tower.offset))
        for g, v, items in zip(self.gradients.split(BLOCK), values.split(BLOCK), self.items.split(BLOCK), strict=True):
            each = g * v[..., None]
            of_users.append(each.sum(1))
            of_items.index_add_(0, items.flatten(), each.flatten(0, 1))
        x, (users, rows) = torch.cat(of_users), (self.tower.users, self.tower.items)
        codes = users.kept(x @ users.basis.mT), rows.kept(of_items @ rows.basis.mT)
        return [codes[0], users.codes.mT @ x, codes[1], rows.codes.mT @ of_items, of_items.sum(0)]

    def _conditioned(self, rest: Step) -> Step:
        of_items = self.atoms[1].solve(torch.cat([rest[3], rest[4][None]]))
        return [self.rows[0].solve(rest[0]), self.atoms[0].solve(rest[1]), self.rows[1].solve(rest[2]), of_items[:-1], of_items[-1]]


class _Rows:
    """The damped blocks of a side's codes, each of the codes of one row that may differ from zero."""

    def __init__(self, side: Side, metrics: Tensor, damping: float) -> None:
        self.places, atoms = side.local()
        blocks = atoms @ metrics @ atoms.mT
        size = blocks.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) / side.counts()[:, None].clamp_min(1)
        self.damping = damping * (size + 0.1 * size.mean())
        self.inverses = torch.linalg.inv(blocks + self.damping[..., None] * torch.eye(blocks.shape[-1]))

    def solve(self, rest: Tensor) -> Tensor:
        """(n, k) from (n, k)."""
        found = (self.inverses @ rest.gather(1, self.places)[..., None])[..., 0]
        return torch.zeros_like(rest).scatter(1, self.places, found)


class _Atoms:
    """The damped block of a basis (k, width)."""

    def __init__(self, codes: Tensor, metrics: Tensor, damping: float) -> None:
        gram = basis_gram(metrics, codes)
        diagonal = gram.diagonal()
        flat = damping * (diagonal + 0.1 * diagonal.mean())
        self.root = torch.linalg.cholesky((gram + flat.diag()).double())
        self.damping = flat.reshape(codes.shape[1], -1)

    def solve(self, rest: Tensor) -> Tensor:
        """(k, width) from (k, width)."""
        return torch.cholesky_solve(rest.reshape(-1, 1).double(), self.root).reshape_as(rest).to(rest.dtype)


def scaled(gradients: Tensor, curvatures: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (users, n, width) times the roots of curvatures (users, n), in place, and what a shift does, of length 1 for each user."""
    roots = curvatures.sqrt()
    return gradients.mul_(roots[..., None]), roots / curvatures.sum(1, keepdim=True).sqrt()


def row_metrics(gradients: Tensor, common: Tensor, items: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """What moving each user's vector, and each item's, costs to second order, all shifts being free: (rows, width, width).

    Args:
        gradients, common: as `scaled` gives them.
        items: of each user, (users, n).
    """
    width = gradients.shape[-1]
    users, of_items = [], gradients.new_zeros(n_items, width**2)
    for g, shift, drawn in zip(*(one.split(BLOCK) for one in (gradients, common, items)), strict=True):
        free = g * (1 - shift.square()).clamp_min(0).sqrt()[..., None]  # an item is one of those that a user's shift answers to
        of_items.index_add_(0, drawn.flatten(), (free[..., :, None] * free[..., None, :]).flatten(0, 1).flatten(1))
        g = centred(g.mT, shift[:, None]).mT
        users.append(g.mT @ g)
    return torch.cat(users), of_items.reshape(n_items, width, width)


def centred(values: Tensor, common: Tensor) -> Tensor:
    """Values (.., n) without their part along common (.., n), which is of length 1."""
    return values - common * (common * values).sum(-1, keepdim=True)


def _dot(one: Step, other: Step) -> float:
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))
