"""Running a model: its arguments, and modes that come back."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
