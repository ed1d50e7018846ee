"""Running a model: its arguments, and modes that come back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tenfold
from tenfold.running import batch_size, call, eval_mode, first_samples, probing


def test_eval_mode_restores_every_module_also_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.ReLU()))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(KeyError), eval_mode(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == modes


def test_probing_runs_compiled_modules_as_they_are_written():
    torch._dynamo.reset()  # other tests may have used up the number of compilations that torch allows for a forward
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model = nn.Sequential(torch.compile(nn.Linear(3, 3), backend=backend))
    with probing(model):
        assert not torch.is_grad_enabled() and not model(torch.zeros(2, 3)).requires_grad
    assert compiled == []
    model(torch.zeros(2, 3))
    assert len(compiled) == 1


class Stream(nn.Module):
    """Keeps an average of what it has seen, changed in place, the last output as a new tensor, and registers a counter when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.register_buffer("average", torch.zeros(16))
        self.register_buffer("last", None)

    def forward(self, x: Tensor) -> Tensor:
        self.average.mul_(0.9).add_(x.mean(0))
        self.last = self.norm(self.linear(x + self.average))
        self.register_buffer("n_calls", torch.ones(()))
        return self.last


def test_buffers_are_as_before_after_probing_save_those_that_learn():
    model, x = Stream().train(), torch.randn(6, 16)
    average = model.average
    with pytest.raises(KeyError), probing(model, learning=[model.norm]):
        model.norm.train()
        model(x)
        raise KeyError
    assert model.average is average and not average.any() and model.last is None and "n_calls" not in model._buffers
    assert model.norm.num_batches_tracked == 1 and model.norm.running_mean.any()


@pytest.mark.parametrize("inplace", [False, True])
def test_what_only_reads_a_model_leaves_its_buffers(tmp_path: Path, inplace: bool):
    torch.manual_seed(0)
    model, data = Stream(), (torch.randn(40, 16), torch.randint(16, (40,)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    made = tenfold.plan(model, budget=0.6, inputs=data[0], calibration=data[0])
    small = tenfold.compress(model, made, calibration=data[0], inplace=inplace)
    if not inplace:
        tenfold.report(model, small, tmp_path, data=data, latency=False)
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not small.average.any() and small.last is None and not torch.equal(small.norm.running_mean, before["norm.running_mean"])
    tenfold.evaluate(small, data, reference=model)
    assert not model.average.any() and not small.average.any()


def test_call_takes_a_tensor_a_tuple_or_keywords():
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor | int = 1) -> Tensor:
            return x + y

    x = torch.ones(3, 2)
    assert call(Sum(), x)[0, 0] == 2 and call(Sum(), (x, 2 * x))[0, 0] == 3 and call(Sum(), {"y": 3, "x": x})[0, 0] == 4
    assert batch_size(x) == batch_size((x, 1)) == batch_size({"y": 3, "x": x}) == 3 and batch_size(7) == 1


def test_first_samples_cuts_what_has_the_batch_axis():
    x, table = torch.zeros(4, 3), torch.zeros(7)
    assert first_samples(x, 2).shape == (2, 3)
    cut = first_samples((x, table, "mean"), 1)
    assert cut[0].shape == (1, 3) and cut[1].shape == (7,) and cut[2] == "mean"
    assert first_samples({"ids": x}, 3)["ids"].shape == (3, 3)
    assert [one.shape for one in first_samples(([x, x], table), 1)[0]] == [(1, 3), (1, 3)] and batch_size(([x], table)) == len(x)
