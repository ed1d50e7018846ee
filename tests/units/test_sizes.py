"""What a model stores."""

import copy

import torch
from torch import nn

from tenfold.sizes import n_bytes, n_parameters, n_values


def test_parameters_are_counted_once():
    model = nn.ModuleDict({"words": nn.Embedding(20, 8), "body": nn.Linear(8, 8), "head": nn.Linear(8, 20, bias=False)})
    model["head"].weight = model["words"].weight
    assert n_parameters(model) == 160 + 72 and n_bytes(model) == 4 * 232
    assert n_bytes(copy.deepcopy(model).half()) == 2 * 232


def test_parameters_without_a_shape_count_as_none():
    model = nn.LazyLinear(6)
    assert n_parameters(model) == n_bytes(model) == n_values(model.weight) == 0
    model(torch.zeros(1, 4))
    assert n_parameters(model) == 30 and n_bytes(model) == 120 and n_values(model.weight) == 24
