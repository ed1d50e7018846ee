"""Smaller tables for a trained NCF-MLP where only the order of a user's items counts; from the network's own scores, without training.

A ranking test asks whether the right item is above most of the others. What a score is worth there differs from what it costs the log loss:
every user counts the same, a constant added to all scores of a user changes nothing, and items far above or far below the place where the
list is cut may lie anywhere. With t_u the score that a tenth of user u's items exceed and p = sigmoid(s - t_u) of the trained network,

    sum over users and items of o_ui KL(p || sigmoid(s~ + c_u - t_u)),    c_u free

is made small. Half of the weights o_u is spread evenly over all items, as wrong candidates are; the other half is softmax(s / TEMPERATURE),
as right ones are: a network trained with even negatives has densities exp(s), flattened here because its highest items are those that it
was trained on, which no test has.

Each sweep draws pairs, more of them where p is uncertain, and makes one Gauss-Newton step for all codes, both bases and the offset
together: conjugate gradients, with the exact blocks of each row and of the bases as preconditioner. In turns (`tower_fit.py`) each moves as
if the others stayed.

Source: Schraudolph 2002, doi:10.1162/08997660260028683 (generalised Gauss-Newton steps by conjugate gradients); Rendle et al. 2009, arXiv
1205.2618 (only differences of one user's scores matter for a ranking).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.recipes.recommenders.models import NcfMlp
from tenfold.recipes.recommenders.tower_fit import Tower, score_gradients, tower_vectors

LISTED = 0.1  # part of a user's items that are above the threshold: ten of a hundred candidates
TEMPERATURE = 1.5
EVEN = 0.3  # part of the pairs that are drawn evenly, by o
FLOOR = 1e-3  # added to p (1 - p): pairs that the model is sure of count a little
DAMPING, LEAST_DAMPING, COOLING = 0.1, 1e-3, 0.6  # of the diagonals; the first steps are the shortest
STEPS, TOLERANCE = 12, 1e-4  # of conjugate gradients; the tolerance is of the preconditioned squared residual
LENGTHS = (1.0, 0.5, 0.25, 0.1)  # of a step: the first that lowers the loss
BLOCK = 64  # users that are worked on together
BASIS_PAIRS = 30_000

Step = list[Tensor]  # of the user codes, the user basis, the item codes, the item basis, the offset


@dataclass(frozen=True)
class Pairs:
    """Of each user n drawn items (users, n), the trained network's scores, the threshold (users, 1), and weights: o over what was drawn."""

    items: Tensor
    wanted: Tensor
    thresholds: Tensor
    weights: Tensor


def in_order(model: NcfMlp, tower: Tower, *, sweeps: int = 10, n_pairs: int = 300, seed: int = 0) -> tuple[Tower, tuple[float, ...]]:
    """The tower after some sweeps, and the loss that each sweep started from, on the pairs that it has drawn.

    Args:
        n_pairs: of each user, in the second half of the sweeps; a third of it before.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = scores_of_all(model)
    shifts, damping, losses = torch.zeros(len(scores)), DAMPING, []
    for sweep in range(sweeps):
        pairs = drawn_pairs(scores, n_pairs if 2 * sweep >= sweeps else max(1, n_pairs // 3), generator)
        found, gradients = linearised(model, tower, pairs.items)
        loss, shifts, slopes, curvatures = listed_loss(found, pairs, shifts)
        system = StepSystem(tower, pairs.items, gradients, curvatures, max(damping, LEAST_DAMPING), generator)
        tower, length = _moved(model, tower, system.solve(slopes), pairs, shifts)
        damping *= COOLING if length == LENGTHS[0] else 2.0
        losses.append(loss)
    return tower, tuple(losses)


def scores_of_all(model: NcfMlp) -> Tensor:
    """(users, items)."""
    with torch.no_grad():
        x, y = tower_vectors(model)
        return torch.cat([model.behind(rows[:, None] + y) for rows in x.split(16)])


def drawn_pairs(scores: Tensor, n: int, generator: torch.Generator) -> Pairs:
    """Items for each row of scores (users, items), drawn evenly along the cumulated probabilities, so that likely items come surely."""
    found = []
    for rows in scores.split(16 * BLOCK):
        size = rows.shape[1]
        thresholds = rows.kthvalue(max(1, int((1 - LISTED) * size)), dim=1, keepdim=True).values
        p = (rows - thresholds).sigmoid()
        wished = 0.5 / size + 0.5 * (rows / TEMPERATURE).softmax(1)
        uncertain = wished * p * (1 - p)
        drawn = (1 - EVEN) * uncertain / uncertain.sum(1, keepdim=True) + EVEN * wished
        places = (torch.arange(n) + torch.rand(len(rows), 1, generator=generator, dtype=torch.float64)) / n
        cumulated = drawn.double().cumsum(1)
        items = torch.searchsorted(cumulated / cumulated[:, -1:], places).clamp_max(size - 1)
        found.append((items, rows.gather(1, items), thresholds, (wished / drawn).gather(1, items)))
    return Pairs(*(torch.cat(part) for part in zip(*found, strict=True)))


def listed_loss(scores: Tensor, pairs: Pairs, shifts: Tensor) -> tuple[float, Tensor, Tensor, Tensor]:
    """The loss of scores (users, n) of the drawn pairs; the best shifts, and for each pair the negative slope and the curvature.

    Args:
        shifts: where the search of each user's shift starts.
    """
    p, weights = (pairs.wanted - pairs.thresholds).sigmoid(), pairs.weights
    for _ in range(8):
        q = (scores - pairs.thresholds + shifts[:, None]).sigmoid()
        curvature = (weights * q * (1 - q)).sum(1) + 0.01 * weights.sum(1)
        shifts = shifts + ((weights * (p - q)).sum(1) / curvature).clamp(-0.5, 0.5)
    moved = scores - pairs.thresholds + shifts[:, None]
    q = moved.sigmoid()
    own = F.binary_cross_entropy(p, p, reduction="none")
    loss = weights * (F.binary_cross_entropy_with_logits(moved, p, reduction="none") - own)
    curvature = weights * (torch.maximum(q * (1 - q), p * (1 - p)) + FLOOR)
    return float(loss.sum() / weights.sum()), shifts, weights * (p - q), curvature


class StepSystem:
    """The damped normal equations of one step, the shifts eliminated.

    Args:
        gradients: of scores, (users, n, width); they are overwritten.
        curvatures: of the loss in the scores, (users, n).
    """

    def __init__(
        self, tower: Tower, items: Tensor, gradients: Tensor, curvatures: Tensor, damping: float, generator: torch.Generator
    ) -> None:
        self.tower, self.items, self.roots = tower, items, curvatures.sqrt()
        self.gradients = gradients.mul_(self.roots[..., None])
        self.common = self.roots / curvatures.sum(1, keepdim=True).sqrt()  # what a shift does, of length 1 for each user
        blocks, bases = self._row_blocks(), self._basis_block(generator)
        rows = [_row_damping(block, damping) for block in blocks]
        self.inverses = [torch.linalg.inv(a + d[..., None] * torch.eye(a.shape[-1])) for a, d in zip(blocks, rows, strict=True)]
        diagonal = bases.diagonal()
        of_bases = 0.1 * damping * (diagonal + 0.1 * diagonal.mean())
        self.root = torch.linalg.cholesky((bases + of_bases.diag()).double())
        first, second, offset = self._parts(of_bases)
        self.damping = [rows[0], first, rows[1], second, offset]

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
        codes = [(inverse @ part[..., None])[..., 0] for inverse, part in zip(self.inverses, rest[::2], strict=False)]
        flat = torch.cat([rest[1].flatten(), rest[3].flatten(), rest[4]]).double()
        bases = self._parts(torch.cholesky_solve(flat[:, None], self.root)[:, 0].float())
        return [codes[0], bases[0], codes[1], bases[1], bases[2]]

    def _parts(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """User basis, item basis and offset of a flat vector."""
        users, items, width = len(self.tower.users.basis), len(self.tower.items.basis), len(self.tower.offset)
        parts = flat.reshape(-1, width).split((users, items, 1))
        return parts[0], parts[1], parts[2][0]

    def _row_blocks(self) -> tuple[Tensor, Tensor]:
        """Normal matrices of each user's and each item's codes."""
        of_users, size = [], self.tower.items.codes.shape[1]
        of_items = torch.zeros(len(self.tower.items.codes), size * size)
        for g, common, items in zip(self.gradients.split(BLOCK), self.common.split(BLOCK), self.items.split(BLOCK), strict=True):
            a, c = g @ self.tower.users.basis.mT, g @ self.tower.items.basis.mT
            a = a - common[..., None] * (common[..., None] * a).sum(1, keepdim=True)
            of_users.append(a.mT @ a)
            of_items.index_add_(0, items.flatten(), (c[..., :, None] * c[..., None, :]).reshape(-1, size * size))
        return self.tower.users.solvable(torch.cat(of_users)), self.tower.items.solvable(of_items.reshape(-1, size, size))

    def _basis_block(self, generator: torch.Generator) -> Tensor:
        """The normal matrix of both bases and the offset, from some users, scaled to all."""
        n_users, n = self.items.shape
        chosen = torch.randperm(n_users, generator=generator)[: max(1, BASIS_PAIRS // n)]
        found = torch.zeros(())
        for part in chosen.split(max(1, 8_000 // n)):
            g, common, items = self.gradients[part], self.common[part], self.items[part]
            a, c = self.tower.users.codes[part], self.tower.items.codes[items]
            features = torch.cat([a[:, None].expand(-1, n, -1), c, c.new_ones(len(part), n, 1)], -1)
            jacobian = (features[..., None] * g[..., None, :]).flatten(2)
            jacobian = (jacobian - common[..., None] * (common[..., None] * jacobian).sum(1, keepdim=True)).flatten(0, 1)
            found = found + jacobian.mT @ jacobian
        return found * (n_users / len(chosen))


def centred(values: Tensor, common: Tensor) -> Tensor:
    """Values (.., n) without their part along common (.., n), which is of length 1."""
    return values - common * (common * values).sum(-1, keepdim=True)


def linearised(model: NcfMlp, tower: Tower, items: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (users, n) of each user's items, and their gradients (users, n, width)."""
    found, vectors = [], tower.items.vectors + tower.offset
    for x, columns in zip(tower.users.vectors.split(BLOCK), items.split(BLOCK), strict=True):
        found.append(score_gradients(model, x[:, None] + vectors[columns]))
    scores, gradients = zip(*found, strict=True)
    return torch.cat(scores), torch.cat(gradients)


def _moved(model: NcfMlp, tower: Tower, step: Step, pairs: Pairs, shifts: Tensor) -> tuple[Tower, float]:
    """The tower after the longest step that lowers the loss of every fourth user, and the length of the step; 0: none does."""
    some = Pairs(pairs.items[::4], pairs.wanted[::4], pairs.thresholds[::4], pairs.weights[::4])

    def loss(one: Tower) -> float:
        vectors = one.items.vectors + one.offset
        with torch.no_grad():
            parts = zip(one.users.vectors[::4].split(BLOCK), some.items.split(BLOCK), strict=True)
            scores = torch.cat([model.behind(x[:, None] + vectors[items]) for x, items in parts])
        return listed_loss(scores, some, shifts[::4])[0]

    start = loss(tower)
    for length in LENGTHS:
        users = replace(tower.users, codes=tower.users.codes + length * step[0], basis=tower.users.basis + length * step[1])
        items = replace(tower.items, codes=tower.items.codes + length * step[2], basis=tower.items.basis + length * step[3])
        if loss(moved := Tower(users, items, tower.offset + length * step[4])) < start:
            return moved, length
    return tower, 0.0


def _row_damping(blocks: Tensor, damping: float) -> Tensor:
    """(rows, 1)."""
    size = blocks.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    return damping * (size + 0.1 * size.mean())


def _dot(one: Step, other: Step) -> float:
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))
