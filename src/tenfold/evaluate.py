"""Evaluate: how good a model is on data."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.batches import batches, known_n_batches, on_device
from tenfold.loss import IGNORED, Loss, first_tensor, fits, is_classes, is_counted, logits_of, task_loss
from tenfold.messages import LOSS, MODULE, check_kind
from tenfold.progress import Progress, silent
from tenfold.running import call, eval_mode, run_on, unchanged_buffers

EVALUATION = "evaluation data"  # as errors call them: test data, or what a training or a search is validated on


@dataclass(frozen=True)
class Evaluation:
    """What a model reaches on data.

    accuracy: top-1, as a ratio in 0..1; None where the targets are values, not classes.
    loss: mean cross-entropy for classes, mean squared error for values, or the mean of a loss that was given (has_own_loss).
    n: the number of predictions counted: samples, or positions where every position of a sample has a target.
    agreement: ratio of predictions that equal the reference model's, right or wrong; None without a reference or without classes.
    """

    accuracy: float | None
    loss: float
    n: int
    agreement: float | None = None
    has_own_loss: bool = False

    def __str__(self) -> str:
        parts = [f"loss {self.loss:.4f}"]
        if self.accuracy is not None:
            parts.insert(0, f"accuracy {self.accuracy:.2%}")
        if self.agreement is not None:
            parts.append(f"agreement {self.agreement:.2%}")
        return f"{', '.join(parts)} on {self.n:,} predictions"


def evaluate(
    model: nn.Module,
    data: Any,
    batch_size: int = 250,
    *,
    reference: nn.Module | None = None,
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Accuracy and loss of a model on data, in eval mode and on the model's own device; every module's mode comes back.

    Args:
        data: see `batches`; every batch needs targets.
        reference: a model to compare predictions with, for instance the one before compression.
        loss: loss(output, targets), a mean over a batch, in place of cross-entropy and squared error; accuracy is counted as without it,
            where the targets are classes that fit the output.

    Raises:
        ValueError: the data are empty or without targets, a label is not one of the classes, or shapes do not fit.
        RuntimeError: the model does not take the inputs.
    """
    check_kind("model", model, nn.Module, MODULE)
    check_kind("reference", reference, nn.Module | None, MODULE)
    check_kind("loss", loss, Callable | None, LOSS)
    show = progress or silent
    total = (known_n_batches(data, batch_size) or 0) if progress else 0  # a stream is not read once more for a count
    sums = _Sums(loss)
    kept = contextlib.nullcontext() if reference is None else unchanged_buffers(reference)
    with torch.no_grad(), eval_mode(model), unchanged_buffers(model), kept:
        for number, (inputs, targets) in enumerate(batches(data, batch_size, what=EVALUATION), 1):
            if not isinstance(targets, Tensor) and (loss is None or targets is None):
                raise ValueError(
                    f"the data have targets of type {type(targets).__name__}; evaluation needs tensors (input, target): give labelled data"
                )
            output, other = run_on(model, inputs, EVALUATION), None
            if reference is not None and isinstance(targets, Tensor) and is_classes(targets):
                with eval_mode(reference):
                    other = first_tensor(call(reference, inputs))
            sums.add(output, targets, other)
            show("evaluating", number, max(number, total))
    return sums.result()


class _Sums:
    """Running sums over batches."""

    def __init__(self, own_loss: Loss | None) -> None:
        self.own_loss = own_loss
        self.loss = 0.0
        self.n = 0
        self.n_right: int | None = None
        self.n_same: int | None = None

    def add(self, output: Any, targets: Any, other: Tensor | None) -> None:
        """Counts one batch."""
        scores = first_tensor(output)
        targets = on_device(targets, scores.device)
        has_classes = isinstance(targets, Tensor) and is_classes(targets) and (self.own_loss is None or fits(scores, targets))
        wanted = targets.reshape(-1) if has_classes else None
        n = len(scores) if wanted is None else int(is_counted(wanted).sum())
        if n == 0:
            return
        self.loss += float(task_loss(scores, targets) if self.own_loss is None else self.own_loss(output, targets)) * n
        self.n += n
        if wanted is None:
            return
        counted, found = is_counted(wanted), logits_of(scores, targets).argmax(-1)
        self.n_right = (self.n_right or 0) + int((found == wanted)[counted].sum())
        if other is not None:
            same = found == logits_of(other, targets).argmax(-1).to(found.device)
            self.n_same = (self.n_same or 0) + int(same[counted].sum())

    def result(self) -> Evaluation:
        """The means."""
        if self.n == 0:
            raise ValueError(f"all targets are {IGNORED}, which marks places without one; at least one is needed: check the labels")
        return Evaluation(
            None if self.n_right is None else self.n_right / self.n,
            self.loss / self.n,
            self.n,
            None if self.n_same is None else self.n_same / self.n,
            self.own_loss is not None,
        )
