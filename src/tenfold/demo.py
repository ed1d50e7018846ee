"""The network and the data of `tenfold demo`: scikit-learn's 1797 handwritten digits, which need no download.

They are model and data arguments like any other: ``tenfold inspect tenfold.demo:digits_network --data tenfold.demo:digits_test``.
"""

import importlib
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

N_TRAIN = 1297  # of 1797; the other 500 are for testing


class DigitsNet(nn.Sequential):
    """A convolutional network for images (1, 8, 8) and 10 classes."""

    def __init__(self) -> None:
        super().__init__(
            _block(1, 32),
            _block(32, 64),
            nn.MaxPool2d(2),
            _block(64, 128),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


def digits_network() -> nn.Module:
    """A `DigitsNet` without trained weights."""
    return DigitsNet()


def digits_train() -> TensorDataset:
    """1297 images (1, 8, 8) in 0..1 with their digits."""
    return _digits(slice(None, N_TRAIN))


def digits_test() -> TensorDataset:
    """500 other images."""
    return _digits(slice(N_TRAIN, None))


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU())


def _digits(part: slice) -> TensorDataset:
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn, which is not installed; the demo needs it: run pip install "tenfold[demo]"'
        ) from error
    digits = datasets.load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))[part]  # they come sorted by writer
    images = torch.from_numpy(digits.images).float()[order, None] / 16
    return TensorDataset(images, torch.from_numpy(digits.target).long()[order])
