"""search: the smallest model whose validated loss of accuracy, after fine-tuning, stays inside what is allowed.

Candidates, their errors and effects are computed once; every fraction of the cost then has its plan, by one multiplier. The smallest
fraction that stays inside is found by bisection. What bisection costs is fine-tuning, so a cheap proxy chooses where to look: the
accuracy right after decomposition, with BatchNorm corrected. Fine-tuning wins back about the same part of the loss everywhere; the
part that it won back so far says how large the one-shot loss may be, and the next trial is the smallest fraction with that loss.
That the loss grows as the fraction falls is an assumption, true but for noise.

A choice among trials by validation data makes the best of them look a little better than it is: state final numbers on test data.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tenfold.budget import Budget, as_budget
from tenfold.calibrate import rereadable
from tenfold.compress import compress
from tenfold.finetune import finetune as train
from tenfold.identity import data_identity, model_identity, option_identity
from tenfold.messages import check_kind
from tenfold.plan import Latency, example_of, offers_for
from tenfold.plan_data import Plan
from tenfold.progress import Progress, silent
from tenfold.ranks.bisection import Bisection, Tune
from tenfold.ranks.held_out import check_apart
from tenfold.ranks.offers import Offers
from tenfold.ranks.trials import SearchResult, TrialFile
from tenfold.selection import Filter, Formats
from tenfold.wrappers import unwrapped


def search(
    model: nn.Module,
    budget: Budget | dict[str, Any] | str,
    *,
    validation: Any = None,
    data: Any = None,
    finetune: Mapping[str, Any] | Tune | None = None,
    calibration: Any = None,
    format: Formats = "auto",
    inputs: Any = None,
    filter: Filter = None,
    latency: Latency = "auto",
    sequential: bool = False,
    folder: str | Path | None = None,
    resolution: float = 0.02,
    tunings: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> SearchResult:
    """The smallest plan and model within a loss of accuracy, and all trials; the model given is only read.

    Args:
        budget: `Budget(accuracy_drop=0.5)`: points of top-1 on `validation`; FLOP are made small, or what its `smallest` says. Fractions
            beside it are upper limits.
        validation: labelled data that neither `data` nor the training of the model has seen; never the test data. Half a point is 10 of
            2,000 samples: give thousands. What can be seen of samples shared with `data` is an error (`held_out.check_apart`).
            Where the dense model was trained on them it looks better there than it is, and losses larger: the choice is then cautious.
        data: training data; without them (and without a function as `finetune`) nothing is fine-tuned.
        finetune: arguments of `tenfold.finetune`, e.g. {"epochs": 3}; the dense model is the teacher where they name none. Or a function
            (model, checkpoint file or None, progress) that trains a model in place.
        calibration, format, inputs, filter, latency: as in `tenfold.plan`; "auto" never uses what is slower than dense, unless all is.
        sequential: as in `tenfold.compress`.
        folder: keeps trials, the best model and the checkpoint of the trial in progress. The same call with the same folder goes on where
            the last one stopped, even if that was killed.
        resolution: steps of the fraction that is searched, 0.001..0.5.
        tunings: at most so many trials, at least 1, are fine-tuned (evaluated, where there is no fine-tuning).

    Raises:
        ValueError: the budget has no accuracy_drop, there are no validation data, they share samples with the training data or have no
            classes, `finetune` has arguments and there are no `data`, `resolution` is outside of 0.001..0.5, `tunings` is below 1, the
            folder is that of another search, or no plan at all makes the model smaller (the message names the smallest).
    """
    model = unwrapped(model)
    goal = as_budget(budget)
    _check(goal, validation, data, finetune, resolution, tunings)
    calibration = rereadable(calibration)
    inputs = example_of(inputs, calibration)
    tune = _tuning(finetune, data, model, seed)
    settings = {
        "model": model_identity(model),
        "budget": str(goal),
        "format": str(format),
        "inputs": str([tuple(one.shape) if isinstance(one, Tensor) else option_identity(one) for one in tree_leaves(inputs)]),
        "filter": option_identity(filter),
        "latency": latency,
        "sequential": str(sequential),
        "finetune": option_identity(finetune if callable(finetune) else dict(finetune or {})),
        "data": data_identity(data),
        "validation": data_identity(validation),
        "calibration": data_identity(calibration),
        "resolution": str(resolution),
        "seed": str(seed),
    }
    file = TrialFile(None if folder is None else Path(folder), settings)
    show = progress or silent

    def find() -> Offers:
        asked = {"inputs": inputs, "filter": filter, "calibration": calibration, "latency": latency, "seed": seed}
        return offers_for(model, format, goal=goal, progress=show, **asked)

    def make(plan: Plan, told: Progress) -> nn.Module:
        return compress(model, plan, calibration=calibration, sequential=sequential, seed=seed, progress=told)

    return Bisection(model, goal, validation, make, tune, inputs, latency, file, 1 / resolution, tunings, show, find).run()


def _check(goal: Budget, validation: Any, data: Any, finetune: Any, resolution: float, tunings: int) -> None:
    """Raises ValueError where a search cannot be made."""
    if goal.accuracy_drop is None:
        raise ValueError(
            f"the budget {goal} has no accuracy_drop; a search needs the points that may be lost: give Budget(accuracy_drop=0.5), "
            "or use tenfold.plan for fractions alone"
        )
    if validation is None:
        raise ValueError(
            f"the budget {goal} comes without validation data; a loss of accuracy has to be measured: give validation=, "
            "a part of the training data that is held out"
        )
    if not 0.001 <= resolution <= 0.5 or tunings < 1:
        raise ValueError(f"resolution is {resolution} and tunings {tunings}; 0.001 to 0.5 and at least 1 are needed: correct them")
    check_kind("finetune", finetune, Mapping | Callable | None, "arguments of tenfold.finetune are needed: give a dict like {'epochs': 3}")
    if finetune is not None and not callable(finetune) and data is None:
        raise ValueError("finetune= comes without data=; training data are needed to fine-tune: give data=, or leave finetune= out")
    if data is not None:
        check_apart(data, validation)


def _tuning(finetune: Mapping[str, Any] | Tune | None, data: Any, teacher: nn.Module, seed: int) -> Tune | None:
    """What fine-tunes a model; None where nothing does."""
    if callable(finetune):
        return finetune
    if data is None:
        return None
    options = {"teacher": teacher, "seed": seed, **dict(finetune or {})}
    return lambda small, checkpoint, show: train(small, data, checkpoint=checkpoint, progress=show, **options)
