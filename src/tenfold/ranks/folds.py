"""Which modes a weight is split into: a plan tries several splits, and orders of the modes of a split, and keeps the few that pay.

How well a format fits depends on which parts of the output index meet which parts of the input index, and no rule knows that
beforehand. So splits with one mode more or less than the format's own, balanced ones first, and the orders of their sizes are
screened: the error at two fixed fractions of the dense parameters, from a few sweeps. Only the best go on to all ranks. That is a
heuristic; its work is bounded by the size of the weight, and the split that a layer gets without a plan is always kept.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations, product, zip_longest

import torch

from tenfold.decompose import BATCH_LIMIT, without_groups
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.mode_sizes import balanced_modes
from tenfold.network import Network
from tenfold.ranks.candidates import grouped, joint_error
from tenfold.survey import Found
from tenfold.trace import Workloads

FOLDS = 36  # splits that are screened for a small weight ...
WORK = 4_000_000  # ... and fewer where splits x values would exceed this
SPLITS = 4  # different sets of sizes for one axis
FRACTIONS = (0.25, 0.06)  # of the dense parameters, at which errors are compared
SWEEPS = 12  # of iterative solvers
GAIN = 0.98  # another split has to lower the error, or the FLOP, to this part of the default's
TOLERANCE = 1.1  # the cheapest split may have so much more error than the best one


def other_folds(layer: Found, format: Format, fold: Fold) -> list[Fold]:
    """Folds with other modes than the default one, which is given; most balanced first, numbers of modes in turn. No more than FOLDS."""
    assert layer.layer is not None
    own = layer.layer.modes_of(format)
    if own < 2:
        return []
    sizes = [_size(fold, role) for role in "oi"]
    found: list[list[Fold]] = []
    for count in sorted((n for n in (2, 3, 4) if abs(n - own) <= 1), key=lambda n: abs(n - own)):
        same = []
        for out, inp in _pairs(sizes[0], sizes[1], count):
            try:
                other = format.fold(layer.layer.fold_of(layer.module, count, inp, out))
                _ = format.widest(other)
            except ValueError:
                continue  # the format has other needs: as many pairs as its tree has leaves, a rank
            if other != fold and other not in same:
                same.append(other)
            if len(same) == FOLDS:
                break
        found.append(same)
    mixed = [one for turn in zip_longest(*found) for one in turn if one is not None]
    return mixed[: FOLDS - 1]


def screened(layers: Sequence[Found], format: Format, folds: Sequence[Fold], workload: Workloads | None, *, seed: int) -> list[list[Fold]]:
    """For each of some layers of one shape the folds that are worth all ranks: the first of those given, the best and the cheapest."""
    folds = folds[: max(1, WORK // max(1, layers[0].n_values))]
    if len(folds) < 2:
        return [[folds[0]] for _ in layers]
    if len(layers) > 1 and layers[0].n_values > BATCH_LIMIT:
        return [screened([one], format, folds, workload, seed=seed)[0] for one in layers]
    networks = {fold: _at_fractions(format, fold, layers[0].n_values) for fold in folds}
    usable = [fold for fold in folds if networks[fold]]
    scores = {fold: _scores(layers, format, fold, networks[fold], seed) for fold in usable}
    return [_kept(folds[0], {fold: scores[fold][n] for fold in usable}, networks, workload) for n in range(len(layers))]


def _kept(default: Fold, scores: dict[Fold, float], networks: dict[Fold, list[Network]], workload: Workloads | None) -> list[Fold]:
    kept = [default]
    if not scores:
        return kept
    best = min(scores, key=lambda fold: scores[fold])
    if best != default and (default not in scores or scores[best] <= GAIN * scores[default]):
        kept.append(best)
    if workload is not None:
        near = sorted((fold for fold in scores if scores[fold] <= TOLERANCE * scores[best] + 1e-12), key=lambda fold: scores[fold])[:4]
        flops = {fold: workload.flops(networks[fold][0]) for fold in (*near, *(one for one in kept if one in scores))}
        cheapest = min(flops, key=lambda fold: flops[fold])
        if cheapest not in kept and all(flops[cheapest] <= GAIN * flops[one] for one in kept if one in flops):
            kept.append(cheapest)
    return kept


def _scores(layers: Sequence[Found], format: Format, fold: Fold, networks: list[Network], seed: int) -> list[float]:
    """For each layer the sum of its relative errors at the fractions."""
    targets = [grouped(one, fold, networks[0], None) for one in layers]
    errors = format.errors(torch.cat(targets), [without_groups(one) for one in networks], sweeps=SWEEPS, seed=seed)
    squared = errors.square().reshape(len(networks), len(layers), -1)
    return [sum(joint_error(one[n], target) ** 0.5 for one in squared) for n, target in enumerate(targets)]


def _at_fractions(format: Format, fold: Fold, n_values: int) -> list[Network]:
    """The networks with the most parameters up to each of the fractions, the smallest one where none fits; none without a rank."""
    every = sorted((replace(format, rank=ranks).network(fold) for ranks in format.rank_choices(fold)), key=lambda one: one.numel)
    if not every or every[0].numel >= n_values:
        return []
    return [([one for one in every if one.numel <= fraction * n_values] or every[:1])[-1] for fraction in FRACTIONS]


def _size(fold: Fold, role: str) -> int:
    """The size of an axis that its modes hold: of one group, and without the gates."""
    axis = fold.axis(role)
    gates = axis.modes[0] if role == "o" and fold.gate is not None else 1
    return axis.size // axis.groups // gates


@lru_cache(maxsize=1024)
def _pairs(out: int, inp: int, count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Modes of the output and of the input; those with the smallest sizes first, then those with the smallest factors."""

    def cost(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[int, int, tuple[tuple[int, ...], tuple[int, ...]]]:
        return sum(pair[0]) + sum(pair[1]), sum(o * i for o, i in zip(*pair, strict=True)), pair

    return sorted(product(_splits(out, count), _splits(inp, count)), key=cost)


def _splits(size: int, count: int) -> list[tuple[int, ...]]:
    """The orders of the most balanced modes of an axis, and of the next sets of sizes without a mode of 1."""
    sets = {
        tuple(sorted(balanced_modes(size, count))),
        *sorted(_exact(size, count, 2), key=lambda modes: (sum(modes), modes))[: SPLITS - 1],
    }
    return sorted({order for modes in sets for order in permutations(modes)})


@lru_cache(maxsize=65536)
def _exact(size: int, count: int, least: int) -> tuple[tuple[int, ...], ...]:
    """Every ascending list of `count` sizes of at least `least` whose product is `size`."""
    if count == 1:
        return ((size,),) if size >= least else ()
    most = math.isqrt(size) if count == 2 else round(size ** (1 / count)) + 1
    return tuple(
        (first, *rest) for first in range(least, most + 1) if size % first == 0 for rest in _exact(size // first, count - 1, first)
    )
