"""A small training task with everything that is random in it, for the tests of resuming; run as a script it kills itself."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import tenfold.nn
from tenfold.finetune import FinetuneHistory, finetune
from tenfold.formats import CP

STEPS = 24  # 3 epochs of 8


class Noisy(Dataset):
    """Samples that are never the same twice."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index] + 0.1 * torch.randn(3, 6, 6), int(self.labels[index])


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        tenfold.nn.Conv2d(3, 8, 3, padding=1, format=CP(rank=6)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(288, 4),
    )


def run(form: str, path: Path | None, progress=None) -> tuple[nn.Module, FinetuneHistory]:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(70, 3, 6, 6, generator=generator), torch.randint(4, (70,), generator=generator)
    data = {
        "tensors": TensorDataset(images, labels),
        "dataset": Noisy(images, labels),
        "loader": DataLoader(Noisy(images, labels), 8, shuffle=True, drop_last=True),
        "seeded loader": DataLoader(Noisy(images, labels), 8, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(3)),
    }[form]
    model, teacher = build(), build(seed=5)
    history = finetune(
        model,
        data,
        epochs=3,
        batch_size=8,
        lr=0.01,
        teacher=teacher,
        optimizer=partial(torch.optim.SGD, momentum=0.9) if form == "dataset" else None,
        augment="flip",
        validation=(images, labels),
        checkpoint=path,
        save_every=5,
        progress=progress,
    )
    return model, history


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(form: str, path: str, when: str) -> None:
    done = 0

    def watch(_: str, step: int, total: int) -> None:
        nonlocal done
        assert total == STEPS
        done = step
        if when == str(step):
            kill()

    if when == "while writing":
        replace = Path.replace

        def replace_or_die(self: Path, target: Path) -> Path:
            if done == 15:
                self.write_bytes(self.read_bytes()[:100])
                kill()
            return replace(self, target)

        Path.replace = replace_or_die
    run(form, Path(path), watch)


if __name__ == "__main__":
    main(*sys.argv[1:])
