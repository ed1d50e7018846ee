"""Finetune: a short, plain training loop, with or without the dense model as a teacher, that survives being killed.

A compressed model is an ordinary module: its factors are parameters, its state_dict holds plain tensors, and it trains in a loop of
your own, in a Lightning module or after `accelerator.prepare` with nothing of this file. Two things are worth taking over: an
optimiser whose step does not depend on how a weight's scale is spread over its factors (AdamW), and a warm-up with clipped gradients;
plain SGD at the learning rate of the dense model is apt to diverge.
"""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any, Literal, SupportsFloat, SupportsIndex

from torch import nn
from torch.optim import Optimizer

from tenfold.augment import Augment, as_augment
from tenfold.batches import n_batches
from tenfold.checkpoint import Checkpoint
from tenfold.learner import Learner, Teacher, rebuilt
from tenfold.loss import Loss, Outputs
from tenfold.messages import LOSS, MODULE, NUMBER, PATH, WHOLE, check_kind
from tenfold.optimizer import MakeOptimizer, Schedule, make_optimizer
from tenfold.precision import Precision, settled
from tenfold.progress import Progress, silent
from tenfold.training import FinetuneHistory as FinetuneHistory
from tenfold.training import TrainingRun
from tenfold.training_stability import SensitivityPenalty, stable_scales

WARMUP = 0.1  # of all steps
SAVE_EVERY = 100  # steps


def finetune(
    model: nn.Module,
    data: Any,
    *,
    epochs: int = 1,
    steps_per_epoch: int | None = None,
    teacher: nn.Module | None = None,
    optimizer: Optimizer | MakeOptimizer | None = None,
    lr: float | None = None,
    batch_size: int = 128,
    precision: Precision = "float32",
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    augment: Augment | Literal["flip", "crop"] | None = None,
    validation: Any = None,
    progress: Progress | None = None,
    loss: Loss | None = None,
    weight_decay: float | None = None,
    warmup: int | None = None,
    clip_norm: float | None = 1.0,
    teacher_weight: float = 0.9,
    temperature: float = 4.0,
    outputs: Outputs | None = None,
    feature_weight: float = 0.0,
    sensitivity_weight: float = 0.0,
    bound_lr: bool = False,
    rebuild: bool = False,
    channels_last: bool = False,
    save_every: int = SAVE_EVERY,
) -> FinetuneHistory:
    """Trains a model in place and returns what it did; the model comes back in the mode that it came in.

    Only parameters that require gradients change. The learning rate rises linearly over the first steps and falls along a cosine.
    Everything random (order, augmentation, dropout) follows from `seed`; torch's global random state is as before afterwards.

    Args:
        data: (input, target); see `batches`. Without targets the teacher is all there is to learn from.
        epochs: passes over the data.
        steps_per_epoch: batches of a pass, for streams without a length: they are then not read through to count them, and may be
            endless. At most so many are taken of each pass.
        teacher: the model before compression, whose outputs are learned besides the targets. It stays as it is.
        optimizer: a torch optimiser of this model's parameters, or its class or anything else that makes one from parameter groups,
            as functools.partial(torch.optim.SGD, momentum=0.9); AdamW where none is given. LBFGS is not supported.
        lr: the highest learning rate; left out, the optimiser's own where one is given, else one for the number of steps.
        precision: of the forward pass; "auto" is bfloat16 where the device computes with it, else float32; "float16" needs a GPU.
            Parameters keep their dtype.
        checkpoint: a file, written every `save_every` steps and after every epoch. The same call with the same file goes on where the
            last one stopped, even if that was killed, and on a CPU ends with the same bits; a finished run returns at once.
        augment: changes inputs: augment(inputs, generator); "flip" mirrors half of the images, "crop" also
            cuts them out at random places.
        validation: data to evaluate after every epoch, with `loss` where it is given; one batch is tried before the first step.
        loss: loss(output, targets), a mean, of what the model and the data give, whatever that is; left out, cross-entropy for integer
            targets and mean squared error for others.
        weight_decay: for parameters with two axes or more; the optimiser's own where one is given.
        warmup: steps until the highest learning rate; a tenth of all steps where left out.
        clip_norm: the largest norm of all gradients together; None leaves them.
        teacher_weight: 0..1, the teacher's share of the loss.
        temperature: of the distillation, see `distillation_loss`.
        outputs: what the teacher's are: "classes", logits whose probabilities are compared, or "values", compared by squared difference.
            Left out, targets decide, and without targets both distances are added, as nothing tells; one column is a value.
        feature_weight: 0..1, the part of the teacher's share that goes to the outputs of the factorised layers, see `Features`; with
            teacher_weight=1 and feature_weight=1 every layer learns by itself, a good first stage.
        sensitivity_weight: of `SensitivityPenalty`, which keeps factors from becoming degenerate; 0.01 is a gentle one.
        bound_lr: divide the rate of each factorised weight by what its factors magnify a step (`stable_scales`): with SGD, the rate
            of the dense model is then stable. The optimiser is then given as its class, or not at all.
        rebuild: multiply with the weights rebuilt from their factors, not with the factors: the same result to rounding, and faster
            where kernels are small, as there is one convolution in place of three.
        channels_last: lay images out with their channels last, which makes convolutions on a CPU faster.

    Raises:
        ValueError: a setting or a label is out of range, `feature_weight` or `outputs` come without a teacher, the data are empty, or
            the checkpoint is of another run.
        TypeError: an argument is of another kind, as a text for a number.
        RuntimeError: the model does not take the inputs, or the loss is NaN or infinite.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(256, 8)
    >>> model = nn.Linear(8, 1)
    >>> history = finetune(model, (x, x.sum(1, keepdim=True)), epochs=20, lr=0.1)
    >>> [round(value, 2) for value in history.epoch_losses[::9]]
    [8.45, 0.27, 0.02]
    """
    check_kind("model", model, nn.Module, MODULE)
    check_kind("teacher", teacher, nn.Module | None, MODULE)
    check_kind("loss", loss, Callable | None, LOSS)
    check_kind("checkpoint", checkpoint, str | os.PathLike | None, PATH)
    for name, count in {"epochs": epochs, "seed": seed}.items():
        check_kind(name, count, SupportsIndex, WHOLE)
    check_kind("steps_per_epoch", steps_per_epoch, SupportsIndex | None, WHOLE)
    required = {
        "save_every": save_every,
        "teacher_weight": teacher_weight,
        "temperature": temperature,
        "feature_weight": feature_weight,
        "sensitivity_weight": sensitivity_weight,
    }
    for name, number in required.items():
        check_kind(name, number, SupportsFloat, NUMBER)
    for name, number in {"lr": lr, "weight_decay": weight_decay, "warmup": warmup, "clip_norm": clip_norm}.items():
        check_kind(name, number, SupportsFloat | None, NUMBER)
    if epochs < 1 or save_every < 1 or (warmup is not None and warmup < 0) or (steps_per_epoch is not None and steps_per_epoch < 1):
        raise ValueError(
            f"epochs is {epochs}, save_every {save_every}, warmup {warmup} and steps_per_epoch {steps_per_epoch}; at least 1, 1, 0 and 1 "
            "are needed: raise what is below"
        )
    if teacher is None and (feature_weight or outputs is not None):
        raise ValueError(
            f"feature_weight is {feature_weight} and outputs {outputs!r} without a teacher; a model to learn from is needed: give teacher= "
            "the model before compression, or leave them out"
        )
    steps = n_batches(data, batch_size, drop_last=True) if steps_per_epoch is None else steps_per_epoch
    made = make_optimizer(model, optimizer, lr, weight_decay, epochs * steps, stable_scales(model) if bound_lr else None)
    dtype = settled(precision, next(model.parameters()).device)
    schedule = Schedule(made, epochs * steps, math.ceil(WARMUP * epochs * steps) if warmup is None else warmup)
    teaching = None if teacher is None else Teacher(teacher, teacher_weight, temperature, feature_weight, outputs)
    penalty = SensitivityPenalty(model) if sensitivity_weight else None
    extra = None if penalty is None else (sensitivity_weight, penalty)
    learner = Learner(model, made, schedule, dtype, clip_norm, teaching, loss, extra, channels_last)
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "batches in an epoch": steps,
        "precision": dtype,
        "seed": seed,
        "optimizer": type(made).__name__,
        **{name: [group.get(name) for group in made.param_groups] for name in made.defaults if not (bound_lr and name == "lr")},
        **({"lr": lr} if bound_lr else {}),
        "warmup": schedule.warmup,
        "clip_norm": clip_norm,
        "teacher": teaching,
        "loss": _name(loss),
        "augment": _name(augment),
        "validation": validation is not None,
        "sensitivity_weight": sensitivity_weight,
        "layout": (rebuild, channels_last),
    }
    file = Checkpoint(checkpoint, {name: str(value) for name, value in settings.items()}, model)
    run = TrainingRun(learner, data, batch_size, epochs, steps, seed, as_augment(augment), validation, file, save_every, progress or silent)
    with rebuilt(model) if rebuild else contextlib.nullcontext():
        return run.run()


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", function if isinstance(function, str | None) else type(function).__qualname__))
