"""Smaller tables for a trained NCF-MLP where only the order of a user's items counts; from the network's own scores, without training.

A ranking test asks whether the right item is above most of the others. What a score is worth there differs from what it costs the log loss:
every user counts the same, a constant added to all scores of a user changes nothing, and items far above or far below the place where the
list is cut may lie anywhere. With t_u the score that a tenth of user u's items exceed and p = sigmoid(s - t_u) of the trained network,

    sum over users and items of o_ui KL(p || sigmoid(s~ + c_u - t_u)),    c_u free

is made small. Half of the weights o_u is spread evenly over all items, as wrong candidates are; the other half is softmax(s / TEMPERATURE),
as right ones are: a network trained with even negatives has densities exp(s), flattened here because its highest items are those that it
was trained on, which no test has.

Each sweep draws pairs, more of them where p is uncertain, and makes one Gauss-Newton step for all codes, both bases and the offset
together (`ranking_step.py`). In turns (`tower_fit.py`) each moves as if the others stayed.

Source: Rendle et al. 2009, arXiv 1205.2618 (only differences of one user's scores matter for a ranking).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.recipes.recommenders.models import NcfMlp
from tenfold.recipes.recommenders.ranking_step import BLOCK, Step, StepSystem
from tenfold.recipes.recommenders.tower_fit import Tower, score_gradients, tower_vectors

LISTED = 0.1  # part of a user's items that are above the threshold: ten of a hundred candidates
TEMPERATURE = 1.5
EVEN = 0.3  # part of the pairs that are drawn evenly, by o
FLOOR = 1e-3  # added to p (1 - p): pairs that the model is sure of count a little
DAMPING, LEAST_DAMPING, COOLING = 0.1, 1e-3, 0.6  # of the diagonals; the first steps are the shortest
LENGTHS = (1.0, 0.5, 0.25, 0.1)  # of a step: the first that lowers the loss


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
        system = StepSystem(tower, pairs.items, gradients, curvatures, max(damping, LEAST_DAMPING))
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
