"""A training run: all steps of `finetune`, from the first one or from a checkpoint, and what it says of them."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tenfold.augment import Augment
from tenfold.batches import batches, random_states
from tenfold.checkpoint import Checkpoint
from tenfold.evaluate import EVALUATION, evaluate
from tenfold.learner import TRAINING, Learner
from tenfold.loss import is_classes, is_counted
from tenfold.progress import Progress


@dataclass(frozen=True)
class FinetuneHistory:
    """What a run did.

    losses, lrs: the loss and the learning rate of every step.
    accuracies, validation_losses: of the validation data after every epoch; an accuracy is a ratio, None without classes.
    seconds: of every epoch, left out of comparisons.
    """

    losses: tuple[float, ...]
    lrs: tuple[float, ...]
    accuracies: tuple[float | None, ...]
    validation_losses: tuple[float, ...]
    seconds: tuple[float, ...] = field(compare=False)

    @property
    def epoch_losses(self) -> tuple[float, ...]:
        """The mean loss of every epoch."""
        n = len(self.losses) // len(self.seconds)
        return tuple(math.fsum(self.losses[k * n : (k + 1) * n]) / n for k in range(len(self.seconds)))

    def __str__(self) -> str:
        n = len(self.losses) // len(self.seconds)
        lines = ["epoch      loss  last lr  validation loss  accuracy  seconds"]
        for k, loss in enumerate(self.epoch_losses):
            valid = f"{self.validation_losses[k]:.4f}" if self.validation_losses else "-"
            ratio = self.accuracies[k] if self.accuracies else None
            accuracy = "-" if ratio is None else f"{ratio:.2%}"
            lines.append(f"{k + 1:5}  {loss:8.4f}  {self.lrs[(k + 1) * n - 1]:7.1e}  {valid:>15}  {accuracy:>8}  {self.seconds[k]:7.1f}")
        return "\n".join(lines)


@dataclass
class TrainingRun:
    """All steps of a run, from the first one or from a checkpoint."""

    learner: Learner
    data: Any
    batch_size: int
    epochs: int
    steps: int  # in an epoch
    seed: int
    augment: Augment | None
    validation: Any
    file: Checkpoint
    save_every: int
    progress: Progress
    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    accuracies: list[float | None] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    generator: torch.Generator = field(default_factory=torch.Generator)  # of the augmentation

    def run(self) -> FinetuneHistory:
        """Trains to the end."""
        saved = self.file.load()
        device = self.learner.device
        modes = [(module, module.training) for module in self.learner.model.modules()]
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                if saved is not None:
                    self._restore(saved)
                elif self.validation is not None and not isinstance(self.validation, Iterator):
                    self._try_validation()
                for _ in range(len(self.seconds), self.epochs):
                    self._epoch(saved)
                    saved = None
        except BaseException:
            self.file.restore()  # what is left is then a state to go on from
            raise
        finally:
            self.learner.schedule.reset()
            self.learner.optimizer.zero_grad(set_to_none=True)
            for module, mode in modes:
                module.training = mode
        return FinetuneHistory(
            tuple(self.losses), tuple(self.lrs), tuple(self.accuracies), tuple(self.validation_losses), tuple(self.seconds)
        )

    def _try_validation(self) -> None:
        """Evaluates one batch, so that what is wrong with the data or the loss is not found after an epoch of training."""
        loaders = random_states(self.validation)
        states = [loader.get_state() for loader in loaders]
        inputs, targets = next(batches(self.validation, 1, what=EVALUATION))
        is_blank = isinstance(targets, Tensor) and is_classes(targets) and not bool(is_counted(targets).any())
        if not is_blank:  # it alone would be data without any target
            evaluate(self.learner.model, [(inputs, targets)], loss=self.learner.loss)
        for loader, state in zip(loaders, states, strict=True):
            loader.set_state(state)

    def _epoch(self, saved: dict[str, Any] | None) -> None:
        """One epoch, or what is left of the one that was saved."""
        began = time.perf_counter() - (0.0 if saved is None else saved["seconds_in_epoch"])
        end = (len(self.seconds) + 1) * self.steps
        order = self._order(saved)
        self.learner.model.train()
        for inputs, targets in order:
            if self.augment is not None:
                inputs = self.augment(inputs, self.generator)
            value, lr = self.learner.learn(inputs, targets, len(self.losses))
            self.losses.append(value)
            self.lrs.append(lr)
            self.progress("fine-tuning", len(self.losses), self.epochs * self.steps)
            if len(self.losses) == end:
                break
            if len(self.losses) % self.save_every == 0:
                self._save(self.loaders, time.perf_counter() - began)
        if len(self.losses) < end:
            raise ValueError(
                f"the data gave {self.steps - end + len(self.losses)} batches in epoch {len(self.seconds) + 1}, but {self.steps} are "
                "expected, as counted before or given; every pass needs the same number: give a Dataset or a DataLoader, or fewer "
                "steps_per_epoch"
            )
        if self.validation is not None:
            found = evaluate(self.learner.model, self.validation, loss=self.learner.loss)
            self.accuracies.append(found.accuracy)
            self.validation_losses.append(found.loss)
        self.seconds.append(time.perf_counter() - began)
        self._save([loader.get_state() for loader in random_states(self.data)], 0.0)

    def _order(self, saved: dict[str, Any] | None) -> Any:
        """The batches of this epoch, or those that are left of it. All random numbers follow from the seed and the epoch."""
        start = len(self.losses) % self.steps
        loaders = random_states(self.data)
        if saved is not None:
            for loader, state in zip(loaders, saved["loaders"], strict=True):
                loader.set_state(state)
        self.loaders = [loader.get_state() for loader in loaders]
        base = (self.seed * 1_000_003 + len(self.seconds)) * 3 % (1 << 62)
        torch.manual_seed(base)
        self.generator.manual_seed(base + 1)
        order = torch.Generator().manual_seed(base + 2)
        left = batches(self.data, self.batch_size, shuffle=True, generator=order, drop_last=True, start=start, what=TRAINING)
        if saved is not None and start:
            self.generator.set_state(saved["augment"])
            torch.set_rng_state(saved["torch"])
            if self.learner.device.type == "cuda":
                torch.cuda.set_rng_state(saved["cuda"], self.learner.device)
        return left

    def _save(self, loaders: list[torch.Tensor], seconds_in_epoch: float) -> None:
        device = self.learner.device
        self.file.save(
            {
                "optimizer": self.learner.optimizer.state_dict(),
                "scaler": self.learner.scaler.state_dict(),
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
                "augment": self.generator.get_state(),
                "loaders": loaders,
                "history": [self.losses, self.lrs, self.accuracies, self.validation_losses, self.seconds],
                "seconds_in_epoch": seconds_in_epoch,
                "peaks": self.learner.schedule.peaks,
                "sensitivities": None if self.learner.penalty is None else self.learner.penalty[1].start,
            }
        )

    def _restore(self, saved: dict[str, Any]) -> None:
        self.learner.optimizer.load_state_dict(saved["optimizer"])
        self.learner.schedule.peaks = saved["peaks"]
        if self.learner.penalty is not None:
            self.learner.penalty[1].start = saved["sensitivities"]
        self.learner.scaler.load_state_dict(saved["scaler"])
        self.losses, self.lrs, self.accuracies, self.validation_losses, self.seconds = saved["history"]
