"""ml1m: the tables of a trained NCF-MLP on MovieLens-1M made smaller without training.

Source: He et al. 2017, arXiv 1708.05031 (network and ranking test); the methods are those of tower_fit.py, ranking_fit.py and
sparse_fit.py.
Protocol: leave one out: the film that a user has rated last is ranked among 99 that the user has not rated; HR@10 and NDCG@10 with half of
the equal scores above. No film of the test and no interaction is used to make the tables smaller, only the network's own scores.
Command: tenfold train ml1m --data FOLDER --out ml1m
Expected (measured): HR@10 0.669 and NDCG@10 0.390 dense, on the users with even numbers; with 4x fewer values 0.666 and 0.389 (sparse
rows; 1.2 and 1.6 % below in the mean over tests drawn from the network), with 5.3x fewer 0.661 and 0.382. The dense figures confirm those
of the trained network; there is no published number for smaller tables. It takes half an hour of one core.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenfold.data.movielens import Candidates, read_candidates
from tenfold.recipes.finished_runs import digest_of, kept_place, read_kept, write_kept
from tenfold.recipes.options import Options, look
from tenfold.recipes.recommenders.models import NcfMlp, read_ncf_mlp
from tenfold.recipes.recommenders.ranking import RankingScores, expected_scores, ranking_scores
from tenfold.recipes.recommenders.ranking_fit import TEMPERATURE, in_order, scores_of_all
from tenfold.recipes.recommenders.sparse_fit import sparse_rows
from tenfold.recipes.recommenders.tower_fit import Side, Tower, as_model, first_order, in_turns
from tenfold.recipes.shown import Table, write_result
from tenfold.solvers.table_metric import fit_table

DATA = ("ml1m_leave1out/even_users.npz", "even_users.npz", "ml-1m.test.negative")
WEIGHTS = ("weights/ml1m_ncf_mlp.safetensors", "ml1m_ncf_mlp.safetensors")
TAKES = ("epochs",)
RANKS = ((6, 6), (8, 8), (12, 12))
SWEEPS = 8
VERSION = 6
_SCORES = ("hit_rate", "ndcg")
_COLUMNS = ("tables", "HR@10", "", "NDCG@10", "", "expected: HR@10", "NDCG@10", "values", "ratio", "bfloat16: HR@10", "NDCG@10", "bytes")


def run(options: Options) -> Table:
    """The table of all ways and ranks; `epochs` are sweeps."""
    place = options.find(DATA)
    candidates, model = read_candidates(place), read_ncf_mlp(_weights(place))
    check_fit(candidates, model)
    sweeps, seed = options.epochs or SWEEPS, options.seeds[0]
    dense = model.table_numel()
    right = (scores_of_all(model) / TEMPERATURE).softmax(1)
    measured = functools.partial(_found, candidates=candidates, trained=model, right=right)
    found = [measured("dense", model)]
    for side, removed in {"user": model.user, "item": model.item}.items():
        control = measured(f"no {side} table", without(model, side))
        numel = dense - removed.weight.numel()
        half = {**control["bfloat16"], "ratio": 2 * dense / numel}
        found.append({**control, "numel": numel, "ratio": dense / numel, "bfloat16": half})
    digest = digest_of(*model.state_dict().values(), candidates.users, candidates.items)
    for ranks in RANKS:
        for way, tower in towers(model, ranks, sweeps=sweeps, seed=seed).items():
            key = {"version": VERSION, "way": way, "ranks": list(ranks), "seed": seed, "digest": digest}
            kept = kept_place(options.out, "ml1m", f"{way}-{ranks[0]}-{ranks[1]}", key)
            if (one := read_kept(kept, key)) is None:
                options.progress(f"ml1m {way}, ranks {ranks[0]} and {ranks[1]}", 0, 1)
                one = measured(f"{way}, {ranks[0]} and {ranks[1]}", as_model(model, tower()))
                write_kept(kept, key, one)
                options.progress(f"ml1m {way}, ranks {ranks[0]} and {ranks[1]}", 1, 1)
            found.append(one)
    result = table(found, len(candidates.users))
    write_result(result, options.out)
    return result


def towers(model: NcfMlp, ranks: tuple[int, int], *, sweeps: int, seed: int) -> dict[str, Callable[[], Tower]]:
    """The ways to tables of these widths, each computed when it is called; what a way starts from is computed once.

    "closest tables" to the dense ones; "closest vectors": measured behind the first layer; "first order": in what scores lose; "in turns":
    Gauss-Newton in turns from there; "in order": then for the order of each user's items; "sparse rows": as many values, each row's at
    places of its own, to second order in that order, and Gauss-Newton from there.
    """
    first = functools.cache(lambda: first_order(model, ranks, seed=seed))
    turns = functools.cache(lambda: in_turns(model, first(), sweeps=sweeps, seed=seed)[0])
    return {
        "closest tables": lambda: _closest(model, ranks, is_behind=False),
        "closest vectors": lambda: _closest(model, ranks, is_behind=True),
        "first order": first,
        f"in turns, {sweeps} sweeps": turns,
        f"in order, {sweeps} sweeps": lambda: in_order(model, turns(), sweeps=sweeps, seed=seed)[0],
        f"sparse rows, {sweeps} sweeps": lambda: in_order(model, sparse_rows(model, ranks, seed=seed), sweeps=sweeps, seed=seed)[0],
    }


def scores_of(model: NcfMlp, candidates: Candidates) -> RankingScores:
    """HR@10 and NDCG@10 of a network."""
    with torch.no_grad():
        parts = [model(u[:, None], i) for u, i in zip(candidates.users.split(512), candidates.items.split(512), strict=True)]
    return ranking_scores(torch.cat(parts))


def without(model: NcfMlp, side: str) -> NcfMlp:
    """The control: every user, or every item, has the mean row."""
    state = model.state_dict()
    state[f"{side}.weight"] = state[f"{side}.weight"].mean(0).expand_as(state[f"{side}.weight"])
    widths = [int(state[f"fc.{number}.weight"].shape[0]) for number in range(len(model.fc))]
    dims = (model.user.embedding_dim, model.item.embedding_dim)
    control = NcfMlp(model.user.num_embeddings, model.item.num_embeddings, dims, widths)
    control.load_state_dict(state)
    return control.eval()


def in_bfloat16(model: NcfMlp) -> NcfMlp:
    """A copy whose tables hold what bfloat16 keeps of their values."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for one in rounded.tables():
            one.copy_(one.bfloat16())
    return rounded


def check_fit(candidates: Candidates, model: NcfMlp) -> None:
    """Raises ValueError where a test has users or items that the network lacks."""
    users, items = int(candidates.users.max()), int(candidates.items.max())
    if users >= model.user.num_embeddings or items >= model.item.num_embeddings:
        raise ValueError(
            f"the test has user {users} and item {items}, but the network has {model.user.num_embeddings} users and "
            f"{model.item.num_embeddings} items, numbered from 0; both must be of one data set: give the test of the network's own"
        )


def table(found: list[dict[str, Any]], n: int) -> Table:
    """The result from runs, the dense one first."""
    rows = tuple(
        (
            one["way"],
            *(text for name in _SCORES for text in (f"{one[name]:.4f}", f"{one[name] / found[0][name] - 1:+.1%}")),
            *(f"{one['expected'][name] / found[0]['expected'][name] - 1:+.1%}" for name in _SCORES),
            f"{one['numel']:,}",
            f"{one['ratio']:.2f}x",
            *(f"{one['bfloat16'][name] / found[0][name] - 1:+.1%}" for name in _SCORES),
            f"{one['bfloat16']['ratio']:.2f}x",
        )
        for one in found
    )
    counted = (
        f"{n:,} users, the right film among 99 others. expected: the mean over all tests that the trained network itself would draw, for "
        "all users: the right film by its own scores, the others evenly. values: in both tables; ratio: how many times fewer than dense. "
        "Bases are columns of the first layer: where it gets smaller that is not counted, where it grows it is. All other layers are as "
        "they were trained. bfloat16: the same tables rounded to two bytes a value; bytes: how many times fewer than dense in float32, "
        "with a byte for the place of each value of sparse rows, and one for each row."
    )
    ways = (
        "closest tables: singular value decomposition of each; closest vectors: of what the first layer makes of it; first order: each row "
        "in the metric of what its error costs the scores; in turns: Gauss-Newton least squares on the network's own scores from there; in "
        "order: from there, Gauss-Newton on which items come before others in each user's list; sparse rows: the same for as many "
        "values at places of each row's own."
    )
    return Table("ml1m", _COLUMNS, rows, (counted, ways), {"runs": found})


def _closest(model: NcfMlp, ranks: tuple[int, int], *, is_behind: bool) -> Tower:
    """Both tables cut to a rank, in the Frobenius norm or behind the first layer."""
    first = model.fc[0].state_dict()
    sides, offset = [], first["bias"]
    start = 0
    for layer, rank in zip((model.user, model.item), ranks, strict=True):
        values = layer.weight.detach()
        map_: Tensor = first["weight"][:, start : start + layer.embedding_dim]
        metric = map_.mT @ map_ if is_behind else torch.eye(layer.embedding_dim)
        fit = fit_table(values, metric.expand(len(values), -1, -1), rank, turns=0, is_centred=False)
        sides.append(Side(fit.codes.float(), fit.basis.float() @ map_.mT))
        offset = offset + map_ @ fit.mean.float()
        start += layer.embedding_dim
    return Tower(sides[0], sides[1], offset)


def _found(way: str, model: NcfMlp, *, candidates: Candidates, trained: NcfMlp, right: Tensor) -> dict[str, Any]:
    """The scores of a network, and those with its tables rounded to bfloat16, beside sizes relative to those of the trained one.

    right: see `expected_scores`.
    """
    scores, half = scores_of(model, candidates), scores_of(in_bfloat16(model), candidates)
    behind, before = (sum(one.numel() for one in net.fc.parameters()) for net in (model, trained))
    n_more = max(0, behind - before)  # of the first layer, where it has grown
    dense, numel = trained.table_numel(), model.table_numel() + n_more
    n_bytes = sum(2 * one.numel() for one in model.tables()) + sum(one.nbytes for one in model.supports()) + 4 * n_more
    sizes = {"numel": numel, "ratio": dense / numel, "bfloat16": {**dataclasses.asdict(half), "ratio": 4 * dense / n_bytes}}
    own = expected_scores(scores_of_all(model), right)
    return {"way": way, **dataclasses.asdict(scores), "expected": dataclasses.asdict(own), **sizes}


def _weights(place: Path) -> Path:
    """The weights near the test: below its folder, or the folders above."""
    for folder in (place.parent, *place.parent.parents[:2]):
        if (found := look(folder, WEIGHTS)) is not None:
            return found
    raise ValueError(f"no weights were found near {place}; {' or '.join(WEIGHTS)} is needed in its folder or the one above it")
