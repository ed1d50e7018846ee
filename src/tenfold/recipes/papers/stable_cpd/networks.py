"""The pretrained networks that the experiments run on, with their images: what the folder of data holds of them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from tenfold.datasets import read_data
from tenfold.sources import read_function


@dataclass(frozen=True)
class Pretrained:
    """A network of the folder of data.

    weights: the file in weights/, without ending; networks.py:load builds the network of it.
    train, test: functions of loaders.py. Test images serve for the last number only.
    budgets: fractions of FLOP that are kept.
    batch_size: of fine-tuning.
    takes_bytes: its images are RGB 0..255; those of loaders.py are normalised by MEAN and STD.
    """

    name: str
    weights: str
    train: str
    test: str
    budgets: tuple[float, ...]
    batch_size: int
    takes_bytes: bool = False

    def place(self, folder: Path) -> Path:
        """The file of the weights."""
        return folder / "weights" / f"{self.weights}.safetensors"

    def digest(self, folder: Path) -> str:
        """What tells other weights from these: the start of a hash of the file."""
        return hashlib.sha256(self.place(folder).read_bytes()).hexdigest()[:16]

    def load(self, folder: Path) -> nn.Module:
        """The network with its weights, in eval mode."""
        return read_function(f"{folder / 'networks.py'}:load", "the network", "networks.py:load")(self.place(folder)).eval()  # pyright: ignore[reportCallIssue]


MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CIFAR = ("cifar10_train", "cifar10_test", (0.5, 0.33), 64)
NETWORKS = (
    Pretrained("resnet20", "cifar10_resnet20_jpegtuned", *CIFAR),
    Pretrained("resnet32", "cifar10_resnet32", *CIFAR),
    Pretrained("resnet8", "cifar10_resnet8_mlperf_tiny", *CIFAR, takes_bytes=True),
    Pretrained(
        "googlenet", "imagenet_googlenet_bvlc", "imagenet_train_sample_googlenet", "imagenet_val_googlenet", (0.7, 0.5), 20
    ),
    Pretrained(
        "tinydarknet", "imagenet_tinydarknet", "imagenet_train_sample_tinydarknet", "imagenet_val_tinydarknet", (0.7, 0.5), 20
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network with its images.

    train: for calibration and fine-tuning.
    digest: of the weights.
    """

    network: Pretrained
    model: nn.Module
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    digest: str


def case(network: Pretrained, folder: Path, *, n_train: int, n_test: int) -> Case:
    """The network, with at most so many images, drawn once for all seeds.

    Raises:
        ValueError: a file or a function is not there, or fails.
    """
    train, test = (drawn(read_data(f"{folder / 'loaders.py'}:{name}"), n) for name, n in ((network.train, n_train), (network.test, n_test)))
    if network.takes_bytes:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        train, test = (((inputs * std + mean) * 255, targets) for inputs, targets in (train, test))
    return Case(network, network.load(folder), train, test, network.digest(folder))


def drawn(data: Any, n: int) -> tuple[Tensor, Tensor]:
    """So many samples of a data set of (input, target), spread over it: its order may be by class."""
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n].tolist()
    inputs, targets = default_collate([data[row] for row in rows])
    return inputs, targets
