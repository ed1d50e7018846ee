"""What became of every layer: the dense weight beside the compressed one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.formats import format_text
from tenfold.layers.base import FactorizedLayer
from tenfold.plan import LayerPlan
from tenfold.report.costs import Costs
from tenfold.report.pairs import Pair, weights_of
from tenfold.timing import LayerRun, Race

SPECTRUM_LIMIT = 2048  # above it the eigenvalues of the smaller side's Gram matrix take longer than the rest of the report
SPECTRUM_POINTS = 128
ZERO = 1e-6  # singular values below this part of the largest are none: they come from a Gram matrix in float64


@dataclass(frozen=True)
class LayerRow:
    """One layer with a weight, compressed or not.

    format: the plan's text, or where there is no plan the statement; None = dense. reason: why it is dense, or what is to be known.
    error: ||W - dense||_F / ||W||_F between both models as they are now; planned_error: what the plan predicted.
    params are values of the weight (a shared one counts where it stands first); flops are for one sample, None where not known.
    races are measured speed-ups, predicted those that the machine model of contractions gives for a CPU, by batch size.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    format: str | None
    statement: str | None
    ranks: dict[str, int]
    reason: str
    params_before: int
    params_after: int
    flops_before: int | None
    flops_after: int | None
    error: float | None
    planned_error: float | None
    races: tuple[Race, ...] = ()
    predicted: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a weight as a matrix (out, rest), divided by the largest one of the dense weight.

    `numbers` are their places, from 1; `dense` and `small` the values there; `rank` of `size` values of the compressed weight are not zero;
    `energy` is the part of the dense weight's squared norm in its first `rank` values.
    """

    name: str
    size: int
    rank: int
    energy: float
    numbers: tuple[int, ...]
    dense: tuple[float, ...]
    small: tuple[float, ...]


def weight_error(pair: Pair) -> float | None:
    """||W - dense||_F / ||W||_F over the weights of a layer; None where they cannot be compared."""
    with torch.no_grad():
        old, new = weights_of(pair.dense), weights_of(pair.small)
        if {n: w.shape for n, w in old.items()} != {n: w.shape for n, w in new.items()}:
            return None
        norm = math.sqrt(sum(float(w.square().sum()) for w in old.values()))
        distance = math.sqrt(sum(float((w - new[name]).square().sum()) for name, w in old.items()))
    if norm == 0:
        return 0.0 if distance == 0 else None
    return distance / norm


def row_of(pair: Pair, plan: Mapping[str, LayerPlan] | None, costs: Costs | None) -> LayerRow:
    """The row of one layer, of the layers of a plan by name; FLOP as counted on the inputs, or where there are none the plan's."""
    planned = None if plan is None else plan.get(pair.name)
    run = costs.layers.get(pair.name) if costs else None
    flops = (run.flops_before, run.flops_after) if run else (None, None)
    if costs is None and planned is not None:
        flops = planned.flops_before, planned.flops_after
    format, statement, ranks = None, None, {}
    if isinstance(pair.small, FactorizedLayer):
        statement, ranks = pair.small.factorized.network.statement, dict(pair.small.factorized.network.ranks)
        format = _format_text(planned) or statement
    return LayerRow(
        pair.name or "(the model itself)",
        type(pair.dense).__name__,
        pair.shape,
        format,
        statement,
        ranks,
        _reason(pair, planned, plan is not None, run, costs is not None),
        pair.params_before,
        pair.params_after,
        *flops,
        weight_error(pair),
        planned.error if planned else None,
        run.races if run else (),
        run.predicted if run else (),
    )


def _format_text(planned: LayerPlan | None) -> str:
    if planned is None or planned.format is None:
        return ""
    return format_text(planned.format, planned.in_modes, planned.out_modes)


def _reason(pair: Pair, planned: LayerPlan | None, has_plan: bool, run: LayerRun | None, is_measured: bool) -> str:
    """Why a layer is dense, or what its user should know about it."""
    notes = []
    if pair.is_factorized:
        if planned is not None and planned.format is None:
            notes.append("compressed, although the plan says dense")
        if run is not None and run.flops_before and run.flops_after == run.flops_before:
            notes.append("runs as its dense kernel, which is rebuilt from the factors: smaller, not faster")
        if planned is not None and planned.metric:
            notes.append(f"its planned error is that of its {planned.metric}")
    elif type(pair.small) is not type(pair.dense):
        notes.append(f"replaced by {type(pair.small).__name__}, which is no layer of tenfold")
    elif planned is not None and planned.format is not None:
        notes.append("dense, although the plan compresses it")
    else:
        unknown = "the plan does not name it" if has_plan else "left dense; no plan was given, so the reason is not known"
        notes.append((planned.reason if planned else "") or pair.reason or unknown)
    if is_measured and run is None:
        notes.append("the inputs do not run it as a layer of its own")
    return "; ".join(notes)


def spectrum_of(pair: Pair) -> Spectrum | None:
    """The spectra of a compressed layer; None where the matrix is too large, or zero."""
    if not isinstance(pair.small, FactorizedLayer):
        return None
    with torch.no_grad():
        fold = pair.small.factorized.fold
        matrices = [_unfolding(weights_of(module)["weight"], fold) for module in (pair.dense, pair.small)]
        if min(matrices[0].shape) > SPECTRUM_LIMIT:
            return None
        dense, small = (_singular_values(matrix) for matrix in matrices)
    largest = float(dense[0])
    if largest == 0:
        return None
    rank = int((small > ZERO * small[0]).sum())
    size = len(dense)
    numbers = sorted({round(k * (size - 1) / max(1, min(size, SPECTRUM_POINTS) - 1)) for k in range(min(size, SPECTRUM_POINTS))})
    energy = float(dense[:rank].square().sum() / dense.square().sum())
    values = [tuple(float(f"{float(s[k]) / largest:.4g}") for k in numbers) for s in (dense, small)]
    return Spectrum(pair.name or "(the model itself)", size, rank, energy, tuple(k + 1 for k in numbers), values[0], values[1])


def _unfolding(weight: Tensor, fold: Fold) -> Tensor:
    """The weight as a matrix: output features by everything else."""
    return weight.movedim(fold.axes.index(fold.axis("o")), 0).flatten(1)


def _singular_values(matrix: Tensor) -> Tensor:
    """Singular values in decreasing order, from the smaller Gram matrix: 3 to 100 times faster than an SVD of a wide matrix."""
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    values: Any = torch.linalg.eigvalsh(matrix @ matrix.T)
    return values.flip(0).clamp_min(0).sqrt()


def other_parameters(totals: tuple[int, int], rows: Sequence[LayerRow]) -> tuple[int, int]:
    """Parameters outside of the rows, before and after: biases, normalisation and the like, so that all adds up."""
    return totals[0] - sum(row.params_before for row in rows), totals[1] - sum(row.params_after for row in rows)
