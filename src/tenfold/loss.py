"""What an output is worth: the task's loss, right predictions, and the distance from a teacher's output.

Integer targets are classes, all others are values. One output for each label of 0 or 1 is the logit of class 1. Else, where are the
classes of an output? On its last axis where the other axes are those of the targets, as in (N, C) and (N, T, C); else on axis 1, as in
(N, C, *positions).
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Loss: TypeAlias = Callable[[Any, Any], Tensor]  # of a model's output and the targets, both as they are
Outputs: TypeAlias = Literal["classes", "values"]  # what outputs are: logits, or values by themselves
IGNORED = -100  # torch's label for "no target here"


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of a model's output that hold predictions, in their order.

    What it calls "logits" alone, else all entries of mappings, tuples, lists and dataclasses, also inside of each other. Integers, as ids
    are, and numbers without an axis, as losses are, are left out, and so is all that is no tensor.
    """
    if isinstance(output, Tensor):
        return [output]
    if _has_logits(output):
        parts = [output["logits"] if isinstance(output, Mapping) else output.logits]
    elif isinstance(output, Mapping):
        parts = list(output.values())
    elif isinstance(output, tuple | list):
        parts = list(output)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = [getattr(output, one.name) for one in dataclasses.fields(output)]
    else:
        return []
    return [tensor for part in parts for tensor in tensors_of(part) if tensor.dim() and not is_classes(tensor)]


def first_tensor(output: Any) -> Tensor:
    """The tensor that counts in a model's output: itself, or the first of `tensors_of`.

    Raises:
        TypeError: there is none.
    """
    if found := tensors_of(output):
        return found[0]
    raise TypeError(
        f"the model's output is a {type(output).__name__} without predictions; floating-point tensors are needed, by themselves or in a "
        "mapping, a tuple, a list or a dataclass: wrap the model in a module that returns its predictions"
    )


def is_classes(targets: Tensor) -> bool:
    """Whether targets are classes, not values."""
    return not (targets.is_floating_point() or targets.is_complex())


def is_counted(targets: Tensor) -> Tensor:
    """Which class labels are one, and not IGNORED."""
    return targets.to(torch.long) != IGNORED  # in unsigned bytes -100 would be label 156


def by_class(output: Tensor, targets: Tensor | None) -> Tensor:
    """(predictions, classes) in float32 or better: the output with its classes on the last axis."""
    if targets is None:
        is_last = output.dim() <= 3
    else:
        is_last = output.shape[:-1] == targets.shape
        if not is_last and (output.dim() < 2 or (output.shape[0], *output.shape[2:]) != tuple(targets.shape)):
            raise ValueError(
                f"the model's output has shape {tuple(output.shape)} for integer targets of shape {tuple(targets.shape)}; classes need an "
                "output (*targets, classes) or (N, classes, *positions): reshape one of them, or give targets as float for a regression"
            )
    output = output if is_last else output.movedim(1, -1)
    return _full(output.reshape(-1, output.shape[-1]))


def logits_of(output: Tensor, targets: Tensor | None) -> Tensor:
    """(predictions, classes) in float32 or better, as `by_class`; one logit for each prediction is that of class 1, beside 0 of class 0."""
    is_single = output.dim() < 2 or (targets is not None and output.shape == targets.shape)
    rows = _full(output.reshape(-1, 1)) if is_single else by_class(output, targets)
    return torch.cat([torch.zeros_like(rows), rows], -1) if rows.shape[-1] == 1 else rows


def check_labels(targets: Tensor, n_classes: int) -> None:
    """Raises ValueError where a label is not one of the classes."""
    kept = targets[is_counted(targets)]
    if not kept.numel():
        return
    low, high = int(kept.min()), int(kept.max())
    if low < 0 or high >= n_classes:
        raise ValueError(
            f"the targets have the label {low if low < 0 else high}, but the model has {n_classes} classes, 0 to {n_classes - 1}; "
            "number the labels from 0, or give the model as many outputs as there are classes, or "
            "give targets as float where they are values"
        )


def task_loss(output: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy for classes, the mean squared error for values. One logit for a label of 0 or 1 is that of class 1.

    Raises:
        ValueError: a label is not one of the classes, or the shapes do not fit.
    """
    if is_classes(targets):
        scores = logits_of(output, targets)
        check_labels(targets, scores.shape[-1])
        return F.cross_entropy(scores, targets.reshape(-1).to(scores.device, torch.long), ignore_index=IGNORED)
    if output.shape != targets.shape:
        raise ValueError(
            f"the model's output has shape {tuple(output.shape)}, but the targets have {tuple(targets.shape)}; a regression needs equal "
            "shapes: reshape the targets, or give them as integers where they are classes"
        )
    return F.mse_loss(_full(output), targets.to(output.device, _full(output).dtype))


def distillation_loss(output: Any, teacher: Any, targets: Any, temperature: float, outputs: Outputs | None = None) -> Tensor:
    """How far a model's output is from a teacher's; of several tensors the sum, as far as both give them.

    For classes T^2 KL(teacher || output) of the probabilities at temperature T, a mean over predictions; for values the mean squared
    difference. Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.

    Args:
        outputs: what all tensors are; left out, targets decide: classes that fit the first tensor make it one of classes, floats make all
            values. Without such targets what the model calls "logits" has classes, a single column is a value, and of all else nothing is
            known: both distances are added, as KL alone does not see what all columns share, and squares alone teach classes worse.
    """
    first, _ = first_tensor(output), first_tensor(teacher)
    loss = first.new_zeros((), dtype=_full(first).dtype)
    # in training a model may give more than in eval, as with auxiliary classifiers
    for mine, theirs in zip(predictions(output, targets), tensors_of(teacher), strict=False):
        kind = outputs or mine.kind
        loss = loss + _distance(mine.tensor, theirs.to(mine.tensor.device), mine.labels, temperature, kind).to(loss.device)
    return loss


def _distance(output: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float, kind: Outputs | None) -> Tensor:
    """Of one tensor, whose kind is None where nothing tells it."""
    if output.shape != teacher.shape:
        raise ValueError(
            f"the model's output has shape {tuple(output.shape)}, but the teacher's has {tuple(teacher.shape)}; distillation needs equal "
            "shapes: take the model before compression as the teacher"
        )
    loss = output.new_zeros((), dtype=_full(output).dtype)
    if kind != "classes":
        loss = loss + F.mse_loss(_full(output), _full(teacher))
    if kind != "values":
        student, wanted = (F.log_softmax(logits_of(one, labels) / temperature, -1) for one in (output, teacher))
        loss = loss + F.kl_div(student, wanted, reduction="batchmean", log_target=True) * temperature**2
    return loss


@dataclass(frozen=True)
class Prediction:
    """One tensor of an output: what it is, None where nothing tells, and the class labels that are its targets, where there are some."""

    tensor: Tensor
    kind: Outputs | None
    labels: Tensor | None


def predictions(output: Any, targets: Any) -> list[Prediction]:
    """The tensors of an output, each with what targets and names say of it: labels are of the first one only, values of all."""
    known = targets if isinstance(targets, Tensor) else None
    found = []
    for tensor in tensors_of(output):
        labels = known if known is not None and fits(tensor, known) else None
        found.append(Prediction(tensor, _kind(tensor, known, _has_logits(output)), labels))
        known = None if known is None or is_classes(known) else known
    return found


def _kind(output: Tensor, targets: Tensor | None, is_named: bool) -> Outputs | None:
    """What one tensor of an output is, None where nothing tells. is_named: whether the model calls it logits."""
    if targets is not None and not is_classes(targets):
        return "values"
    if targets is not None and fits(output, targets):
        return "classes"
    if output.dim() < 2 or by_class(output, None).shape[-1] == 1:
        return "values"
    return "classes" if is_named else None


def fits(output: Tensor, targets: Tensor) -> bool:
    """Whether targets can be the classes of an output."""
    shape = tuple(output.shape)
    return is_classes(targets) and tuple(targets.shape) in (shape, shape[:-1], (*shape[:1], *shape[2:]))


def _has_logits(output: Any) -> bool:
    """Whether a model calls what it gives logits."""
    return (output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)) is not None


def _full(output: Tensor) -> Tensor:
    """Half precision is too coarse for a softmax and a mean."""
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
