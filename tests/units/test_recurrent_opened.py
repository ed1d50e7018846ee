"""Opening and closing: what is left dense stays the very module, names of layers stand for their maps, one map of [x, h] goes back too."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tenfold


def test_a_layer_that_is_left_dense_stays_the_same_object() -> None:
    model = nn.ModuleDict({"a": nn.LSTM(8, 8), "b": nn.LSTM(8, 8)})
    left = model["a"]
    tenfold.compress(model, {"b.ih_*": tenfold.SVD(rank=2)}, inplace=True)
    assert model["a"] is left and isinstance(model["b"], tenfold.nn.LSTM)


def test_the_name_of_a_recurrent_layer_stands_for_its_maps() -> None:
    model = nn.ModuleDict({"a": nn.LSTM(8, 8), "b": nn.Linear(8, 8)})
    small: Any = tenfold.compress(model, {"*": tenfold.SVD(rank=3), "a": tenfold.SVD(rank=2), "a.hh_l0": None})
    assert {name: one.network.ranks for name, one in small["a"].factorized.items()} == {"weight_ih_l0": {"r": 2}}
    assert small["b"].factorized.network.ranks == {"r": 3}


@pytest.mark.parametrize("kind", [tenfold.nn.LSTM, tenfold.nn.GRU, tenfold.nn.RNN], ids=lambda kind: kind.__name__)
def test_one_map_of_input_and_state_to_torch(kind: Any) -> None:
    model = nn.Sequential(kind(12, 8, joint_format=tenfold.TTM(rank=2))).requires_grad_(False)
    dense: Any = tenfold.to_dense(model)
    x = torch.randn(4, 3, 12)
    assert type(dense[0]) is kind.dense_type and not any(p.requires_grad for p in dense.parameters())
    assert_close(dense(x)[0], model(x)[0], rtol=1e-4, atol=1e-5)
