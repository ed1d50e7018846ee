"""Small data sets in the forms that recipes read."""

import gzip
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

FRAME = (60, 80, 3)


def write_clips(folder: Path, n_clips: int = 10, n_frames: int = 4) -> Path:
    """Clips where the recipe looks for them: those of class 1 flicker."""
    random = np.random.RandomState(0)
    labels = np.arange(n_clips) % 2
    frames = np.repeat(random.randint(60, 200, (n_clips, 1, *FRAME)), n_frames, axis=1)
    frames[labels == 1, ::2] += 40
    place = folder / "fight_video" / "clips250_16x60x80.npz"
    place.parent.mkdir(parents=True)
    np.savez(place, frames=frames.astype(np.uint8), labels=labels)
    return place


def write_digits(folder: Path) -> Path:
    """Recordings of three digits by one speaker, ten takes each: tones of different heights."""
    random = np.random.RandomState(0)
    waves, digits, takes = [], [], []
    for digit in range(3):
        for take in range(10):
            time = np.arange(1200 + 100 * take) / 8000
            waves.append((8000 * np.sin(2 * np.pi * 400 * (digit + 1) * time) + random.randn(len(time)) * 100).astype(np.int16))
            digits.append(digit)
            takes.append(take)
    place = folder / "fsdd" / "fsdd_5speakers.npz"
    place.parent.mkdir(parents=True)
    offsets = np.cumsum([0, *map(len, waves)])
    speakers = np.array(["ada"] * len(waves))
    np.savez(place, audio=np.concatenate(waves), offsets=offsets, digit=np.array(digits), speaker=speakers, take=np.array(takes))
    return place


def write_series(folder: Path) -> Path:
    """Two files of series with 12 channels and two classes that differ in their mean."""
    random = np.random.RandomState(0)
    for part in ("TRAIN", "TEST"):
        lines = ["@problemName tiny", "@dimensions 12", "@classLabel true low high", "@data"]
        for number in range(16):
            values = random.randn(12, 5 + number % 3) + (2 if number % 2 else -2)
            lines.append(":".join([*(",".join(f"{one:.3f}" for one in channel) for channel in values), "high" if number % 2 else "low"]))
        (folder / f"tiny_{part}.ts.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder / "tiny_TRAIN.ts.gz"


def write_text(folder: Path) -> Path:
    """A text that repeats itself."""
    place = folder / "text.txt"
    place.write_text("the quick brown fox jumps over the lazy dog. " * 120)
    return place


NETWORKS = """
from safetensors.torch import load_file
from torch import nn


def load(path):
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )
    model.load_state_dict(load_file(path))
    return model.eval()
"""
LOADERS = """
import torch
from torch.utils.data import TensorDataset


def _images(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 10
    images = torch.randn(n, 3, 32, 32, generator=generator)
    images[torch.arange(n), :, labels % 8] += 2
    return TensorDataset(images, labels)


def cifar10_train():
    return _images(200, 0)


def cifar10_test():
    return _images(100, 1)
"""


def write_network(folder: Path, name: str = "cifar10_resnet20_jpegtuned") -> Path:
    """A small convolutional network in place of a pretrained one, with images, where the recipe looks for them."""
    (folder / "weights").mkdir(parents=True)
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "loaders.py").write_text(LOADERS)
    torch.manual_seed(0)
    parts = [part for i, step in ((3, 2), (32, 1)) for part in (nn.Conv2d(i, 32, 3, step, 1), nn.BatchNorm2d(32), nn.ReLU())]
    model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    save_file(dict(model.state_dict()), folder / "weights" / f"{name}.safetensors")
    return folder
