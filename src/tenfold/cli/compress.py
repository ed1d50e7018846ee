"""tenfold compress: the main command, from a dense model to a compressed one with its report. `Job` is also the demo's."""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from torch import nn

import tenfold
from tenfold.cli.arguments import Calibration, Common, Data, Model, Planning, Training, Weights
from tenfold.cli.console import Outcome, Steps
from tenfold.cli.output import check_space, writable_folder
from tenfold.cli.result import result_data, result_tables
from tenfold.evaluate import Evaluation, evaluate
from tenfold.identity import model_identity
from tenfold.plan import Latency, Plan
from tenfold.ranks.held_out import hold_out
from tenfold.ranks.trials import remove_search
from tenfold.recipes.finished_runs import read_kept, write_kept
from tenfold.report import Report
from tenfold.sizes import n_bytes

CHECKPOINT, PLAN = "finetune.ckpt", "finetune.plan"
SEARCH = "search"


def compress(
    model: Model,
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder for model.safetensors, plan.toml, report.html and report.json.")],
    plan: Annotated[
        Path | None, Parameter(help="A plan from `tenfold plan --out`, perhaps edited, instead of --budget and --format.")
    ] = None,
    finetune: Annotated[str | None, Parameter(help="Training data for fine-tuning, in the forms of --data.")] = None,
    validation: Annotated[
        str | None,
        Parameter(
            help="For --budget accuracy_drop=..: data that were not trained on, in the forms of --data, or how much of --finetune "
            "to hold out, as 0.1."
        ),
    ] = None,
    sequential: Annotated[
        bool, Parameter(negative="", show_default=False, help="Calibrate layers one after another, on what the compressed ones give.")
    ] = False,
    weights: Weights = Weights(),
    data: Data = Data(),
    calibration: Calibration = None,
    planning: Planning = Planning(),
    training: Training = Training(),
    common: Common = Common(),
) -> Outcome:
    r"""Compress a model: plan, decompose, fine-tune, measure, report.

    Fine-tuning keeps a checkpoint in --out, and so does a search: after an interruption the same command goes on from there.

    **Example**

        tenfold compress networks.py:resnet20 --weights resnet20.safetensors \
          --data loaders.py:test --calibration loaders.py:train --budget flops=0.5 \
          --finetune loaders.py:train --epochs 5 --out small

        tenfold compress networks.py:resnet20 --weights resnet20.safetensors \
          --data loaders.py:test --calibration loaders.py:train --budget accuracy_drop=0.5 \
          --finetune loaders.py:train --validation 0.1 --epochs 5 --out small
    """
    common.apply()
    given = _given_plan(plan, planning)
    check_training(training, finetune)
    training.check(has_teacher=True)
    check_validation(validation, planning, finetune, data.data)
    with writable_folder(out), Steps() as steps:
        steps("reading model and data", 0, 1)
        network = weights.load(model, common.seed)
        check_space(out, n_bytes(network))
        inputs = data.inputs(network, calibration, planning.latency_batch)
        test, train = data.test(network), data.read(finetune)
        job = Job(network, out, test, data.read(calibration), inputs, common.seed, steps, sequential)
        train, held = held_data(validation, train, data, common.seed)
        steps("reading model and data", 1, 1)
        command = f"tenfold {shlex.join(sys.argv[1:])}"
        if held is not None:
            return job.search(planning, train, held, training, command)
        asked = (planning.format, planning.budget, planning.layers(network), planning.latency)
        if train is None or given is not None:
            made = given or job.plan(*asked)
        else:
            question = repr((model_identity(network), planning, data, calibration, common.seed))
            made = kept_plan(out / PLAN, question, lambda: job.plan(*asked))
        return job.run(made, train, training, command)


def _given_plan(plan: Path | None, planning: Planning) -> Plan | None:
    """The plan of --plan; None where one is to be made.

    Raises:
        ValueError: there is both or neither, or the file is no plan.
    """
    if plan is not None:
        if planning != Planning():
            raise ValueError(
                f"--plan {plan} comes with --budget, --format, --filter, --skip, --latency or --latency-batch; the plan says it all: "
                "leave them or --plan out"
            )
        return read_plan(plan)
    if planning.budget is None and "rank" not in planning.format:
        raise ValueError("there is neither --budget nor --plan nor a rank in --format; one is needed: add for instance --budget flops=0.5")
    return None


def kept_plan(file: Path, question: str, make: Callable[[], Plan]) -> Plan:
    """The plan that a fine-tuning was begun with, where the same was asked; a new one might differ, as times do."""
    key = {"question": question}
    if (kept := read_kept(file, key)) is not None:
        return Plan.parse(kept["plan"])
    plan = make()
    write_kept(file, key, {"plan": plan.to_text()})
    return plan


def check_training(training: Training, finetune: str | None) -> None:
    """Raises ValueError where options of fine-tuning come without its data: nothing would be trained."""
    given = {
        one.name.replace("_", "-"): getattr(training, one.name) for one in fields(training) if getattr(training, one.name) != one.default
    }
    changed = [f"--{'no-' if value is False else ''}{name}" for name, value in given.items()]
    if changed and finetune is None:
        raise ValueError(
            f"{', '.join(changed)} came without --finetune; training data are needed to fine-tune: add --finetune, or leave the rest out"
        )


def check_validation(validation: str | None, planning: Planning, finetune: str | None, test: str | None) -> None:
    """Raises ValueError where a budget of accuracy and the data that it is validated on do not fit."""
    drop = planning.accuracy_drop
    if drop is None:
        if validation is not None:
            raise ValueError(
                f"--validation {validation} comes without --budget accuracy_drop=..; only that is validated while it is searched: "
                "leave it out, or give such a budget"
            )
        return
    if validation is None:
        raise ValueError(
            f"--budget {planning.budget} comes without --validation; a loss of accuracy has to be measured on data that were not trained "
            "on: add --validation 0.1 to hold out a tenth of --finetune, or name data"
        )
    if validation == test:
        raise ValueError(
            f"--validation and --data are both {test}; the accuracy on --data would be that of a choice made by it: hold out a part of the "
            "training data with --validation 0.1"
        )
    if _fraction(validation) is not None and finetune is None:
        raise ValueError(
            f"--validation {validation} holds out a part of --finetune, which is not given; one of them must name data: add --finetune"
        )


def held_data(validation: str | None, train: Any, data: Data, seed: int) -> tuple[Any, Any]:
    """Training data and validation data, None where there are none."""
    if validation is None:
        return train, None
    fraction = _fraction(validation)
    return (train, data.read(validation)) if fraction is None else hold_out(train, fraction, seed=seed)


def _fraction(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_plan(path: Path) -> Plan:
    """The plan of a file.

    Raises:
        ValueError: there is no such file, or it is no plan.
    """
    if not path.is_file():
        raise ValueError(f"--plan {path} does not exist; a plan written by tenfold plan --out is needed: check the path")
    return Plan.load(path)


@dataclass
class Job:
    """One compression with everything that it needs."""

    model: nn.Module
    out: Path
    test: Any
    calibration: Any
    inputs: Any
    seed: int
    steps: Steps
    sequential: bool = False
    start: float = field(default_factory=time.monotonic)

    def plan(self, format: str, budget: str | None, filter: Any, latency: Latency = "auto") -> Plan:
        """A plan for the model."""
        return tenfold.plan(
            self.model,
            format,
            budget=budget,
            inputs=self.inputs,
            filter=filter,
            calibration=self.calibration,
            latency=latency,
            seed=self.seed,
            progress=self.steps.named("plan"),
        )

    def search(self, planning: Planning, train: Any, held: Any, training: Training, command: str) -> Outcome:
        """Searches the smallest model within a loss of accuracy, writes the files of the output folder and says what came of it."""
        assert planning.budget is not None
        found = tenfold.search(
            self.model,
            planning.budget,
            validation=held,
            data=train,
            finetune=training.options(self.model, self.seed) if train is not None else None,
            calibration=self.calibration,
            format=planning.format,
            inputs=self.inputs,
            filter=planning.layers(self.model),
            latency=planning.latency,
            sequential=self.sequential,
            folder=self.out / SEARCH,
            seed=self.seed,
            progress=self.steps.named("search"),
        )
        files = self._write(found.model, found.plan)
        report = self._report(found.model, found.plan, found.history, None, command)
        remove_search(self.out / SEARCH)
        trials = [{name: value for name, value in asdict(one).items() if name != "plan"} for one in found.trials]
        data = result_data(report, files, time.monotonic() - self.start) | {"search": {"verdict": found.verdict, "trials": trials}}
        return Outcome(data, (str(found), *result_tables(report), f"written to {self.out}: {', '.join(files)}"))

    def run(self, plan: Plan, train: Any, training: Training, command: str) -> Outcome:
        """Carries the plan out, writes the files of the output folder and says what came of it."""
        small = tenfold.compress(
            self.model,
            plan,
            calibration=self.calibration,
            sequential=self.sequential,
            progress=self.steps.named("compress"),
        )
        before, history = None, None
        if train is not None:
            if self.test is not None:
                before = evaluate(small, self.test, progress=self.steps.named("before fine-tuning"))
            history = training.run(small, train, self.model, self.out / CHECKPOINT, self.seed, self.steps.named(""))
        files = self._write(small, plan)
        report = self._report(small, plan, history, before, command)
        for name in (CHECKPOINT, PLAN):
            (self.out / name).unlink(missing_ok=True)
        seconds = time.monotonic() - self.start
        return Outcome(result_data(report, files, seconds), (*result_tables(report), f"written to {self.out}: {', '.join(files)}"))

    def _write(self, small: nn.Module, plan: Plan) -> dict[str, Path]:
        """Writes model and plan; returns all files of the output folder by name."""
        files = {name: self.out / name for name in ("model.safetensors", "plan.toml", "report.html", "report.json")}
        tenfold.save(small, files["model.safetensors"], plan=plan)
        plan.save(files["plan.toml"])
        return files

    def _report(self, small: nn.Module, plan: Plan, history: Any, before: Evaluation | None, command: str) -> Report:
        return tenfold.report(
            self.model,
            small,
            self.out,
            plan=plan,
            data=self.test,
            inputs=None if self.test is not None else self.inputs,
            history=history,
            command=command,
            seed=self.seed,
            before=before,
            progress=self.steps.named("report"),
        )
