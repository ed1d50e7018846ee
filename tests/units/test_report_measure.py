"""Counting and timing of models."""

import time
from collections.abc import Callable

import pytest
import torch
from report_cases import everything, pair
from torch import nn

from tenfold.flops import model_flops
from tenfold.formats import SVD
from tenfold.layers.linear import Linear
from tenfold.report.measure import Race, first_samples, race


def test_sizes_count_parameters_and_buffers():
    result, _, _ = everything()
    dense, small = pair()
    assert result.size_before.parameters == sum(p.numel() for p in dense.parameters())
    assert result.size_after.parameters == sum(p.numel() for p in small.parameters())
    assert result.size_before.buffers == 8 + 8 + 1
    assert result.size_before.size_bytes == 4 * (result.size_before.parameters + 16) + 8  # the counter of batches is int64


def test_times_are_measured_at_batch_1_and_a_larger_one():
    result, _, _ = everything()
    assert [one.batch for one in result.races] == [1, 12]
    for one in (*result.races, *result.layers[1].races):
        assert one.dense_min_ms <= one.dense_ms and one.small_min_ms <= one.small_ms and one.speedup_low <= one.speedup_high
        assert one.speedup == one.dense_ms / one.small_ms
    assert result.layers[0].races == ()  # it is the same layer


def test_race_knows_which_is_slower(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def lasting(seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds

        return run

    one = race(lasting(1e-3), lasting(3e-5), 4, torch.device("cpu"), 0.02)
    assert one.verdict == "faster" and one.batch == 4 and one.n_runs == 16  # 0.02 s of turns that last 1 ms + 7 x 0.03 ms
    assert (one.dense_ms, one.small_ms) == (pytest.approx(1.0), pytest.approx(0.03))
    assert one.speedup == pytest.approx(1 / 0.03) and one.noise == pytest.approx(1.0)
    assert race(lasting(1e-3), lasting(2e-3), 1, torch.device("cpu"), 0.02).verdict == "slower"
    assert race(lasting(1e-3), lasting(1.01e-3), 1, torch.device("cpu"), 0.02).verdict == "same"


@pytest.mark.parametrize(
    ("speedup", "low", "high", "small_min", "verdict"),
    [
        (0.5, 0.4, 0.6, 1.8, "slower"),
        (2.0, 1.5, 2.5, 0.5, "faster"),
        (1.02, 1.01, 1.03, 0.9, "same"),
        (0.5, 0.4, 1.1, 1.8, "same"),
        (0.5, 0.4, 0.6, 0.8, "same"),
    ],
)
def test_verdict_needs_quartiles_and_minima_to_agree(speedup, low, high, small_min, verdict):
    assert Race(1, 20, 1.0, 0.9, 1 / speedup, small_min, speedup, low, high).verdict == verdict


def test_flops_of_lstm_and_attention_are_counted():
    assert model_flops(nn.LSTM(8, 16, batch_first=True), torch.randn(2, 5, 8)) == 2 * 5 * 64 * (8 + 16)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    expected = 2 * 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 2 * 5 * 5 * 16
    assert model_flops(layer, torch.randn(2, 5, 16)) == expected
    assert torch.backends.mha.get_fastpath_enabled()
    layer.linear1 = Linear.from_dense(layer.linear1, SVD(rank=2))  # type: ignore[assignment]
    assert model_flops(layer, torch.randn(2, 5, 16)) == expected  # it runs as its dense kernel, which is made once and not counted


def test_first_samples_cuts_what_has_the_batch_axis():
    x, table = torch.zeros(4, 3), torch.zeros(7)
    assert first_samples(x, 2).shape == (2, 3)
    cut = first_samples((x, table, "mean"), 1)
    assert cut[0].shape == (1, 3) and cut[1].shape == (7,) and cut[2] == "mean"
    assert first_samples({"ids": x}, 3)["ids"].shape == (3, 3)
