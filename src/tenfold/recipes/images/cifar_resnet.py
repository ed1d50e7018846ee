"""cifar-resnet: ResNet-20 on CIFAR-10, the ranks of its convolutions found by training.

Source: ResNet-20 with parameter-free shortcuts of He et al. 2015, arXiv 1512.03385, section 4.2; CIFAR-10 of Krizhevsky 2009. No number of
arXiv 2010.08689 on CIFAR-10 is known to us.
Protocol: "test" trains on all 50,000 training images, shifted by up to four pixels and mirrored, and tests on the test file; "validation"
(for choices) keeps 5,000 training images for testing. All convolutions but the first are factorised. Dense and factorised networks alike:
AdamW, a warm-up and a cosine, the same steps, bfloat16 products where the machine computes with them. Where ranks are found, the first two
thirds of the steps train the dense network (full-rank warm-up), a sixth searches from CP of as many values as if dense, and the last trains
what is left: a quarter of the values. Controls as in `mnist-mlp`; fixed ranks have no warm-up. Data are packed JPEG files (quality 75), on
which accuracies are lower than on lossless images. An epoch is about 12 TFLOP: one to three minutes on a CPU core with bfloat16, four to
five without.
Command: tenfold train cifar-resnet --data cifar10 --out cifar
Expected (measured in bfloat16, three seeds): dense 83.9 +- 0.2 %, CP with 4.0 times fewer weights 82.6 +- 0.2 %; see
docs/automatic_ranks.md.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import compress, init
from tenfold.data.images import read_packed_images
from tenfold.formats import parse_format
from tenfold.nn import Conv2d
from tenfold.recipes.automatic_ranks import Training
from tenfold.recipes.images.mlp import PROTOCOLS, all_runs, chosen, parts
from tenfold.recipes.images.rank_runs import RankRuns
from tenfold.recipes.images.rank_table import rank_table
from tenfold.recipes.images.task import ImageTask
from tenfold.recipes.options import DENSE, Options, look
from tenfold.recipes.shown import Table, write_result

DATA = ("cifar10/train_jpg.npz", "train_jpg.npz")
TEST = ("test_jpg.npz", "test_jpg_even.npz")
TAKES = ("formats", "has_dense_twin", "epochs", "batch_size", "lr", "dense_lr", "temperature", "precision", "protocol")
FORMATS = ("cp:rank=0.5",)
TRAINING = Training(
    epochs=12,
    batch_size=128,
    lr=3e-3,
    dense_lr=1e-2,
    temperature=0.03,
    least_ratio=4.0,
    kind="map",
    dense_part=2 / 3,
    tuning=1 / 6,
    weight_decay=0.1,
    search_decay=0.1,
    precision="auto",
    rebuild=True,
)
WIDTHS, N_BLOCKS = (16, 32, 64), 3


def run(options: Options) -> Table:
    """The images with the dense network and the factorised ones.

    Raises:
        ValueError: there is no test file beside the training file, or the protocol or a format do not fit.
    """
    protocol = options.protocol or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise ValueError(f"there is no protocol {protocol!r} for cifar-resnet; {' or '.join(PROTOCOLS)} is needed: choose one of them")
    place = options.find(DATA)
    other = look(place.parent, TEST)
    if other is None:
        raise ValueError(f"there is no test file beside {place}; {' or '.join(TEST)} is needed in its folder: put it there")
    train, test = parts(read_packed_images(place), read_packed_images(other), protocol)
    training = chosen(TRAINING, options)
    task = ImageTask(train, *train.moments(), training.batch_size, is_flat=False, is_augmented=True)
    formats = FORMATS if options.formats is None else options.formats
    layers = factorised_layers()
    for format in formats:
        build(format, 0)  # what does not fit is said before any training
    words = f"{place.name} and {other.name}, {protocol}: {len(train)} and {len(test)} images"
    texts = {format: f"{words}; ResNet-20; {format}" for format in (DENSE, *formats)}
    runs = RankRuns("cifar-resnet", texts, task, test, build, layers, dict.fromkeys(texts, training), options, {}, start, factorised)
    found = all_runs(runs, formats, options)
    settings = {**dataclasses.asdict(training), "data": words, "seeds": list(options.seeds)}
    result = rank_table("cifar-resnet", found, settings, (f"{words}. {training.epochs} epochs of batches of {training.batch_size}.",))
    write_result(result, options.out)
    return result


def build(format: str, seed: int) -> nn.Module:
    """A fresh network; format: `DENSE`, or the text of a format."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet(_convolution(format))
        for module in model.modules():
            if isinstance(module, Conv2d):
                start(module)
        return model


def factorised(format: str, model: nn.Module) -> nn.Module:
    """A dense network's copy with all convolutions but the first in a format; how near it comes does not matter, training goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return compress(model, dict.fromkeys(factorised_layers(), parse_format(format)[0]))


def start(layer: Conv2d) -> None:
    """Fresh values; for tree networks orthogonal ones, for normal ones begin at low rank (size: He et al. 2015, arXiv 1502.01852)."""
    layer.reset_parameters()
    if all(term.is_tree for term in layer.factorized.network.terms):
        init.orthogonal_(layer.factorized, math.sqrt(2 / (layer.in_channels * math.prod(layer.kernel_size))))


def factorised_layers() -> tuple[str, ...]:
    """The names of the convolutions that a format factorises: all but the first."""
    with torch.device("meta"):
        return tuple(name for name, one in ResNet(_convolution(DENSE)).named_modules() if isinstance(one, nn.Conv2d) and name != "first")


class ResNet(nn.Module):
    """ResNet-20 for images of 32 x 32. convolution: makes a 3x3 convolution without bias from channels in and out and a stride."""

    def __init__(self, convolution: Callable[[int, int, int], nn.Module], n_classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        blocks, n_in = [], WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for number in range(N_BLOCKS):
                blocks.append(_Block(convolution, n_in, width, 2 if stage and not number else 1))
                n_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(WIDTHS[-1], n_classes)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, classes) from (batch, 3, height, width)."""
        x = self.blocks(F.relu(self.norm(self.first(x.contiguous(memory_format=torch.channels_last)))))
        return self.head(x.mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions around a shortcut, which halves the image and pads channels with zeros where the convolutions do."""

    def __init__(self, convolution: Callable[[int, int, int], nn.Module], n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, (n_out - n_in) // 2
        self.one, self.two = convolution(n_in, n_out, stride), convolution(n_out, n_out, 1)
        self.norm_one, self.norm_two = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_two(self.two(F.relu(self.norm_one(self.one(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + shortcut)


def _convolution(text: str) -> Callable[[int, int, int], nn.Module]:
    if text == DENSE:
        return lambda n_in, n_out, stride: nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
    format, modes = parse_format(text)
    if modes:
        raise ValueError(
            f"the format {text!r} has modes, but the convolutions have different sizes; modes are chosen for each: leave them out"
        )

    def make(n_in: int, n_out: int, stride: int) -> Any:
        return Conv2d(n_in, n_out, 3, stride, 1, bias=False, format=format)

    return make
