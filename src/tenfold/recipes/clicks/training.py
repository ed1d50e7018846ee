"""Training on click data: one stream of batches, ranks found on the way, in steps and not in epochs, because such data are seen once.

Parts of the steps: no prior (a tenth), the prior grows (to a half), the learning rate decays to 1 % (from a half to nine tenths), ranks
are decided and factors made smaller, and the rest goes on without the prior at a tenth of the rate. Networks without ranks to find have
the same rates. A run that was killed goes on from its checkpoint with the same numbers.
"""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer, SparseAdam

from tenfold import bayes
from tenfold.bayes.report import Decision
from tenfold.bayes.surgery import resize
from tenfold.progress import Progress, silent
from tenfold.recipes.clicks.metrics import ClickScores, click_scores
from tenfold.recipes.clicks.model import DLRM
from tenfold.recipes.run_checkpoint import load_state, plain_decision, run_settings, save_state, saved_decision

START, FULL, DECIDED = 0.1, 0.5, 0.9  # parts of the steps: the prior starts, has grown and the rate decays, ranks are decided
LEAST_STEPS = 20  # in which ranks can be found
LOWEST, AFTER, WARM = 0.01, 0.1, 20  # of the highest rate: at the decision, after it; steps of warm-up of a new optimiser


class ClickStream(Protocol):
    """Batches ((numbers, ids), labels) that can be read again, and from a state on: `tenfold.data.Clicks`, `SyntheticClicks`."""

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]: ...

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next pass go on there."""
        ...


@dataclass(frozen=True)
class ClickTraining:
    """How networks are trained on clicks.

    lr: the highest rate of all parameters but factors; factor_lr: of these.
    temperature: of the weight temperature / rows of the prior, whatever the number of epochs.
    tolerance: of the rounding that decides ranks.
    """

    batch_size: int = 512
    epochs: int = 1
    lr: float = 1e-3
    factor_lr: float = 5e-3
    temperature: float = 1.0
    tolerance: float = 0.01
    seed: int = 0

    def rate(self, step: int, n_steps: int) -> float:
        """The part of the highest rate at a step."""
        decided, half = int(DECIDED * n_steps), FULL * n_steps
        if step < half:
            return 1.0
        if step < decided:
            return LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * (step - half + 1) / (decided - half))) / 2
        return AFTER * min(1.0, (step - decided + 1) / WARM) * (1 - 0.9 * (step - decided) / max(1, n_steps - decided))


@dataclass
class ClickRun:
    """What a run did.

    seconds: in steps. decision: of ranks, where they were to be found. training_bytes: of values and the state of optimisers and
    posterior, where it was largest.
    """

    n_steps: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    decision: Decision | None = None
    report: str = ""
    training_bytes: int = 0


def train_clicks(
    model: DLRM,
    data: ClickStream,
    training: ClickTraining,
    n_rows: int,
    *,
    has_prior: bool = False,
    is_null: bool = False,
    checkpoint: str | Path | None = None,
    save_every: int = 1000,
    progress: Progress = silent,
    label: str = "clicks",
) -> ClickRun:
    """Trains a model in place.

    Args:
        n_rows: of one pass over the data.
        has_prior: finds the ranks of the factorised tables.
        is_null: the control: the prior alone acts on the factors, no data do; the rest of the model is not trained.
        checkpoint: a file to go on from, written every `save_every` steps and removed at the end.

    Raises:
        ValueError: the loss is not finite, the data cannot be read again, or `is_null` without `has_prior`.
    """
    if is_null and not has_prior:
        raise ValueError("train_clicks got is_null=True without has_prior=True; the null model is the prior without data: give both")
    trainer = _Trainer(model, data, training, n_rows, has_prior, is_null)
    return trainer.run(None if checkpoint is None else Path(checkpoint), save_every, progress, label)


def predict_scores(model: nn.Module, data: Any) -> ClickScores:
    """The scores of a model on all batches of some data, in eval."""
    was_training = model.training
    model.eval()
    logits, labels = [], []
    with torch.no_grad():
        for (numbers, ids), targets in data:
            logits.append(model(numbers, ids))
            labels.append(targets)
    model.train(was_training)
    return click_scores(torch.cat(logits), torch.cat(labels))


class _Trainer:
    """A run: its place in the steps, its optimisers, its posterior until ranks are decided."""

    def __init__(self, model: DLRM, data: ClickStream, training: ClickTraining, n_rows: int, has_prior: bool, is_null: bool) -> None:
        self.model, self.data, self.training, self.is_null = model.train(), data, training, is_null
        self.n_steps = training.epochs * math.ceil(n_rows / training.batch_size)
        if has_prior and self.n_steps < LEAST_STEPS:
            raise ValueError(
                f"{n_rows} rows in batches of {training.batch_size} are {self.n_steps} steps; at least {LEAST_STEPS} are needed to find "
                "ranks: take smaller batches or more epochs"
            )
        self.settings = run_settings(model, training, n_rows=n_rows, has_prior=has_prior, is_null=is_null)
        self.done = ClickRun()
        self.posterior: bayes.Posterior | None = None
        self.frequencies = bayes.IdFrequencies({f"tables.{number}": one.fold for number, one in model.factorized().items()})
        if has_prior:
            self.posterior = bayes.attach(
                model,
                n_examples=n_rows,
                temperature=training.temperature,
                warmup=(int(START * self.n_steps), int(FULL * self.n_steps)),
                seed=training.seed,
            )
        self.optimizers = self._optimizers()

    def run(self, checkpoint: Path | None, save_every: int, progress: Progress, label: str) -> ClickRun:
        """All steps, from the checkpoint on where there is one."""
        if checkpoint is not None and (state := load_state(checkpoint, self.settings)) is not None:
            self._restore(state)
        n_empty = 0  # passes in a row; that of a state at the end of a pass has nothing left
        while self.done.n_steps < self.n_steps:
            before = self.done.n_steps
            for (numbers, ids), labels in itertools.islice(self.data, self.n_steps - self.done.n_steps):
                began = time.perf_counter()
                self._step(numbers, ids, labels)
                self.done.seconds += time.perf_counter() - began
                if checkpoint is not None and self.done.n_steps % save_every == 0 and self.done.n_steps < self.n_steps:
                    save_state(checkpoint, self.settings, self._state())
                progress(label, self.done.n_steps, self.n_steps)
            n_empty = n_empty + 1 if self.done.n_steps == before else 0
            if n_empty > 1:
                raise ValueError(
                    f"the data gave no batch after {before} of {self.n_steps} steps; a stream that can be read again is needed: give one "
                    "like Clicks, and no iterator"
                )
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        return self.done

    def _step(self, numbers: Tensor, ids: Tensor, labels: Tensor) -> None:
        if self.done.n_steps == int(DECIDED * self.n_steps):
            self._decide()
        rate = self.training.rate(self.done.n_steps, self.n_steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
        self.done.n_steps += 1
        if self.posterior is not None:
            self.posterior.step()
        task = torch.zeros(()) if self.is_null else F.binary_cross_entropy_with_logits(self.model(numbers, ids), labels)
        loss = task if self.posterior is None else self.posterior.loss(task)
        if self.posterior is not None and not self.is_null:
            for number in self.model.factorized():
                self.frequencies.add(f"tables.{number}", ids[:, number])
        self.done.losses.append(float(task.detach()))
        if not math.isfinite(self.done.losses[-1]):
            raise ValueError(
                f"the loss is {self.done.losses[-1]} at step {self.done.n_steps}; a finite one is needed: lower the learning rate"
            )
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()

    def _decide(self) -> None:
        """Decides ranks, takes the prior out, and goes on with new optimisers of the factors."""
        self.done.training_bytes = max(self.done.training_bytes, self._bytes())
        if self.posterior is None:
            return
        self.done.report = str(self.posterior.report())
        self.done.decision = self.posterior.shrink(bayes.Rounding(self.training.tolerance, moments=self.frequencies.moments))
        self.posterior.finish()
        self.posterior = None
        self.optimizers[0] = self._optimizers()[0]

    def _optimizers(self) -> list[Optimizer]:
        """Adam for factors and for all dense parameters, SparseAdam for tables with sparse gradients; the posterior watches the first."""
        tables = [one for one in self.model.modules() if isinstance(one, nn.Embedding) and one.sparse]
        sparse = {id(table.weight) for table in tables}
        factors = {id(one) for weight in self.model.factorized().values() for one in weight.parameters()}
        rest = [one for one in self.model.parameters() if id(one) not in sparse and id(one) not in factors]
        groups = [{"params": rest, "lr": self.training.lr, "peak": self.training.lr}]
        if factors:
            mine = [one for one in self.model.parameters() if id(one) in factors]
            groups.append({"params": mine, "lr": self.training.factor_lr, "peak": self.training.factor_lr})
        made: list[Optimizer] = [Adam(groups)]
        if tables:
            made.append(SparseAdam([{"params": [t.weight for t in tables], "lr": self.training.lr, "peak": self.training.lr}]))
        if self.posterior is not None:
            self.posterior.watch(made[0])
        return made

    def _bytes(self) -> int:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        for optimizer in self.optimizers:
            tensors += [one for state in optimizer.state.values() for one in state.values() if isinstance(one, Tensor)]
        return sum(one.numel() * one.element_size() for one in tensors)

    def _state(self) -> dict[str, Any]:
        return {
            "run": {name: getattr(self.done, name) for name in ("n_steps", "seconds", "losses", "report", "training_bytes")},
            "decision": plain_decision(self.done.decision),
            "ranks": {number: dict(weight.network.ranks) for number, weight in self.model.factorized().items()},
            "model": self.model.state_dict(),
            "posterior": None if self.posterior is None else self.posterior.state_dict(),
            "frequencies": self.frequencies.moments,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "data": self.data.state_dict(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        if self.posterior is not None and state["posterior"] is not None:
            self.posterior.load_state_dict(state["posterior"])
        else:
            if self.posterior is not None:
                self.posterior.finish()
                self.posterior = None
            for number, weight in self.model.factorized().items():
                resize(weight, state["ranks"][number])
        self.model.load_state_dict(state["model"])
        self.frequencies.moments = state["frequencies"]
        self.optimizers = self._optimizers()
        for optimizer, one in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(one)
        self.done = ClickRun(**state["run"], decision=saved_decision(state["decision"]))
        self.data.load_state_dict(state["data"])
