"""tenfold compress: the main command, from a dense model to a compressed one with its report. `Job` is also the demo's."""

import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from torch import nn

import tenfold
from tenfold.cli.arguments import Common, Data, Model, Planning, Training, Weights
from tenfold.cli.console import Outcome, Steps
from tenfold.cli.output import check_space, writable_folder
from tenfold.cli.result import result_data, result_tables
from tenfold.evaluate import Evaluation, evaluate
from tenfold.plan import Plan
from tenfold.report import Report
from tenfold.survey import n_bytes

CHECKPOINT = "finetune.ckpt"


def compress(
    model: Model,
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder for model.safetensors, plan.toml, report.html and report.json.")],
    plan: Annotated[
        Path | None, Parameter(help="A plan from `tenfold plan --out`, perhaps edited, instead of --budget and --format.")
    ] = None,
    finetune: Annotated[str | None, Parameter(help="Training data for fine-tuning, in the forms of --data.")] = None,
    weights: Weights = Weights(),
    data: Data = Data(),
    planning: Planning = Planning(),
    training: Training = Training(),
    common: Common = Common(),
) -> Outcome:
    r"""Compress a model: plan, decompose, fine-tune, measure, report.

    Fine-tuning keeps a checkpoint in --out: after an interruption the same command goes on from there.

    **Example**

        tenfold compress networks.py:resnet20 --weights resnet20.safetensors \
          --data loaders.py:test --calibration loaders.py:train --budget flops=0.5 \
          --finetune loaders.py:train --epochs 5 --out small
    """
    common.apply()
    given = _given_plan(plan, planning)
    with writable_folder(out), Steps() as steps:
        steps("reading model and data", 0, 1)
        network = weights.load(model, common.seed)
        check_space(out, n_bytes(network))
        inputs, test, train = data.inputs(network), data.test(network), data.read(finetune)
        job = Job(network, out, test, data.read(data.calibration), inputs, common.seed, steps)
        steps("reading model and data", 1, 1)
        made = given or job.plan(planning.format, planning.budget, planning.layers(network))
        return job.run(made, train, training, f"tenfold {shlex.join(sys.argv[1:])}")


def _given_plan(plan: Path | None, planning: Planning) -> Plan | None:
    """The plan of --plan; None where one is to be made.

    Raises:
        ValueError: there is both or neither, or the file is no plan.
    """
    if plan is not None:
        if planning != Planning():
            raise ValueError(
                f"--plan {plan} comes with --budget, --format, --filter or --skip; the plan says it all: leave them or --plan out"
            )
        return read_plan(plan)
    if planning.budget is None and "rank" not in planning.format:
        raise ValueError("there is neither --budget nor --plan nor a rank in --format; one is needed: add for instance --budget flops=0.5")
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
    start: float = field(default_factory=time.monotonic)

    def plan(self, format: str, budget: str | None, filter: Any) -> Plan:
        """A plan for the model."""
        return tenfold.plan(
            self.model,
            format,
            budget=budget,
            inputs=self.inputs,
            filter=filter,
            calibration=self.calibration,
            seed=self.seed,
            progress=self.steps.named("plan"),
        )

    def run(self, plan: Plan, train: Any, training: Training, command: str) -> Outcome:
        """Carries the plan out, writes the files of the output folder and says what came of it."""
        small = tenfold.compress(self.model, plan, calibration=self.calibration, seed=self.seed, progress=self.steps.named("compress"))
        before, history = None, None
        if train is not None:
            if self.test is not None:
                before = evaluate(small, self.test, progress=self.steps.named("before fine-tuning"))
            history = training.run(small, train, self.model, self.out / CHECKPOINT, self.seed, self.steps.named(""))
        files = {name: self.out / name for name in ("model.safetensors", "plan.toml", "report.html", "report.json")}
        tenfold.save(small, files["model.safetensors"], plan=plan)
        plan.save(files["plan.toml"])
        report = self._report(small, plan, history, before, command)
        (self.out / CHECKPOINT).unlink(missing_ok=True)
        seconds = time.monotonic() - self.start
        return Outcome(result_data(report, files, seconds), (*result_tables(report), f"written to {self.out}: {', '.join(files)}"))

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
