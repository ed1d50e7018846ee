"""The ways a layer can be stored: formats and ranks, each with its cost and its error."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tenfold.decompose import BATCH_LIMIT, group_tensors, without_groups
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.patches import patch_size
from tenfold.solvers.whitening import Whitening
from tenfold.survey import Found
from tenfold.trace import Workloads

WORTH = 0.85  # a candidate that keeps more than this of both parameters and FLOP is not tried


@dataclass(frozen=True)
class Candidate:
    """A format with explicit ranks for one layer, or None for the dense layer: its cost and its squared relative error."""

    format: Format | None
    params: int
    flops: int
    error: float
    fold: Fold | None = None


def shapes_of(layer: Found, format: Format, workload: Workloads | None, fold: Fold) -> list[tuple[Format, Network, int]]:
    """The formats with explicit ranks that make the layer smaller, or cheaper, or both: (format, network, flops). A given rank is kept."""
    result = []
    if format.rank is None and patch_size(layer.module) == 1:
        return result  # every output is one product: factors save none, and run it as no matrix product, which is what FLOP count
    for choice in format.rank_choices(fold):
        network = replace(format, rank=choice).network(fold)
        flops = workload.flops(network) if workload else 0
        is_smaller = network.numel < WORTH * layer.n_values or (workload is not None and flops < WORTH * workload.dense_flops)
        if is_smaller or format.rank is not None:
            result.append((explicit(format, network), network, flops))
    return result


def explicit(format: Format, network: Network) -> Format:
    """The format with the ranks of a network of it."""
    ranks = format.ranks_of(network)
    return replace(format, rank=ranks[0] if len(ranks) == 1 else ranks)


def candidates(
    layers: Sequence[Found],
    format: Format,
    workload: Workloads | None,
    fold: Fold,
    metrics: Sequence[Whitening | None],
    *,
    sweeps: int,
    seed: int,
) -> list[list[Candidate]]:
    """The candidates of layers of the same shape in one format: one list for each layer, in the order of the rank choices."""
    if len(layers) > 1 and layers[0].n_values > BATCH_LIMIT:
        pairs = zip(layers, metrics, strict=True)
        return [candidates([one], format, workload, fold, [metric], sweeps=sweeps, seed=seed)[0] for one, metric in pairs]
    shapes = shapes_of(layers[0], format, workload, fold)
    if not shapes:
        return [[] for _ in layers]
    targets = [grouped(one, fold, shapes[0][1], metric) for one, metric in zip(layers, metrics, strict=True)]
    errors = format.errors(torch.cat(targets), [without_groups(network) for _, network, _ in shapes], sweeps=sweeps, seed=seed)
    squared = errors.square().reshape(len(shapes), len(layers), -1)
    return [
        [Candidate(f, network.numel, flops, joint_error(squared[k, n], target), fold) for k, (f, network, flops) in enumerate(shapes)]
        for n, target in enumerate(targets)
    ]


def grouped(layer: Found, fold: Fold, network: Network, metric: Whitening | None) -> Tensor:
    """What a solver is given: (groups, *modes) in float64, whitened where there is a metric."""
    tensor = group_tensors(fold, layer.weight.detach().double())
    return tensor if metric is None else metric.whiten(fold, without_groups(network), tensor)


def joint_error(squared: Tensor, target: Tensor) -> float:
    """The squared relative error of all groups together, from that of each (groups,) and the (groups, *modes) target."""
    power = target.flatten(1).square().sum(1)
    return float((squared * power).sum() / power.sum().clamp_min(1e-300))
