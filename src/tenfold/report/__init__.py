"""report: both models (+ inputs, test data) -> the numbers and the pictures of a run, as an HTML page and as JSON.

costs.py counts and times both models and their layers, pairs.py finds what belongs together, layers.py compares it, environment.py notes
where and when. data.py is the result as data, wording.py says it in sentences, figures.py chooses what pictures.py draws; table.py,
style.py and page.py set the page.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tenfold.batches import batches
from tenfold.evaluate import EVALUATION, Evaluation, evaluate
from tenfold.files import write_text
from tenfold.finetune import FinetuneHistory
from tenfold.flops import read_by_fused_kernel
from tenfold.loss import Loss
from tenfold.messages import PLAN, check_kind
from tenfold.plan import Plan
from tenfold.progress import Progress, silent
from tenfold.recurrent.opened import opened_view
from tenfold.report.costs import Costs, measure_costs
from tenfold.report.data import Curve
from tenfold.report.data import Report as Report
from tenfold.report.environment import environment
from tenfold.report.layers import LayerRow as LayerRow
from tenfold.report.layers import Spectrum, other_parameters, row_of, spectrum_of
from tenfold.report.page import page
from tenfold.report.pairs import Pair, pair_layers
from tenfold.running import EXAMPLES
from tenfold.sizes import size_of
from tenfold.wrappers import unwrapped


def report(
    model: nn.Module,
    small: nn.Module,
    out_dir: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    data: Any = None,
    inputs: Any = None,
    history: FinetuneHistory | None = None,
    command: str | None = None,
    seed: int = 0,
    before: Evaluation | None = None,
    loss: Loss | None = None,
    latency: bool = True,
    progress: Progress | None = None,
) -> Report:
    """The report of a compression; writes report.json and report.html into `out_dir`. Both models are only read.

    Args:
        model, small: the dense model and its compressed version, on the same device.
        plan: what `small` was made from: gives formats, reasons and predicted errors.
        data: labelled data, see `batches`: accuracy of both models and how often they agree.
        inputs: an example for the models: a tensor, a tuple of arguments or a mapping of keyword arguments; left out, the first batch of
            `data`. FLOP and times are taken on its first sample and on up to 32 of its samples.
        history: what `finetune` returned.
        command: the command line that led here.
        before: an evaluation of `small` before fine-tuning.
        loss: loss(output, targets), to evaluate `data` with, as in `finetune`.
        latency: measure times, which takes some seconds for each model.

    Raises:
        ValueError: the models do not belong together, are on different devices, or the data are empty.
        TypeError: one of them is no module.
        OSError: the folder cannot be made or written; nothing half-written is left.
    """
    progress = progress or silent
    model, small = _checked(model, small)
    check_kind("plan", plan, Plan | None, PLAN)
    check_kind("history", history, FinetuneHistory | None, "a FinetuneHistory is needed: give what tenfold.finetune returned")
    check_kind("before", before, Evaluation | None, "an Evaluation is needed: give what tenfold.evaluate returned")
    folder = _folder(out_dir)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if isinstance(data, Iterator):
        data = list(data)  # it is read more than once
    if inputs is None and data is not None:
        inputs = next(batches(data, EXAMPLES, what=EVALUATION))[0]
    views = opened_view(model), opened_view(small)  # layer by layer, the maps of recurrent layers count one by one
    pairs = pair_layers(*views)
    sizes = size_of(model), size_of(small)
    costs = None if inputs is None else measure_costs(model, small, views, pairs, inputs, device, latency, progress)
    rows, spectra = _layers(pairs, plan, costs, progress)
    other = other_parameters((sizes[0].parameters, sizes[1].parameters), rows)
    dense, compressed = None, None
    if data is not None:
        dense = evaluate(model, data, loss=loss, progress=progress)
        compressed = evaluate(small, data, reference=model, loss=loss, progress=progress)
    made = Report(
        model=type(model).__name__,
        size_before=sizes[0], size_after=sizes[1],
        flops_before=costs.flops_before if costs else None, flops_after=costs.flops_after if costs else None,
        flops_batch=costs.batch if costs else None,
        flops_planned=_planned_flops(plan),
        races=costs.races if costs else (),
        dense=dense, small=compressed, uncorrected=before,
        layers=rows, other_before=other[0], other_after=other[1], spectra=spectra,
        plan=plan.to_text() if plan else None, metric=plan.metric if plan else None,
        history=None if history is None else Curve.of(history),
        environment=environment(model, device), seed=seed, command=command,
        fused=tuple(name for name in read_by_fused_kernel(small) if any(row.name == name and row.format for row in rows)),
    )  # fmt: skip
    write_text(folder / "report.json", made.to_json())
    write_text(folder / "report.html", page(made))
    return made


def _layers(
    pairs: list[Pair], plan: Plan | None, costs: Costs | None, progress: Progress
) -> tuple[tuple[LayerRow, ...], tuple[Spectrum, ...]]:
    """The row of every layer, and the spectra of those that were compressed."""
    rows, spectra = [], []
    planned = None if plan is None else {one.name: one for one in plan.layers}
    for number, pair in enumerate(pairs):
        progress("comparing weights", number, len(pairs))
        rows.append(row_of(pair, planned, costs))
        if (spectrum := spectrum_of(pair)) is not None:
            spectra.append(spectrum)
    progress("comparing weights", len(pairs), len(pairs))
    return tuple(rows), tuple(spectra)


def _planned_flops(plan: Plan | None) -> tuple[int, int] | None:
    if plan is None or plan.flops_before is None or plan.flops_after is None:
        return None
    return plan.flops_before, plan.flops_after


def _checked(model: Any, small: Any) -> tuple[nn.Module, nn.Module]:
    """Both modules without the wrappers of torch.compile."""
    for name, value in (("model", model), ("small", small)):
        check_kind(name, value, nn.Module, "the report needs two torch modules: give the dense model, then the compressed one")
        if lazy := [key for key, parameter in value.named_parameters() if is_lazy(parameter)]:
            raise ValueError(
                f"{name} has the parameter {lazy[0]!r} without a shape yet; the report needs values: run the model once on an example"
            )
    model, small = unwrapped(model), unwrapped(small)
    devices = [{p.device for p in one.parameters()} for one in (model, small)]
    if devices[0] != devices[1]:
        names = [", ".join(sorted(map(str, one))) or "no device" for one in devices]
        raise ValueError(
            f"the dense model is on {names[0]} and the compressed one on {names[1]}; times compare on one device only: move one of them"
        )
    return model, small


def _folder(out_dir: str | os.PathLike[str]) -> Path:
    """The folder, made where it is not there; asked for before anything is measured, for that takes a while."""
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"the report cannot use {folder} ({error.strerror}); a folder that can be written is needed: choose another out_dir"
        raise OSError(error.errno, text) from error
    return folder
