"""Sparse rows for a trained NCF-MLP: which values of which rows are stored, by what their lack costs the order of each user's items.

The loss of `ranking_fit` is taken to second order around the trained network, where it has its minimum.
"""

import torch

from tenfold.recipes.recommenders.models import NcfMlp
from tenfold.recipes.recommenders.ranking_fit import drawn_pairs, linearised, listed_loss, scores_of_all
from tenfold.recipes.recommenders.ranking_step import row_metrics, scaled
from tenfold.recipes.recommenders.tower_fit import Side, Tower, tower_vectors
from tenfold.solvers.sparse_table import fit_sparse_tables

PAIRS = 300  # of each user
ATOMS = 192  # of a dictionary, at most
DICTIONARY = 0.14  # of all values: what the dictionaries may have more than the columns of the first layer


def sparse_rows(model: NcfMlp, ranks: tuple[int, int], *, seed: int = 0) -> Tower:
    """Sparse codes, closest to second order in the order of items, with as many values as tables of these ranks have.

    The dictionaries are columns of the first layer. By what that grows there are fewer values.
    """
    with torch.no_grad():
        tables = tower_vectors(model)
    width = tables[0].shape[1]
    users, items = (Side(table, torch.eye(width)) for table in tables)
    dense = Tower(users, items, torch.zeros(width))
    pairs = drawn_pairs(scores_of_all(model), PAIRS, torch.Generator().manual_seed(seed))
    found, gradients = linearised(model, dense, pairs.items)
    curvatures = listed_loss(found, pairs, found.new_zeros(len(found)))[3]
    metrics = row_metrics(*scaled(gradients, curvatures), pairs.items, len(tables[1]))
    n_values = sum(len(table) * rank for table, rank in zip(tables, ranks, strict=True))
    columns = model.user.embedding_dim + model.item.embedding_dim
    atoms = min(ATOMS, (columns + int(DICTIONARY * n_values / width)) // 2)
    fits = fit_sparse_tables(tables, metrics, n_values - max(0, 2 * atoms - columns) * width, atoms=atoms, seed=seed)
    users, items = (Side(fit.codes.float(), fit.basis.float(), fit.codes != 0) for fit in fits)
    return Tower(users, items, (fits[0].mean + fits[1].mean).float())
