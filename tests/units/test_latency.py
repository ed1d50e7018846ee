"""Measured latency: what is slower than dense is not used, whatever a budget of FLOP says; and what was measured is in the plan."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tenfold
from tenfold import CP, SVD, Plan, timing
from tenfold.plan import offers_for
from tenfold.ranks import latency
from tenfold.ranks.candidates import Candidate
from tenfold.ranks.latency import measured_speedups
from tenfold.running import EXAMPLES


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.spare = nn.Conv2d(16, 32, 3), nn.Conv2d(32, 32, 3), nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).relu().mean((2, 3)))


X = torch.randn(4, 16, 10, 10)


def timed_as(monkeypatch: pytest.MonkeyPatch, speed: Any) -> list[tuple[str, Candidate]]:
    """Speed-ups as a rule gives them in place of the clock's; returns what was timed."""
    seen: list[tuple[str, Candidate]] = []

    def measured(offers: Any, picked: dict[str, Candidate], inputs: Any) -> dict[tuple[str, Candidate], float]:
        seen.extend(picked.items())
        return {(name, one): speed(name, one) for name, one in picked.items()}

    monkeypatch.setattr(latency, "measured_speedups", measured)
    return seen


def by_name(made: Plan) -> dict[str, Any]:
    return {one.name: one for one in made.layers}


def test_a_slow_format_is_replaced_and_a_slow_layer_stays_dense(monkeypatch: pytest.MonkeyPatch):
    seen = timed_as(monkeypatch, lambda name, one: 0.5 if name == "second" or isinstance(one.format, CP) else 1.5)
    free = by_name(tenfold.plan(Network(), budget="flops=0.6", inputs=X, latency="ignored"))
    made = tenfold.plan(Network(), budget="flops=0.6", inputs=X, latency="measured")
    rows = by_name(made)
    assert isinstance(free["second"].format, CP) and free["second"].measured_speedup is None
    assert rows["second"].format is None and rows["second"].reason == "what would be chosen ran slower than dense here"
    assert rows["first"].format is not None and not isinstance(rows["first"].format, CP) and rows["first"].measured_speedup == 1.5
    assert made.flops_after is not None and made.flops_before is not None and made.flops_after <= 0.6 * made.flops_before
    assert max(seen.count(one) for one in seen) == 2  # what is slow is timed again, but no more
    unasked = tenfold.plan(Network(), budget="flops=0.6", inputs=X)
    assert [row.measured_speedup for row in unasked.layers] == [row.measured_speedup for row in made.layers]  # FLOP are timed
    text = Plan.parse(made.to_text())
    assert by_name(text)["first"].measured_speedup == 1.5 and re.search(r"tucker.* \d\.\d\d, measured 1\.50", str(made))


def test_ranks_above_a_slow_one_are_not_tried_and_below_it_they_are(monkeypatch: pytest.MonkeyPatch):
    seen = timed_as(monkeypatch, lambda name, one: 2.0 if one.flops < 150_000 else 0.9)
    made = by_name(tenfold.plan(Network(), SVD(), budget="flops=0.9", inputs=X, latency="measured", filter="second"))
    flops = [one.flops for _, one in seen]
    assert flops == sorted(flops, reverse=True) and len(set(flops)) > 1
    assert [flops.count(one) for one in sorted(set(flops), reverse=True)] == [2] * (len(set(flops)) - 1) + [1]  # the slow ones twice
    assert made["second"].flops_after == flops[-1] < 150_000


def test_formats_with_ranks_and_no_budget_are_timed_too(monkeypatch: pytest.MonkeyPatch):
    timed_as(monkeypatch, lambda name, one: 0.8 if name == "first" else 1.2)
    made = by_name(tenfold.plan(Network(), {"first": SVD(rank=4), "second": SVD(rank=4)}, inputs=X, latency="measured"))
    assert made["first"].format is None and made["second"].format == SVD(rank=4)


def test_budgets_of_parameters_are_not_timed_unasked(monkeypatch: pytest.MonkeyPatch):
    seen = timed_as(monkeypatch, lambda name, one: 0.5)
    assert any(row.format is not None for row in tenfold.plan(Network(), budget="params=0.6", inputs=X).layers) and not seen


def test_a_budget_out_of_reach_is_an_error_or_a_warning(monkeypatch: pytest.MonkeyPatch):
    timed_as(monkeypatch, lambda name, one: 0.9)
    with pytest.raises(
        ValueError,
        match=r"the budget asks to keep flops=0.5, .* \(what ran slower than dense here is left out; with latency=.ignored. it may be used\)$",
    ):
        tenfold.plan(Network(), budget="flops=0.5", inputs=X, latency="measured")
    with pytest.warns(
        UserWarning, match=r"^flops=0.5 cannot be kept by layers that all run as fast as dense here; .* second may be slower"
    ):
        made = tenfold.plan(Network(), budget="flops=0.5", inputs=X)
    free = tenfold.plan(Network(), budget="flops=0.5", inputs=X, latency="ignored")
    assert [row.format for row in made.layers] == [row.format for row in free.layers]
    assert {row.measured_speedup for row in made.layers if row.format is not None} == {0.9}


def test_speed_at_any_price_has_to_be_asked_for(monkeypatch: pytest.MonkeyPatch):
    """All but the smallest ranks are slow: the budget can be kept, but at a loss that is several times as large."""
    timed_as(monkeypatch, lambda name, one: 2.0 if one.flops < 60_000 else 0.9)
    words = (
        r"^flops=0.75 with layers that .* has a loss of \S+ in place of \S+ \(sum of the layers' relative squared errors\); .* "
        "may be slower: keep more"
    )
    with pytest.warns(UserWarning, match=words):
        made = tenfold.plan(Network(), SVD(), budget="flops=0.75", inputs=X)
    free = tenfold.plan(Network(), SVD(), budget="flops=0.75", inputs=X, latency="ignored")
    assert [row.format for row in made.layers] == [row.format for row in free.layers]
    asked = tenfold.plan(Network(), SVD(), budget="flops=0.75", inputs=X, latency="measured")
    assert all(row.measured_speedup == 2 for row in asked.layers if row.format is not None)


def test_with_calibration_data_a_loss_is_a_divergence(monkeypatch: pytest.MonkeyPatch):
    timed_as(monkeypatch, lambda name, one: 2.0 if one.flops < 60_000 else 0.9)
    monkeypatch.setattr(latency, "LOSS_RATIO", 0.0)  # any loss is too much
    monkeypatch.setattr(latency, "LOSS_MORE", 0.0)
    with pytest.warns(
        UserWarning, match=r"\(divergence of the outputs: nats where they are classes, else their relative squared error\); "
    ):
        tenfold.plan(Network(), SVD(), budget="flops=0.75", inputs=X, calibration=(X, X))


def test_what_is_slow_is_timed_again(monkeypatch: pytest.MonkeyPatch):
    """A machine that was busy for a moment."""
    times: list[str] = []
    timed_as(monkeypatch, lambda name, one: times.append(name) or (0.5 if len(times) < 3 else 1.5))
    made = tenfold.plan(Network(), budget="flops=0.6", inputs=X)
    free = tenfold.plan(Network(), budget="flops=0.6", inputs=X, latency="ignored")
    assert [row.format for row in made.layers] == [row.format for row in free.layers]


def test_what_is_impossible_anyway_says_nothing_of_times(monkeypatch: pytest.MonkeyPatch):
    timed_as(monkeypatch, lambda name, one: 2.0)
    with pytest.raises(ValueError, match=r"smallest reachable .* choose another format$"):
        tenfold.plan(Network(), budget="flops=0.0001", inputs=X, latency="measured")


def test_times_are_those_of_the_layers_on_their_inputs():
    model, x = nn.Sequential(nn.Linear(8, 1536), nn.Linear(1536, 1536)), torch.randn(256, 8)
    offers = offers_for(model, {"1": SVD(rank=2)}, goal=None, inputs=x)
    random_state = torch.get_rng_state()
    found = measured_speedups(offers, offers.pick(None), x)
    assert [name for name, _ in found] == ["1"]
    assert min(found.values()) > 3  # 384 times fewer FLOP
    assert torch.equal(random_state, torch.get_rng_state()) and not any(module._forward_pre_hooks for module in model.modules())


def test_layers_are_timed_on_as_many_calibration_samples_as_reports_time(monkeypatch: pytest.MonkeyPatch):
    batches: list[int] = []
    monkeypatch.setattr(timing, "race", lambda *args, race=timing.race: batches.append(args[2]) or race(*args))
    data = torch.utils.data.TensorDataset(torch.randn(80, 16, 10, 10))
    tenfold.plan(Network(), {"first": SVD(rank=2)}, calibration=data, latency="measured")
    assert set(batches) == {EXAMPLES}


def test_layers_that_do_the_same_are_timed_once(monkeypatch: pytest.MonkeyPatch):
    model = nn.Sequential(*(nn.Conv2d(24, 24, 3, padding=1) for _ in range(3)))
    x = torch.randn(2, 24, 8, 8)
    offers = offers_for(model, SVD(rank=3), goal=None, inputs=x)
    timed: list[str] = []
    race = timing.race
    monkeypatch.setattr(timing, "race", lambda *args: timed.append("") or race(*args))
    found = measured_speedups(offers, offers.pick(None), x)
    assert len(found) == 3 and len(set(found.values())) == 1 and len(timed) == 1


def test_a_layer_that_the_inputs_do_not_reach_has_no_time():
    model = Network()
    offers = offers_for(model, {"spare": SVD(rank=2), "first": SVD(rank=2)}, goal=None, inputs=X)
    assert {name for name, _ in measured_speedups(offers, offers.pick(None), X)} == {"first"}


def test_wrong_arguments():
    with pytest.raises(ValueError, match="there is no latency 'fast'; one of auto, measured, ignored is needed"):
        tenfold.plan(Network(), budget=0.5, inputs=X, latency="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='latency="measured" times layers, which needs an example input: give inputs='):
        tenfold.plan(Network(), budget=0.5, latency="measured")


def test_predicted_speedups_are_those_of_the_machine_model():
    x = torch.randn(16, 16, 32, 32)
    rows = by_name(tenfold.plan(Network(), {"first": CP(rank=8), "second": CP(rank=2)}, inputs=x))
    assert rows["second"].predicted_speedup > rows["first"].predicted_speedup > 1
    assert rows["head"].predicted_speedup is None and rows["first"].measured_speedup is None
