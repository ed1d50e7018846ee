"""Layer by layer: rows that add up, errors, spectra and FLOP."""

from typing import Any

import pytest
import torch
from report_cases import everything, images, pair
from torch import nn

from tenfold.compress import compress
from tenfold.formats import CP, SVD
from tenfold.layers.conv_transpose import ConvTranspose2d
from tenfold.plan import plan
from tenfold.report import report
from tenfold.report.layers import spectrum_of, weight_error
from tenfold.report.pairs import pair_layers
from tenfold.sizes import size_of
from tenfold.survey import survey
from tenfold.trace import trace


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert size_of(model).parameters == 16
    assert [one.params_before for one in pair_layers(model, model)] == [16, 0]


def test_every_layer_has_a_row_and_all_adds_up():
    result, _, _ = everything()
    assert [row.name for row in result.layers] == ["first", "second", "out"]
    assert sum(row.params_before for row in result.layers) + result.other_before == result.size_before.parameters
    assert sum(row.params_after for row in result.layers) + result.other_after == result.size_after.parameters
    assert result.other_before == 8 + 2 * 8 + 4  # biases and normalisation
    first, second, _ = result.layers
    assert first.format is None and first.reason == "no format is given for it"
    assert second.format == "cp:rank=4" and second.statement == "o1 r, r k1 k2, r i1 -> o1 i1 k1 k2" and second.ranks == {"r": 4}


def test_flops_of_layers_add_up_to_the_model_and_are_those_of_the_formula():
    result, _, _ = everything()
    assert result.flops_before == 2 * 64 * 8 * 27 + 2 * 64 * 8 * 72 + 2 * 8 * 4
    assert sum(row.flops_before for row in result.layers) == result.flops_before
    assert sum(row.flops_after for row in result.layers) == result.flops_after < result.flops_before
    assert result.layers[1].flops_after == 2 * 64 * (8 * 4 + 4 * 9 + 4 * 8)


def test_a_layer_that_runs_as_its_dense_kernel_says_so():
    assert everything()[0].layers[2].flops_after == everything()[0].layers[2].flops_before
    assert everything()[0].layers[2].reason == "runs as its dense kernel, which is rebuilt from the factors: smaller, not faster"


def test_errors_are_those_of_the_weights():
    result, _, _ = everything()
    dense, small = pair()
    for name, row in zip(("first", "second", "out"), result.layers, strict=True):
        old, new = getattr(dense, name).weight.detach(), getattr(small, name).weight.detach()
        torch.testing.assert_close(torch.tensor(row.error), (old - new).norm() / old.norm(), atol=1e-5, rtol=1e-4)
    assert result.layers[0].error == 0


def test_error_of_zero_weights_and_of_other_shapes_is_not_a_number():
    dense, small = pair()
    with torch.no_grad():
        dense.second.weight.zero_()
        dense.first.weight.zero_()
        small.first.weight.zero_()
    small.out = nn.Linear(8, 5)
    assert [weight_error(one) for one in pair_layers(dense, small)] == [0.0, None, None]


def test_spectrum_is_that_of_an_svd():
    dense, small = pair()
    one = spectrum_of(pair_layers(dense, small)[1])
    assert one is not None
    values = torch.linalg.svdvals(dense.second.weight.detach().double().flatten(1))
    torch.testing.assert_close(torch.tensor(one.dense, dtype=torch.float64), values / values[0], atol=1e-4, rtol=1e-3)
    assert (one.rank, one.size, one.numbers) == (4, 8, tuple(range(1, 9)))
    assert one.small[4:] == pytest.approx([0] * 4, abs=1e-6)
    torch.testing.assert_close(torch.tensor(one.energy).double(), values[:4].square().sum() / values.square().sum(), atol=1e-6, rtol=0)
    assert [one.name for one in everything()[0].spectra] == ["second", "out"]


def test_spectrum_is_of_output_features_wherever_their_axis_is():
    dense = nn.ConvTranspose2d(5, 3, 3)
    small = ConvTranspose2d.from_dense(dense, SVD(rank=2))
    one = spectrum_of(pair_layers(dense, small)[0])
    assert one is not None and (one.rank, one.size) == (2, 3)
    values = torch.linalg.svdvals(dense.weight.detach().double().transpose(0, 1).flatten(1))
    torch.testing.assert_close(torch.tensor(one.dense, dtype=torch.float64), values / values[0], atol=1e-4, rtol=1e-3)


def test_a_layer_that_is_called_twice_counts_twice(tmp_path):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    result = report(Twice(), Twice(), tmp_path, inputs=torch.randn(3, 4), latency=False)
    assert result.layers[0].flops_before == result.flops_before == 2 * 2 * 16
    assert result.races == ()


def test_a_layer_that_the_inputs_do_not_run_keeps_its_row(tmp_path):
    model = nn.MultiheadAttention(8, 2, batch_first=True)

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x, x, x)[0]

    rows = report(Attend(), Attend(), tmp_path, inputs=torch.randn(2, 3, 8), latency=False).layers
    assert [row.name for row in rows] == ["attention", "attention.out_proj"]
    assert rows[0].flops_before == 2 * 3 * 8 * 8 * 4 + 2 * 2 * 3 * 3 * 8
    assert "the inputs do not run it as a layer of its own" in rows[1].reason and rows[1].flops_before is None


def test_flops_are_the_plans_where_nothing_was_run(tmp_path):
    dense, small = pair()
    rows = plan(dense, {"second": CP(rank=4)}, inputs=images().tensors[0])
    planned, reported = rows.layers[1], report(dense, small, tmp_path, plan=rows).layers[1]
    assert (reported.flops_before, reported.flops_after) == (planned.flops_before, planned.flops_after) == (73_728, 12_800)
    assert reported.planned_error == planned.error


def test_calls_of_different_sizes_are_each_counted(tmp_path):
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + self.linear(x[:2]).sum(0)

    dense = Halves()
    small = compress(dense, SVD(rank=2))
    (row,) = report(dense, small, tmp_path, inputs=torch.randn(8, 64), latency=False).layers
    assert row.flops_before == 2 * 64 * 64 * 10 // 8


@pytest.mark.parametrize(
    "options",
    [{"batch_first": True}, {"batch_first": False}, {"batch_first": True, "activation": torch.tanh}],
    ids=["fused", "steps first", "tanh"],
)
def test_layers_that_the_fused_encoder_kernel_reads_are_named(tmp_path, options: dict[str, Any]):
    dense = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, **options), 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 5, 16)
    made = plan(dense, {"*linear1": SVD(rank=2)}, inputs=x)
    small = compress(dense, made)
    notes = [str(made), *report(dense, small, tmp_path, inputs=x, latency=False).notes]
    runs = []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(small.layers[0].linear1), "forward", lambda layer, x: runs.append(layer) or x @ layer.weight.mT + layer.bias)
        small(x)
    assert (sum("layers.0.linear1, layers.1.linear1 do not run" in note for note in notes) == 2) == (not runs)


def test_predicted_speedups_stand_beside_the_measured_ones(tmp_path):
    dense, small = pair()
    made = report(dense, small, tmp_path, inputs=images().tensors[0])
    first, second, out = made.layers
    assert first.predicted == () and first.races == ()
    assert [batch for batch, _ in second.predicted] == [race.batch for race in second.races] == [1, 12]
    load = trace(dense, images().tensors[0], survey(dense)).workload(next(one for one in survey(dense) if one.name == "second"))
    assert load is not None
    assert dict(second.predicted)[12] == load.speedup(small.second.factorized.network, 12) > dict(second.predicted)[1]
    shown = (tmp_path / "report.html").read_text("utf-8")
    assert shown.count(", predicted ") == len(second.predicted) + len(out.predicted)
    assert "Predicted speed-ups of layers are those of the machine model" in shown
