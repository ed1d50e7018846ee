"""A folder with a small network and its data, and the command line in it."""

from pathlib import Path

import pytest
import torch
from cli_process import Cli

from tenfold.sources import read_model

FILE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

print("a user's file may print")

def network():
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
    )

def images(n, seed):
    x = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x.mean((2, 3)).argmax(1))

def train():
    return images(256, 0)

def test():
    return images(64, 1)

def empty():
    return TensorDataset(torch.zeros(0, 3, 6, 6), torch.zeros(0, dtype=torch.long))

def labels_beyond_the_classes():
    return TensorDataset(torch.zeros(8, 3, 6, 6), torch.full((8,), 4))

def other_images():
    return TensorDataset(torch.zeros(8, 5), torch.zeros(8, dtype=torch.long))
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "net.py").write_text(FILE)
    torch.save(read_model(f"{folder}/net.py:network", seed=7).state_dict(), folder / "dense.pt")
    return folder


@pytest.fixture(scope="session")
def cli(folder: Path) -> Cli:
    return Cli(folder)
