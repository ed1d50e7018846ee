"""Models and a report for the tests of reports."""

import functools
import json
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from tenfold.evaluate import Evaluation
from tenfold.finetune import FinetuneHistory
from tenfold.formats import CP, SVD
from tenfold.layers.conv import Conv2d
from tenfold.layers.linear import Linear
from tenfold.plan import plan
from tenfold.report import Report, report
from tenfold.timing import Race

RACE = Race(1, 20, 1.0, 0.9, 2.0, 1.9, 0.5, 0.45, 0.55)


class Net(nn.Module):
    """A convolution that is compressed, one that is not, normalisation, and a compressed linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.out = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.second(self.norm(self.first(x)).relu()).mean((2, 3)))


def pair(seed: int = 0) -> tuple[Net, Net]:
    """A model and its compressed version, in training mode."""
    torch.manual_seed(seed)
    dense, small = Net(), Net()
    small.load_state_dict(dense.state_dict())
    small.second = Conv2d.from_dense(small.second, CP(rank=4))
    small.out = Linear.from_dense(small.out, SVD(rank=2))
    return dense, small


def images(count: int = 12) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(count, 3, 8, 8, generator=generator), torch.randint(0, 4, (count,), generator=generator))


@functools.cache
def everything() -> tuple[Report, str, dict]:
    """A report with everything in it, its page and its JSON."""
    dense, small = pair()
    data = images()
    rows = plan(dense, {"second": CP(rank=4), "out": SVD(rank=2)}, inputs=data.tensors[0])
    history = FinetuneHistory((2.0, 1.5, 1.2, 1.0), (1e-3,) * 4, (0.25, 0.5), (1.6, 1.4), (1.0, 1.0))
    before = Evaluation(0.25, 2.0, 12)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "new"
        result = report(
            dense, small, folder, plan=rows, data=data, history=history, before=before, command="tenfold compress a.py:net", seed=7
        )
        assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
        return result, (folder / "report.html").read_text("utf-8"), json.loads((folder / "report.json").read_text("utf-8"))
