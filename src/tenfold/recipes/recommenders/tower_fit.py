"""Smaller tables for a trained NCF-MLP without training: no labels, no interactions, no gradient descent.

What the first layer adds up is  x_u + y_i,  one vector for each user and each item. With codes a_u, c_i and two bases it becomes
a_u A + c_i C + m, and the bases are the columns of a smaller first layer: a table of width k is a rank-k factor. What counts is the score.
An error of a logit s costs the log loss of the model's own probability p = sigmoid(s) p (1 - p) / 2 times its square, so

    sum over users and items of p (1 - p) (s - s~)^2

is made small: first to first order around the trained model (`solvers/table_metric.py`), then by Gauss-Newton least squares in turns: all
user codes for fixed rest, each user by itself, all item codes, then both bases and m. Pairs are drawn from all users and items alike.

Source: arXiv 2511.04494 (errors measured on outputs); alternating least squares as in tenfold's other solvers.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tenfold.recipes.recommenders.models import NcfMlp
from tenfold.recipes.recommenders.sparse_rows import SparseRows
from tenfold.solvers.table_metric import fit_table

FLOOR = 1e-3  # added to p (1 - p): pairs that the model is sure of count a little
DAMPING, LEAST_DAMPING, COOLING = 0.1, 1e-3, 0.7  # of the mean diagonal; the first steps are the longest
BLOCK = 128  # rows that are solved together
METRIC_COLUMNS, BASIS_ROWS = 200, 480


@dataclass(frozen=True)
class Side:
    """One side's part of what the first layer adds up: codes (n, k) and basis (k, width).

    support: (n, k), of codes that may differ from zero; None: all may.
    """

    codes: Tensor
    basis: Tensor
    support: Tensor | None = None

    @property
    def vectors(self) -> Tensor:
        """(n, width)."""
        return self.codes @ self.basis

    def kept(self, values: Tensor) -> Tensor:
        """Values (n, k) of codes, zero outside of the support."""
        return values if self.support is None else values * self.support

    def counts(self) -> Tensor:
        """(n): how many codes of each row may differ from zero."""
        if self.support is None:
            return torch.full((len(self.codes),), self.codes.shape[1])
        return self.support.sum(1)

    def local(self) -> tuple[Tensor, Tensor]:
        """Of each row the places (n, m) of the codes that may differ from zero, and their atoms (n, m, width); atoms of zeros fill up."""
        n, k = self.codes.shape
        if self.support is None:
            return torch.arange(k).expand(n, k), self.basis.expand(n, k, -1)
        places = self.support.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(self.counts().max())]
        return places, self.basis[places] * self.support.gather(1, places)[..., None]


@dataclass(frozen=True)
class Tower:
    """Both sides and what is common; `model` is the trained network whose scores are wanted."""

    users: Side
    items: Side
    offset: Tensor


def first_order(model: NcfMlp, ranks: tuple[int, int], *, seed: int = 0) -> Tower:
    """The tables of these ranks that are closest to first order around the trained model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        x, y = tower_vectors(model)
    fits = []
    for mine, others, rank in ((x, y, ranks[0]), (y, x, ranks[1])):
        metrics = _row_metrics(model, mine, others, generator)
        fits.append(fit_table(mine, metrics, rank))
    users, items = (Side(fit.codes.float(), fit.basis.float()) for fit in fits)
    return Tower(users, items, (fits[0].mean + fits[1].mean).float())


def in_turns(model: NcfMlp, tower: Tower, *, sweeps: int = 8, n_columns: int = 400, seed: int = 0) -> tuple[Tower, tuple[float, ...]]:
    """The tower after some sweeps, and the mean weighted squared error of a score that each sweep started from.

    Args:
        tower: without supports, which these steps would not keep to.
        n_columns: items that a user's equations are summed over, drawn anew for each block of users; and the other way round.
    """
    assert tower.users.support is None and tower.items.support is None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        x, y = tower_vectors(model)
    errors = []
    for sweep in range(sweeps):
        damping = DAMPING * COOLING**sweep + LEAST_DAMPING
        fixed = tower.items.vectors + tower.offset
        codes, error = _codes(model, tower.users, fixed, x, y, n_columns, damping, generator)
        tower = replace(tower, users=replace(tower.users, codes=codes))
        fixed = tower.users.vectors + tower.offset
        codes, _ = _codes(model, tower.items, fixed, y, x, n_columns, damping, generator)
        tower = replace(tower, items=replace(tower.items, codes=codes))
        tower = _bases(model, tower, x, y, min(n_columns, len(y)), damping, generator)
        errors.append(error)
    return tower, tuple(errors)


def as_model(model: NcfMlp, tower: Tower) -> NcfMlp:
    """The network with tables of codes and a first layer of bases; all other layers are those of `model`."""
    widths = [layer.out_features for layer in model.fc if isinstance(layer, nn.Linear)]
    ranks = (tower.users.codes.shape[1], tower.items.codes.shape[1])
    small = NcfMlp(model.user.num_embeddings, model.item.num_embeddings, ranks, widths)
    state = model.state_dict()
    state |= {"user.weight": tower.users.codes, "item.weight": tower.items.codes, "fc.0.bias": tower.offset}
    state["fc.0.weight"] = torch.cat([tower.users.basis, tower.items.basis]).mT
    small.load_state_dict(state)
    for name, side in {"user": tower.users, "item": tower.items}.items():
        if side.support is not None:
            setattr(small, name, SparseRows(side.codes, side.support))
    return small.train(model.training)


def tower_vectors(model: NcfMlp) -> tuple[Tensor, Tensor]:
    """Vectors x (users, width) and y (items, width) of the trained network; y has the bias."""
    first = model.fc[0]
    assert isinstance(first, nn.Linear)
    of_user, of_item = first.weight.split((model.user.embedding_dim, model.item.embedding_dim), dim=1)
    return model.user.weight @ of_user.mT, model.item.weight @ of_item.mT + first.bias


def score_gradients(model: NcfMlp, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (*) and their gradients (*, width)."""
    hidden = hidden.detach().requires_grad_()
    with torch.enable_grad():
        scores = model.behind(hidden)
        (gradients,) = torch.autograd.grad(scores.sum(), hidden)
    return scores.detach(), gradients


def _weights(scores: Tensor) -> Tensor:
    p = scores.sigmoid()
    return p * (1 - p) + FLOOR


def _drawn(n: int, most: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:most]


def _row_metrics(model: NcfMlp, mine: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """(n, width, width): mean of p (1 - p) g g' for each row of `mine`, over drawn rows of `others`."""
    found = []
    for rows in mine.split(BLOCK):
        columns = others[_drawn(len(others), METRIC_COLUMNS, generator)]
        scores, g = score_gradients(model, rows[:, None] + columns)
        found.append((g * _weights(scores)[..., None]).mT @ g / len(columns))
    return torch.cat(found)


def _codes(
    model: NcfMlp, side: Side, fixed: Tensor, mine: Tensor, others: Tensor, n_columns: int, damping: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """One Gauss-Newton step for all codes of a side, and the error before it.

    Args:
        fixed: what the other side and the offset add.
        mine, others: of the trained network.
    """
    found, total, weight = [], 0.0, 0.0
    for codes, teacher in zip(side.codes.split(BLOCK), mine.split(BLOCK), strict=True):
        columns = _drawn(len(others), n_columns, generator)
        with torch.no_grad():
            wanted = model.behind(teacher[:, None] + others[columns])
        scores, g = score_gradients(model, (codes @ side.basis)[:, None] + fixed[columns])
        jacobian, rest, w = g @ side.basis.mT, wanted - scores, _weights(wanted)
        weighted = jacobian * w[..., None]
        gram, right = _damped(weighted.mT @ jacobian, damping), (weighted.mT @ rest[..., None])[..., 0]
        found.append(codes + torch.linalg.solve(gram, right[..., None])[..., 0])
        total, weight = total + float((w * rest.square()).sum()), weight + float(w.sum())
    return torch.cat(found), total / weight


def _bases(model: NcfMlp, tower: Tower, x: Tensor, y: Tensor, n_columns: int, damping: float, generator: torch.Generator) -> Tower:
    """One Gauss-Newton step for both bases and the offset together."""
    n_users, n_items = tower.users.codes.shape[1], tower.items.codes.shape[1]
    width = len(tower.offset)
    size = (n_users + n_items + 1) * width
    gram, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    rows = _drawn(len(x), BASIS_ROWS, generator)
    for part in rows.split(32):
        columns = _drawn(len(y), n_columns, generator)
        with torch.no_grad():
            wanted = model.behind(x[part][:, None] + y[columns])
        a, c = tower.users.codes[part], tower.items.codes[columns]
        scores, g = score_gradients(model, (a @ tower.users.basis)[:, None] + c @ tower.items.basis + tower.offset)
        shape = (len(part), len(columns))
        features = torch.cat([a[:, None].expand(*shape, -1), c.expand(*shape, -1), a.new_ones(*shape, 1)], -1)
        jacobian = (features[..., None] * g[..., None, :]).reshape(-1, size)
        w, rest = _weights(wanted).flatten(), (wanted - scores).flatten()
        gram += ((jacobian * w[:, None]).mT @ jacobian).double()
        right += (jacobian.mT @ (w * rest)).double()
    step = torch.linalg.solve(_damped(gram, damping), right).float().reshape(-1, width)
    of_users, of_items, offset = step.split((n_users, n_items, 1))
    users, items = tower.users, tower.items
    return Tower(replace(users, basis=users.basis + of_users), replace(items, basis=items.basis + of_items), tower.offset + offset[0])


def _damped(gram: Tensor, damping: float) -> Tensor:
    size = damping * gram.diagonal(dim1=-2, dim2=-1).mean(-1) + 1e-12
    return gram + size[..., None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
