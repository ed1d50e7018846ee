"""Learner: one step of training, from targets, from a teacher, or from both."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tenfold.batches import on_device
from tenfold.features import Features
from tenfold.loss import Loss, Outputs, distillation_loss, first_tensor, task_loss
from tenfold.optimizer import Schedule
from tenfold.running import call, eval_mode, run_on
from tenfold.training_stability import SensitivityPenalty
from tenfold.weight import FactorizedWeight

TRAINING = "training data"  # as errors call them


@dataclass(frozen=True)
class Teacher:
    """A model whose outputs are learned: with which share of the loss, at which temperature, and with which part for features.

    outputs: what they are, see `distillation_loss`.
    """

    model: nn.Module
    weight: float
    temperature: float
    feature_weight: float = 0.0
    outputs: Outputs | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"teacher_weight is {self.weight}; it needs a share of the loss, 0 to 1, e.g. 0.9")
        if not 0 <= self.feature_weight <= 1:
            raise ValueError(
                f"feature_weight is {self.feature_weight}; it needs a share of the teacher's part of the loss, 0 to 1, e.g. 0.5"
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature is {self.temperature}; it needs to be above 0 and finite, e.g. 4")
        if self.outputs not in (None, "classes", "values"):
            raise ValueError(f'outputs is {self.outputs!r}; what the outputs are is needed: give "classes", "values", or leave it out')

    def __str__(self) -> str:
        text = f"{type(self.model).__name__}, weight {self.weight:g}, temperature {self.temperature:g}"
        text += f", features {self.feature_weight:g}" if self.feature_weight else ""
        return f"{text}, outputs {self.outputs}" if self.outputs else text


@dataclass(frozen=True)
class Learner:
    """One step of training.

    precision: "float32", "bfloat16" or "float16", see `tenfold.precision`.
    penalty: added to the loss, times its weight.
    channels_last: images (N, channels, height, width) are laid out with their channels last, which convolutions on a CPU prefer.

    Raises:
        ValueError: a norm to clip to is not above 0, the weight of the penalty is below 0 or not finite, or the teacher would learn.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    precision: str
    clip_norm: float | None
    teacher: Teacher | None
    loss: Loss | None
    penalty: tuple[float, SensitivityPenalty] | None = None
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}; it needs a norm above 0, or None for gradients as they are, e.g. 1.0")
        if self.penalty is not None and not 0 <= self.penalty[0] < math.inf:
            raise ValueError(
                f"sensitivity_weight is {self.penalty[0]}; a weight of at least 0 that is finite is needed: give for instance 0.01, or "
                "leave it at 0"
            )
        if self.teacher is not None and _trainable(self.model) & _trainable(self.teacher.model):
            raise ValueError(
                "the teacher shares parameters with the model, so it would change with it; a model of its own is needed: compress without "
                "inplace=True, or take a copy of the model before compression (copy.deepcopy)"
            )

    @cached_property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    @cached_property
    def features(self) -> Features | None:
        """What is compared with the teacher besides the outputs."""
        if self.teacher is None or not self.teacher.weight * self.teacher.feature_weight:
            return None
        return Features(self.model, self.teacher.model)

    @cached_property
    def scaler(self) -> torch.amp.GradScaler:
        """Keeps float16 gradients above zero; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def learn(self, inputs: Any, targets: Any, step: int) -> tuple[float, float]:
        """The loss before the step, counted from 0, and its learning rate.

        Raises:
            RuntimeError: the model does not take the inputs, or the loss is NaN or infinite; the parameters are then as they were.
        """
        lr = self.schedule.set(step)
        if self.channels_last and isinstance(inputs, Tensor) and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, getattr(torch, self.precision), enabled=self.precision != "float32"))
            if self.features is not None:
                stack.enter_context(self.features.recorded())
            loss = self._loss(run_on(self.model, inputs, TRAINING), inputs, targets)
        if self.penalty is not None:
            loss = loss + self.penalty[0] * self.penalty[1]()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RuntimeError(
                f"the loss is {value} at step {step + 1} of {self.schedule.steps} with the learning rate {lr:.3g}; it must be finite: "
                f"lower the learning rate (lr={self.schedule.peaks[0] / 10:.3g}), or look for NaN in the inputs and targets"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, lr

    def _loss(self, output: Any, inputs: Any, targets: Any) -> Tensor:
        is_taken = isinstance(targets, Tensor) or (self.loss is not None and targets is not None)
        if not is_taken and (targets is not None or self.teacher is None):
            raise ValueError(
                f"the data have targets of type {type(targets).__name__}, not tensors; fine-tuning needs (input, target) or a teacher: "
                "give labelled data, or teacher= the model before compression"
            )
        if targets is None or (self.teacher is not None and self.teacher.weight == 1):
            return self._distance(output, inputs, targets)
        targets = on_device(targets, self.device)
        loss = task_loss(first_tensor(output), targets) if self.loss is None else self.loss(output, targets)
        if self.teacher is None or self.teacher.weight == 0:
            return loss
        return self.teacher.weight * self._distance(output, inputs, targets) + (1 - self.teacher.weight) * loss

    def _distance(self, output: Any, inputs: Any, targets: Any) -> Tensor:
        assert self.teacher is not None
        with torch.no_grad(), eval_mode(self.teacher.model):
            wanted = call(self.teacher.model, inputs)
        share = self.teacher.feature_weight
        if self.features is not None and share == 1:
            return self.features.distance()
        distance = distillation_loss(output, wanted, targets, self.teacher.temperature, self.teacher.outputs)
        return distance if self.features is None else share * self.features.distance() + (1 - share) * distance


def _trainable(model: nn.Module) -> set[nn.Parameter]:
    return {parameter for parameter in model.parameters() if parameter.requires_grad}


@contextlib.contextmanager
def rebuilt(model: nn.Module) -> Iterator[None]:
    """A context in which a model trains with its weights rebuilt from their factors in every call."""
    weights = [module for module in model.modules() if isinstance(module, FactorizedWeight)]
    try:
        for weight in weights:
            weight.is_rebuilt = True
        yield
    finally:
        for weight in weights:
            weight.is_rebuilt = False
