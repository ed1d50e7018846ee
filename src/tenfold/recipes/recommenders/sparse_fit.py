"""Sparse rows for a trained NCF-MLP: which values of which rows are stored, by what their lack costs the order of each user's items.

The loss of `ranking_fit` is taken to second order around the trained network, where it has its minimum.
"""

import torch
from torch import Tensor

from tenfold.recipes.recommenders.models import NcfMlp
from tenfold.recipes.recommenders.ranking_fit import BLOCK, Pairs, centred, drawn_pairs, linearised, listed_loss, scores_of_all
from tenfold.recipes.recommenders.tower_fit import Side, Tower, tower_vectors
from tenfold.solvers.sparse_table import fit_sparse_tables

PAIRS = 300  # of each user


def sparse_rows(model: NcfMlp, ranks: tuple[int, int], *, seed: int = 0) -> Tower:
    """Sparse codes with as many values as tables of these ranks have, closest to second order in the order of items."""
    with torch.no_grad():
        tables = tower_vectors(model)
    users, items = (Side(table, torch.eye(table.shape[1])) for table in tables)
    dense = Tower(users, items, torch.zeros(tables[0].shape[1]))
    pairs = drawn_pairs(scores_of_all(model), PAIRS, torch.Generator().manual_seed(seed))
    metrics = row_metrics(model, dense, pairs)
    n_values = sum(len(table) * rank for table, rank in zip(tables, ranks, strict=True))
    fits = fit_sparse_tables(tables, metrics, n_values)
    users, items = (Side(fit.codes.float(), fit.basis.float(), fit.codes != 0) for fit in fits)
    return Tower(users, items, (fits[0].mean + fits[1].mean).float())


def row_metrics(model: NcfMlp, dense: Tower, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """What moving each user's vector, and each item's, costs to second order, all shifts being free: (rows, width, width)."""
    found, gradients = linearised(model, dense, pairs.items)
    curvatures = listed_loss(found, pairs, found.new_zeros(len(found)))[3]
    roots = curvatures.sqrt()
    common = roots / curvatures.sum(1, keepdim=True).sqrt()
    n_items, width = dense.items.vectors.shape
    users, of_items = [], found.new_zeros(n_items, width**2)
    for g, root, shift, items in zip(*(one.split(BLOCK) for one in (gradients, roots, common, pairs.items)), strict=True):
        g = g * root[..., None]
        free = g * (1 - shift.square()).sqrt()[..., None]  # an item is one of those that a user's shift answers to
        of_items.index_add_(0, items.flatten(), (free[..., :, None] * free[..., None, :]).flatten(0, 1).flatten(1))
        g = centred(g.mT, shift[:, None]).mT
        users.append(g.mT @ g)
    return torch.cat(users), of_items.reshape(n_items, width, width)
