"""Training: one run of a recipe: a model, its training data, its test data -> accuracy."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Adam

from tenfold.augment import Augment
from tenfold.batches import batches
from tenfold.evaluate import Evaluation, evaluate
from tenfold.finetune import finetune
from tenfold.learner import Learner
from tenfold.optimizer import Schedule
from tenfold.progress import Progress

CLIP_NORM = 1.0


@dataclass(frozen=True)
class Training:
    """How the networks of a recipe are trained: Adam, a warm-up and a cosine, gradients clipped at norm 1; all networks alike.

    lr, dense_lr: the highest learning rate of the factorised networks, and of the dense one.
    """

    epochs: int
    batch_size: int
    lr: float
    dense_lr: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What a run did: the test of its last epoch, its steps and its seconds."""

    test: Evaluation
    losses: tuple[float, ...]
    n_steps: int
    seconds: float


def train_run(
    model: nn.Module,
    train: Any,
    test: Any,
    training: Training,
    lr: float,
    *,
    seed: int,
    augment: Augment | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Trains a model in place and tests it once, after the last epoch; the same call with the same checkpoint file goes on."""
    history = finetune(
        model,
        train,
        epochs=training.epochs,
        optimizer=Adam,
        lr=lr,
        weight_decay=training.weight_decay,
        batch_size=training.batch_size,
        clip_norm=CLIP_NORM,
        augment=augment,
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
    )
    found = evaluate(model, test, training.batch_size)
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return Trained(found, history.epoch_losses, len(history.losses), sum(history.seconds))


class Step:
    """One training step of a model on one batch, to be measured: call it as often as wanted."""

    def __init__(self, model: nn.Module, data: Any, training: Training, lr: float) -> None:
        self.inputs, self.targets = next(iter(batches(data, training.batch_size)))
        optimizer = Adam(model.parameters(), lr=lr)
        self.learner = Learner(model.train(), optimizer, Schedule(optimizer, 1 << 30, 0), "float32", CLIP_NORM, None, None)

    def __call__(self) -> float:
        """The loss before the step."""
        with torch.enable_grad():
            return self.learner.learn(self.inputs, self.targets, 0)[0]
