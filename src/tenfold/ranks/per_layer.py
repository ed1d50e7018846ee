"""per_layer: for every layer by itself the smallest rank whose loss of accuracy stays inside a threshold, by binary search.

The search of the stable-CP paper: one layer at a time is replaced, fine-tuned a little where steps are given, validated and put back; all
layers then get the ranks that were found for them alone. The losses of layers add up, and no layer knows what another one costs: this is
a baseline for `tenfold.plan` and `tenfold.search`, which spend one budget over all layers.

Source: Phan et al. 2020, arXiv 2008.05441, the section on ranks; its thresholds and its steps for each probe are not confirmed, so there
are no defaults for them.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tenfold.batches import batches
from tenfold.calibrate import calibration_batch, rereadable
from tenfold.compress import compress, stayed_dense
from tenfold.evaluate import evaluate
from tenfold.finetune import finetune
from tenfold.format import Format
from tenfold.identity import data_identity, model_identity, option_identity
from tenfold.learner import TRAINING
from tenfold.plan import example_of, explicit_plan
from tenfold.plan_data import LayerPlan, Plan
from tenfold.progress import Progress, silent
from tenfold.ranks.candidates import Candidate, shapes_of
from tenfold.ranks.held_out import check_apart
from tenfold.ranks.offers import UNSOLVED, plan_of_rows, row_of
from tenfold.ranks.trials import TrialFile
from tenfold.recurrent.opened import opened_view
from tenfold.selection import Choice, Filter, select
from tenfold.sequential import call_order
from tenfold.survey import Found, survey
from tenfold.trace import Trace, trace
from tenfold.wrappers import unwrapped

FILE = "per_layer.json"
BATCH_SIZE = 128


def per_layer(
    model: nn.Module,
    format: Format,
    *,
    max_drop: float,
    validation: Any = None,
    data: Any = None,
    steps: int = 0,
    lr: float | None = None,
    calibration: Any = None,
    inputs: Any = None,
    filter: Filter = None,
    folder: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """The plan with every layer's own smallest rank; a layer that no rank serves stays dense, with the reason.

    Args:
        format: without a rank; of several rank indices the same fraction of the largest useful value is tried for each.
        max_drop: points of top-1 accuracy that replacing one layer may lose.
        validation: labelled data that were not trained on.
        data, steps, lr: training data, and how many steps the layer that is replaced is fine-tuned for in every probe, alone; 0: not.
        calibration: as in `tenfold.compress`.
        inputs: an example, to count FLOP; left out, of the calibration data.
        folder: keeps the probes in a file, from which the same call goes on after it was stopped.

    Raises:
        ValueError: max_drop is below 0, there are no validation data or classes, steps come without data, the format has a rank, or the
            folder is that of another search.
    """
    model = unwrapped(model)
    _check(format, max_drop, validation, data, steps)
    calibration = rereadable(calibration)
    inputs = example_of(inputs, calibration)
    view = opened_view(model)
    found = survey(view)
    chosen, reasons = select(found, format, filter)
    layers = [one for one in found if one.name in chosen]
    if calibration is not None:
        called = set(call_order(view, layers, calibration_batch(calibration)))
        reasons = reasons | {one.name: "the calibration data never reach it" for one in layers if one.name not in called}
    seen = trace(view, inputs, layers) if inputs is not None else None
    settings = {
        "model": model_identity(model), "format": repr(format), "filter": option_identity(filter), "max_drop": str(float(max_drop)),
        "validation": data_identity(validation), "data": data_identity(data), "calibration": data_identity(calibration),
        "steps": str(steps), "lr": str(lr), "seed": str(seed),
    }  # fmt: skip
    file = TrialFile(None if folder is None else Path(folder), settings, FILE)
    probe = _Probe(model, max_drop, validation, data, steps, lr, calibration, seed, file, progress or silent)
    rows = []
    for number, one in enumerate(found):
        probe.progress("searching ranks", number, len(found))
        rows.append(_row(one, chosen, reasons, seen, probe))
    probe.progress("searching ranks", len(found), len(found))
    return plan_of_rows(model, rows, None, seen, "output" if calibration is not None else "weight", seed)


def _row(one: Found, chosen: Mapping[str, Sequence[Choice]], reasons: Mapping[str, str], seen: Trace | None, probe: "_Probe") -> LayerPlan:
    if one.name in reasons:
        return row_of(one, None, reasons[one.name], seen)
    offers = _candidates(one, chosen[one.name][0], seen)
    best = probe.smallest(one, offers)
    if best is None:
        why = f"no rank loses at most {probe.max_drop:g} points by itself" if offers else "no rank makes it smaller or cheaper"
        return row_of(one, None, UNSOLVED if math.inf in probe.drops.get(one.name, {}).values() else why, seen)
    return replace(row_of(one, best, "", seen), error=None)


def _check(format: Format, max_drop: float, validation: Any, data: Any, steps: int) -> None:
    """Raises ValueError where a search cannot be made."""
    if not 0 <= max_drop < 100:
        raise ValueError(f"max_drop is {max_drop}; points of top-1 accuracy, at least 0 and below 100, are needed: give for instance 0.3")
    if validation is None:
        raise ValueError("per_layer has no validation data; a loss of accuracy has to be measured: give validation=, not trained on")
    if steps < 0 or (steps and data is None):
        given = "no data" if data is None else "data"
        raise ValueError(
            f"steps is {steps} with {given}; at least 0, and training data for more than 0, are needed: give data=, or steps=0"
        )
    if format.rank is not None:
        raise ValueError(f"the format {format!r} has a rank; per_layer finds the ranks: give it without, as {type(format).__name__}()")
    if data is not None:
        check_apart(data, validation)


def _candidates(one: Found, choice: Choice, seen: Trace | None) -> list[Candidate]:
    """What a layer may become, smallest first: one chain of ranks, so that a binary search makes sense."""
    fold = choice.fold(one)
    chain = set(Format.rank_choices(choice.format, fold))
    shapes = shapes_of(one, choice.format, seen.workload(one) if seen else None, fold)
    kept = [Candidate(f, network.numel, flops, 0.0, fold) for f, network, flops in shapes if choice.format.ranks_of(network) in chain]
    return sorted(kept, key=lambda candidate: candidate.params)


@dataclass
class _Probe:
    """What replacing one layer costs, asked for again and again."""

    model: nn.Module
    max_drop: float
    validation: Any
    data: Any
    steps: int
    lr: float | None
    calibration: Any
    seed: int
    file: TrialFile
    progress: Progress
    drops: dict[str, dict[str, float]] = field(default_factory=dict)  # points, by layer and format
    dense: float | None = None

    def __post_init__(self) -> None:
        if self.file.folder is not None:
            self.file.folder.mkdir(parents=True, exist_ok=True)
        if state := self.file.load():
            self.drops, self.dense = state["drops"], state["dense"]
            return
        self.dense = evaluate(self.model, self.validation).accuracy
        if self.dense is None:
            raise ValueError("the validation data have targets without classes; top-1 accuracy needs class numbers: give labelled classes")

    def smallest(self, one: Found, offers: Sequence[Candidate]) -> Candidate | None:
        """The first candidate that loses little enough, by binary search; None where even the last one loses more."""
        low, high = -1, len(offers)
        while high - low > 1:
            # the largest is tried first: many layers stay dense, and one probe tells
            middle = len(offers) - 1 if high == len(offers) else (low + high) // 2
            if self.drop(one, offers[middle]) <= self.max_drop + 1e-9:
                high = middle
            elif middle == len(offers) - 1:
                return None
            else:
                low = middle
        return offers[high] if offers else None

    def drop(self, one: Found, candidate: Candidate) -> float:
        """Points lost by the model with one layer replaced; infinite where it cannot be decomposed."""
        assert candidate.format is not None and self.dense is not None
        known = self.drops.setdefault(one.name, {})
        key = repr(candidate.format)
        if key not in known:
            plan = explicit_plan(self.model, {one.name: candidate.format}, seed=self.seed)
            small = compress(self.model, plan, calibration=self.calibration, seed=self.seed)
            if stayed_dense(small, plan):
                known[key] = math.inf
            else:
                if self.steps:
                    self._tune(small, one.name)
                known[key] = 100 * (self.dense - (evaluate(small, self.validation).accuracy or 0.0))
            self.file.save({"dense": self.dense, "drops": self.drops})
        return known[key]

    def _tune(self, small: nn.Module, name: str) -> None:
        """Fine-tunes the layer alone for so many steps."""
        for parameter in small.parameters():
            parameter.requires_grad_(False)
        layer = next(found.module for found in survey(opened_view(small)) if name in found.names)
        for parameter in layer.parameters():
            parameter.requires_grad_(True)
        order = torch.Generator().manual_seed(self.seed)
        passes = itertools.chain.from_iterable(
            batches(self.data, BATCH_SIZE, shuffle=True, generator=order, drop_last=True, what=TRAINING) for _ in itertools.count()
        )
        finetune(small, list(itertools.islice(passes, self.steps)), teacher=self.model, lr=self.lr, seed=self.seed)
