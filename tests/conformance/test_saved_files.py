"""Conformance, items 7 and 8: a saved file gives back every layer bit by bit, is as large as predicted, and needs no tenfold to be read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.testing import assert_close

import tenfold
from conformance.cases import plain_case
from conformance.subjects import LAYERS, SUBJECTS, Subject

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)


def model_of(subject: Subject, *, is_dense: bool = False) -> nn.ModuleDict:
    """All layers of one format side by side, or their dense twins."""
    cases = {kind.__name__: plain_case(subject, kind) for kind in LAYERS}
    return nn.ModuleDict({name: case.dense if is_dense else case.layer() for name, case in cases.items()})


def read_weight(path: Path, name: str) -> torch.Tensor:
    """The dense weight of one layer, with safetensors and einsum only; padding is cut off where no axis is grouped."""
    with safe_open(path, "pt") as file:
        layer = json.loads(file.metadata()["layers"])[name]
        left, right = layer["statement"].split(" -> ")
        numbers = {index: n for n, index in enumerate(layer["sizes"])}
        dense, n = torch.zeros(()), 0
        for term in left.split(" + "):
            operands: list[Any] = []
            for factor in term.split(", "):
                operands += [file.get_tensor(f"{name}.factorized.factors.{n}"), [numbers[i] for i in factor.split()]]
                n += 1
            dense = dense + torch.einsum(*operands, [numbers[i] for i in right.split()])
        return dense.reshape([axis[1] for axis in layer["axes"]])


@EVERY
def test_save_and_load_are_bit_equal(subject: Subject, tmp_path: Path) -> None:
    model = model_of(subject)
    path = tmp_path / "model.safetensors"
    tenfold.save(model, path)
    for loaded in (tenfold.load(path, lambda: model_of(subject, is_dense=True)), tenfold.load(path, model_of(SUBJECTS[0], is_dense=True))):
        assert loaded.state_dict().keys() == model.state_dict().keys()
        assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
        for kind in LAYERS:
            mine, other = model[kind.__name__], loaded[kind.__name__]  # type: ignore[index]
            assert type(other) is kind and repr(other) == repr(mine)
            inputs = plain_case(subject, kind).inputs
            assert_close(other(*inputs), mine(*inputs), rtol=0, atol=0)


@EVERY
def test_a_reader_without_tenfold(subject: Subject, tmp_path: Path) -> None:
    model = model_of(subject)
    path = tmp_path / "model.safetensors"
    tenfold.save(model, path)
    for name, layer in model.items():
        weight: Any = layer
        assert_close(read_weight(path, name), weight.factorized.dense().detach(), rtol=1e-12, atol=1e-12)


@EVERY
def test_predicted_bytes_are_those_of_the_file(subject: Subject, tmp_path: Path) -> None:
    model = model_of(subject)
    path = tmp_path / "model.safetensors"
    tenfold.save(model, path)
    predicted = 0
    for layer in model.values():
        one: Any = layer
        predicted += 8 * (one.factorized.network.numel + (0 if one.bias is None else one.bias.numel()))
    with path.open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    assert path.stat().st_size - header == predicted
