"""A small network whose ranks are found, for the tests of resuming; run as a script it kills itself at a step."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.formats import CP, Tucker
from tenfold.nn import Conv2d, Linear
from tenfold.recipes.automatic_ranks import Training, train_automatic, train_null, train_plain

TRAINING = Training(epochs=5, batch_size=16, lr=3e-2, dense_lr=1e-2, temperature=0.3, tolerance=0.3, weight_decay=0.1, precision="bfloat16")
N_STEPS, DECIDED = 40, 28  # of all; the ranks of `AUTOMATIC` are decided before this one


class Squares:
    """Bright squares in one of four corners; batches of an epoch are shuffled by torch's global random numbers too."""

    n_examples, n_steps = 128, 8

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(128) % 4
        self.images = torch.randn(128, 3, 6, 6, generator=generator)
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            image[:, 3 * (label // 2) :, 3 * (label % 2) :] += 1

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        torch.rand(1 + epoch)  # as a loader does
        order = torch.randperm(128, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        return ((self.images[rows], self.labels[rows]) for rows in order.split(16))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)


def network() -> nn.Module:
    """Convolutions in channels_last, statistics of batches, dropout: all that a resumed training might forget."""
    torch.manual_seed(0)
    layers = (
        Conv2d(3, 8, 3, padding=1, format=Tucker(rank=(3, 2))), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
        Linear(288, 4, format=CP(rank=4)),
    )  # fmt: skip
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def run(way: str, checkpoint: Path | None, watch: Callable[[int], Any] = int, save_every: int = 1) -> tuple[nn.Module, Any]:
    """The model, and what the training of it gives back."""
    net, task = network(), Squares()
    how: dict[str, Any] = {"seed": 1, "checkpoint": checkpoint, "save_every": save_every, "progress": lambda _, done, total: watch(done)}
    if way == "plain":
        train_plain(net, task, TRAINING, 1e-2, **how)
        return net, None
    found = train_null(net, 128, TRAINING, N_STEPS, **how) if way == "null" else train_automatic(net, task, TRAINING, **how)
    return net, (found.decision, found.is_stable, found.n_steps)


if __name__ == "__main__":

    def kill(done: int) -> None:
        if done == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

    run(sys.argv[1], Path(sys.argv[2]), kill)
