"""report: what it measures, writes and refuses."""

import json
import re
from dataclasses import replace

import pytest
import torch
from report_cases import Net, everything, images, pair
from torch import nn
from torch.utils.data import TensorDataset

from tenfold.evaluate import Evaluation
from tenfold.finetune import FinetuneHistory
from tenfold.formats import SVD
from tenfold.layers.linear import Linear
from tenfold.report import report
from tenfold.report.data import Curve


def test_accuracy_and_agreement():
    result, _, _ = everything()
    dense, small = pair()
    inputs, labels = images().tensors
    with torch.no_grad():
        old, new = dense.eval()(inputs).argmax(1), small.eval()(inputs).argmax(1)
    assert result.dense is not None and result.small is not None
    assert result.dense.accuracy == int((old == labels).sum()) / 12
    assert result.small.agreement == int((old == new).sum()) / 12


def test_models_are_only_read(tmp_path):
    dense, small = pair()
    dense.first.eval()
    states = [{key: value.clone() for key, value in model.state_dict().items()} for model in (dense, small)]
    report(dense, small, tmp_path, data=images())
    assert dense.training and small.training and not dense.first.training
    assert not any(module._forward_pre_hooks for module in dense.modules())
    for model, state in zip((dense, small), states, strict=True):
        torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)


def test_compiled_and_bare_models(tmp_path):
    dense, small = pair()
    names = [row.name for row in report(torch.compile(dense), torch.compile(small), tmp_path, latency=False).layers]
    assert names == ["first", "second", "out"]
    layer = nn.Linear(256, 256)
    bare = report(layer, Linear.from_dense(layer, SVD(rank=2)), tmp_path, inputs=torch.randn(16, 256), latency=False)
    assert [(row.name, row.format) for row in bare.layers] == [("(the model itself)", "o1 r, r i1 -> o1 i1")]
    assert bare.flops_after == 2 * 2 * 512


def test_curve_bins_losses_and_keeps_their_mean():
    losses = tuple(float(k) for k in range(1000))
    curve = Curve.of(FinetuneHistory(losses, losses, (), (), (1.0, 1.0)))
    assert len(curve.losses) <= 120 and curve.n_steps == 1000 and curve.epochs[-1] == 2.0
    assert sum(curve.losses[:-1]) / (len(curve.losses) - 1) == pytest.approx(499.5, abs=5)


def test_text_is_a_table_with_every_layer():
    text = str(everything()[0])
    assert everything()[0].summary in text
    for row in everything()[0].layers:
        assert re.search(rf"^{row.name} .*{re.escape(row.format or 'dense')}", text, re.MULTILINE)


def test_json_is_the_report():
    result, _, data = everything()
    assert data["seed"] == 7 and data["command"] == "tenfold compress a.py:net" and data["version"] == 1
    assert data["size_after"]["parameters"] == result.size_after.parameters
    assert tuple(data["flops_planned"]) == result.flops_planned == (result.flops_before, result.flops_after)  # as counted on a run
    assert [row["name"] for row in data["layers"]] == ["first", "second", "out"]
    assert {"python", "torch", "tenfold", "threads", "device", "date", "dtype"} <= set(data["environment"])
    assert data["plan"].count('use = "cp:rank=4"') == 1 and data["history"]["accuracies"] == [0.25, 0.5]
    broken = replace(result, dense=Evaluation(None, float("nan"), 1))
    assert json.loads(broken.to_json())["dense"]["loss"] is None


def test_needs_two_modules(tmp_path):
    with pytest.raises(
        TypeError, match=r"small is a dict; the report needs two torch modules: give the dense model, then the compressed one"
    ):
        report(nn.Linear(2, 2), {}, tmp_path)  # type: ignore[arg-type]


def test_needs_models_that_belong_together(tmp_path):
    with pytest.raises(ValueError, match=r"the compressed Linear has no layer 'first', which the dense Net has; .* check the order"):
        report(Net(), nn.Linear(2, 2), tmp_path)
    dense, small = pair()
    small.out = Linear(8, 5, format=SVD(rank=2))
    with pytest.raises(
        ValueError, match=r"layer 'out' has a weight of shape \(4, 8\) in the dense model and \(5, 8\) in the compressed one"
    ):
        report(dense, small, tmp_path)


def test_needs_one_device(tmp_path):
    with pytest.raises(ValueError, match=r"the dense model is on cpu and the compressed one on meta; .* move one of them"):
        report(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"), tmp_path)


def test_needs_values(tmp_path):
    with pytest.raises(
        ValueError, match=r"model has the parameter 'weight' without a shape yet; the report needs values: run the model once"
    ):
        report(nn.LazyLinear(2), nn.Linear(2, 2), tmp_path)


def test_needs_data(tmp_path):
    with pytest.raises(ValueError, match="have no samples"):
        report(*pair(), tmp_path, data=TensorDataset(torch.zeros(0, 3, 8, 8), torch.zeros(0)))
    assert not list(tmp_path.iterdir())


def test_needs_a_folder(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(OSError, match=r"the report cannot use .*file.*; a folder that can be written is needed: choose another out_dir"):
        report(*pair(), tmp_path / "file")


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tenfold.files.os.fsync", fail)
    with pytest.raises(OSError, match="No space left on device"):
        report(*pair(), tmp_path)
    assert not list(tmp_path.iterdir())
