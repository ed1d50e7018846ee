"""Models for the tests of saving and exporting: every layer in every format, found and not listed."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.format import Format
from tenfold.formats import TT, TTM, Tucker, all_formats
from tenfold.layers import all_layers
from tenfold.layers.base import FactorizedLayer
from tenfold.weight import FactorizedWeight

SIZES = {
    "in_features": 23,
    "out_features": 30,
    "in_channels": 8,
    "out_channels": 12,
    "kernel_size": 3,
    "num_embeddings": 31,
    "embedding_dim": 10,
}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"groups": 2},
    {"groups": 2, "in_modes": (3, 2), "out_modes": (2, 4)},
    {"in_modes": (5, 7), "out_modes": (4, 8)},
)


def dense_twin(kind: type[FactorizedLayer], **options: Any) -> nn.Module:
    """A small torch layer of the type that a factorised layer stands for, from the names of its arguments."""
    arguments = inspect.signature(kind.dense_type).parameters
    values = {name: SIZES[name] for name, one in arguments.items() if one.default is one.empty}
    return kind.dense_type(**values, **options)


def factorised(kind: type[FactorizedLayer], format: Format, **options: Any) -> FactorizedLayer:
    modes = {name: options.pop(name) for name in ("in_modes", "out_modes") if name in options}
    dense = dense_twin(kind, **options)
    fold = format.fold(kind.fold_of(dense, kind.modes_of(format), **modes))
    layer: Any = kind.around(dense, FactorizedWeight(format.network(fold), fold))
    layer.reset_parameters()
    return layer


def every_case() -> Iterator[tuple[str, FactorizedLayer]]:
    """(id, layer): every layer in every format, plain, with groups, and with padded modes: all of these in one format, else in turns."""
    torch.manual_seed(0)
    for kind_number, (kind_name, kind) in enumerate(all_layers().items()):
        for format_number, (format_name, format) in enumerate(all_formats().items()):
            for number, options in enumerate(OPTIONS):
                if format_name != "ttm" and number != (kind_number + format_number) % len(OPTIONS):
                    continue
                if "groups" in options and "groups" not in inspect.signature(kind.dense_type).parameters:
                    continue
                yield f"{kind_name}-{format_name}-{number}", factorised(kind, format(rank=2), **options)


class Net(nn.Module):
    """Convolution, BatchNorm, a linear layer that stands twice, a head, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Linear(8, 8)
        self.again = self.shared
        self.head = nn.Linear(8, 5)
        self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x))).mean((2, 3)) * self.scale
        return self.head(torch.relu(self.again(torch.relu(self.shared(y)))))


def small_net(seed: int = 1) -> Net:
    """A `Net` whose convolution and shared layer are factorised, in eval mode, with statistics as after training."""
    torch.manual_seed(seed)
    net: Any = Net()
    net.conv = all_layers()["Conv2d"].from_dense(net.conv, Tucker(rank=2))
    net.shared = net.again = all_layers()["Linear"].from_dense(net.shared, TTM(rank=2), in_modes=(3, 3), out_modes=(2, 4))
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net.eval()


class Reader(nn.Module):
    """Several arguments, nested outputs, an input without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.table = factorised(all_layers()["Embedding"], TTM(rank=2))
        self.lstm = nn.LSTM(10, 4, batch_first=True)
        self.out = factorised(all_layers()["Linear"], TT(rank=2))
        self.widen = nn.Linear(4, 23)

    def forward(self, ids: Tensor, weight: Tensor, *, shift: Tensor | None = None) -> dict[str, Any]:
        y, state = self.lstm(self.table(ids) * weight[..., None])
        if shift is not None:
            y = y + shift
        return {"y": self.out(self.widen(y)), "state": state, "last": ids[:, -1]}


def reader_inputs() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 31, (3, 5)), torch.rand(3, 5)


def documentation() -> Path:
    return Path(__file__).parents[2] / "docs" / "file_format.md"
