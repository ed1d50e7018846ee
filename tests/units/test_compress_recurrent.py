"""Recurrent layers of trained models through plan, compress, save, load and the way back."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tenfold
from tenfold.recurrent.opened import is_closed, opened_view
from tenfold.survey import survey

VOCABULARY, HIDDEN = 20, 16


class Reader(nn.Module):
    """Characters to the next character, with two recurrent layers of different kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, 2, batch_first=True)
        self.gru = nn.GRU(HIDDEN, HIDDEN, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * HIDDEN, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.gru(self.lstm(self.embedding(ids))[0])[0])


@pytest.fixture
def model() -> Reader:
    return Reader().eval()


IDS = torch.arange(60).reshape(5, 12) % VOCABULARY
MAPS = ["ih_l0", "hh_l0", "ih_l1", "hh_l1"]


def test_the_view_shares_parameters_and_leaves_the_model_alone(model: Reader) -> None:
    view: Any = opened_view(model)
    assert view is not model and is_closed(model.lstm) and not is_closed(view.lstm)
    assert {id(p) for p in view.parameters()} == {id(p) for p in model.parameters()}
    assert_close(view(IDS), model(IDS))
    assert opened_view(model.out) is model.out


def test_a_plan_names_every_matrix(model: Reader) -> None:
    before = copy.deepcopy(model.state_dict())
    plan = tenfold.plan(model, tenfold.SVD(), budget=0.5, inputs=IDS, calibration=[IDS])
    names = [row.name for row in plan.layers]
    assert [name for name in names if name.startswith("lstm.")] == [f"lstm.{name}" for name in MAPS]
    assert "gru.hh_l0_reverse" in names and type(model.lstm) is nn.LSTM
    assert_close(dict(model.state_dict()), dict(before))
    assert plan.params_before == sum(p.numel() for p in model.parameters())
    small = tenfold.compress(model, plan, calibration=[IDS])
    assert sum(p.numel() for p in small.parameters()) == plan.params_after <= 0.5 * plan.params_before
    assert type(model.lstm) is nn.LSTM


def test_flops_of_a_map_count_every_step(model: Reader) -> None:
    plan = tenfold.plan(model, tenfold.SVD(rank=4), inputs=IDS)
    rows = {row.name: row for row in plan.layers}
    for name in ("lstm.ih_l0", "lstm.hh_l0"):
        assert rows[name].flops_before == 2 * IDS.shape[1] * 4 * HIDDEN * HIDDEN
        assert rows[name].flops_after == rows[name].flops_before, "so small a weight is rebuilt and used"


def test_full_rank_keeps_the_outputs(model: Reader) -> None:
    model = model.double()
    small: Any = tenfold.compress(model, {nn.LSTM: tenfold.SVD(rank=1.0), "gru.hh_*": tenfold.TTM(rank=1.0)})
    assert_close(small(IDS), model(IDS), rtol=1e-8, atol=1e-8)
    assert set(small.lstm.factorized) == {f"weight_{name}" for name in MAPS}
    assert set(small.gru.factorized) == {"weight_hh_l0", "weight_hh_l0_reverse"}


def test_layer_types_as_keys(model: Reader) -> None:
    """The type of a recurrent layer stands for its maps, Linear does not."""
    small: Any = tenfold.compress(model, {nn.Linear: tenfold.SVD(rank=2), nn.GRU: tenfold.SVD(rank=3)})
    assert type(small.lstm) is nn.LSTM, "left as it was"
    assert len(small.gru.factorized) == 4 and isinstance(small.out, tenfold.nn.Linear)
    assert {one.name for one in survey(opened_view(model)) if one.is_a(tenfold.nn.LSTM)} == {f"lstm.{name}" for name in MAPS}


def test_inplace_and_factorize(model: Reader) -> None:
    torch.manual_seed(0)
    made = tenfold.compress(model, {"lstm.ih_*": tenfold.SVD(rank=2)}, inplace=True)
    assert made is model and isinstance(model.lstm, tenfold.nn.LSTM) and type(model.gru) is nn.GRU
    fresh: Any = tenfold.factorize(Reader(), {nn.LSTM: tenfold.KCP(rank=2)})
    assert len(fresh.lstm.factorized) == 4 and type(fresh.gru) is nn.GRU
    fresh(IDS).sum().backward()


def test_save_and_load(model: Reader, tmp_path: Path) -> None:
    plan = tenfold.plan(model, tenfold.SVD(), budget=0.5)
    small = tenfold.compress(model, plan)
    tenfold.save(small, tmp_path / "small.safetensors", plan=plan)
    for built in (Reader, Reader().eval(), small):
        again = tenfold.load(tmp_path / "small.safetensors", built).eval()
        assert_close(again(IDS), small(IDS), rtol=0, atol=0)
        assert again.state_dict().keys() == small.state_dict().keys()
    assert str(tenfold.Plan.parse(plan.to_text()).layers) == str(tenfold.Plan.parse(plan.to_text()).layers)


def test_to_dense_gives_torch_layers_back(model: Reader) -> None:
    small = tenfold.compress(model, {nn.LSTM: tenfold.SVD(rank=5)})
    dense: Any = tenfold.to_dense(small)
    assert type(dense.lstm) is nn.LSTM and dense.state_dict().keys() == model.state_dict().keys()
    assert_close(dense(IDS), small(IDS))


def test_a_layer_that_cannot_be_opened_stays_dense_with_a_reason() -> None:
    class Own(nn.LSTM):
        pass

    model = nn.Sequential(Own(4, 4), nn.Linear(4, 4))
    rows = {row.name: row for row in tenfold.plan(model, {"1": tenfold.SVD(rank=1)}).layers}
    assert rows["0"].format is None and "there is no factorised layer for Own" in rows["0"].reason


def test_the_report_pairs_maps(model: Reader, tmp_path: Path) -> None:
    small = tenfold.compress(model, {nn.LSTM: tenfold.SVD(rank=2)})
    report = tenfold.report(model, small, tmp_path, inputs=IDS)
    assert report is not None and "lstm.ih_l0" in (tmp_path / "report.html").read_text(encoding="utf-8")
