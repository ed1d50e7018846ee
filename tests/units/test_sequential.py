"""Layers calibrated one after another: each corrects what went wrong before it, in the order of calls, also where layers are shared."""

import copy
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import CP, SVD, Tucker, compress
from tenfold.calibrate import MatchedNorms
from tenfold.sequential import PULL, PairedInputs, call_order, stages
from tenfold.survey import survey


class Chain(nn.Module):
    """Convolutions and a BatchNorm, then a layer that is called twice; registered in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 5)
        self.twice = nn.Conv2d(12, 12, 3, padding=1)
        self.first = nn.Conv2d(6, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        for _ in range(2):
            x = F.relu(self.twice(x))
        return self.head(x.mean((2, 3)))


FORMATS = {"first": CP(rank=10), "twice": Tucker(rank=7), "head": SVD(rank=3)}


def images(n: int, seed: int = 0) -> Tensor:
    return F.avg_pool2d(torch.randn(n, 6, 10, 10, generator=torch.Generator().manual_seed(seed)), 3, 1)


def chain() -> Chain:
    torch.manual_seed(0)
    return Chain().eval()


def distance(model: nn.Module, small: nn.Module) -> float:
    x = images(100, seed=9)
    with torch.no_grad():
        expected = model(x)
        return float((small.eval()(x) - expected).norm() / expected.norm())


def test_the_order_is_that_of_calls():
    model = chain()
    layers = survey(model)
    order = call_order(model, layers, images(2))
    assert order == ["first", "twice", "twice", "head"]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [[one.name for one in stage] for stage in stages(order, layers, 2)] == [["first", "twice"], ["head", "unused"]]
    assert [len(stage) for stage in stages(order, layers, 99)] == [1, 1, 1, 1]


def test_errors_made_before_a_layer_are_corrected():
    model, data = chain(), images(300)
    plain = compress(model, FORMATS, calibration=data)
    sequential = compress(model, FORMATS, calibration=data, sequential=True)
    assert distance(model, sequential) < 0.9 * distance(model, plain)
    assert not any(module._forward_pre_hooks or module._forward_hooks for one in (model, sequential) for module in one.modules())


def test_in_place_is_the_same():
    model, data = chain(), images(120)
    expected = compress(model, FORMATS, calibration=data, sequential=True)
    made = compress(copy.deepcopy(model), FORMATS, calibration=data, sequential=True, inplace=True)
    torch.testing.assert_close(made.state_dict(), expected.state_dict(), rtol=1e-5, atol=1e-6)


def test_the_goal_is_wieners():
    """The weight that maps the inputs of the changed model to the outputs of the dense one with the least squared error, by torch's solver."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)).double().eval()
    partly, x = copy.deepcopy(model), torch.randn(500, 6, dtype=torch.float64)
    with torch.no_grad():
        partly[0].weight += 0.3 * torch.randn(8, 6)
    found = survey(model)[1]
    with (
        MatchedNorms(partly, model) as norms,
        PairedInputs({"1": model[1]}, {"1": partly[1]}, ["0", "1"], norms) as paired,
        torch.no_grad(),
    ):
        for part in x.split(100):
            paired.run(part)
        goal = paired.goal(found, False)
        inputs, wanted = partly[0](x), model[0](x) @ model[1].weight.T
    assert goal.metric is not None
    pull = (PULL * inputs.square().sum() / 8).sqrt()  # of rows that ask for the dense weight
    rows = torch.cat([inputs, pull * torch.eye(8, dtype=torch.float64)])
    targets = torch.cat([wanted, pull * model[1].weight.detach().T])
    expected = torch.linalg.lstsq(rows, targets).solution.T
    torch.testing.assert_close(goal.weight, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(goal.metric.moment[0], inputs.T @ inputs / 500, rtol=1e-9, atol=1e-12)


def test_a_model_that_has_not_changed_keeps_its_weights():
    model = chain()
    partly = copy.deepcopy(model)
    names = ["first", "twice", "head"]
    modules: Any = [{name: one.get_submodule(name) for name in names} for one in (model, partly)]
    order = call_order(model, survey(model), images(2))
    with MatchedNorms(partly, model) as norms, PairedInputs(*modules, order, norms) as paired, torch.no_grad():
        paired.run(images(60))
        for found in survey(model):
            goal = paired.goal(found, False)
            torch.testing.assert_close(goal.weight, found.weight.detach(), rtol=1e-3, atol=1e-5)
            assert (goal.metric is None) == (found.name == "unused")


@pytest.mark.parametrize("n_samples", [1, 64])
def test_inputs_that_never_vary_leave_the_dense_weight_to_be_fitted(n_samples: int):
    """One sample, also many times: their covariance is rounding, which divided by next to nothing once gave weights of 1e15."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 8)).eval()
    x = torch.randn(1, 12).expand(n_samples, -1)
    whole, apart = (compress(model, {"0": SVD(rank=5), "2": SVD(rank=5)}, calibration=x, sequential=one) for one in (True, False))
    for name in ("0", "2"):
        torch.testing.assert_close(whole.get_submodule(name).weight, apart.get_submodule(name).weight, rtol=1e-4, atol=1e-5)


def test_recurrent_layers_take_part():
    torch.manual_seed(1)
    lstm = nn.LSTM(8, 10, batch_first=True)
    x = torch.randn(40, 6, 8)
    small = compress(lstm, {"*": SVD(rank=6)}, calibration=x, sequential=True)
    plain = compress(lstm, {"*": SVD(rank=6)}, calibration=x)
    with torch.no_grad():
        errors = [(one(x)[0] - lstm(x)[0]).norm() for one in (small, plain)]
    assert errors[0] < 1.1 * errors[1]


def test_sequential_needs_data():
    with pytest.raises(
        ValueError, match="sequential=True has no calibration data; layers are calibrated one after another.*give calibration="
    ):
        compress(chain(), FORMATS, sequential=True)


def test_sequential_in_place_needs_a_model_that_can_be_copied():
    model = chain()
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match="sequential=True has a model that cannot be copied; .*leave out inplace=True"):
        compress(model, FORMATS, calibration=images(20), sequential=True, inplace=True)
