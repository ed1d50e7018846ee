"""Errors of plans: those that compress reaches, and picks that follow them."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tenfold
from tenfold import Budget
from tenfold.decompose import group_tensors
from tenfold.formats import CP, SVD, TTM, Tucker
from tenfold.plan import offers_for
from tenfold.progress import silent
from tenfold.ranks import latency, reached
from tenfold.ranks.latency import timed_plan
from tenfold.ranks.offers import Offers


class Network(nn.Module):
    """Convolutions without biases, so that errors are those of outputs as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.head = nn.Linear(24, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))


def edges(count: int) -> Tensor:
    """Images whose patches are far from a product of channels and places: of each channel another half is dark."""
    x = torch.randn(count, 3, 12, 12).cumsum(-1)
    x[:, 0, :, :6], x[:, 1, :6], x[:, 2, 6:] = 0, 0, 0
    return x


def output_error(model: nn.Module, small: nn.Module, name: str, x: Tensor) -> float:
    """The relative error of a layer's outputs on the inputs that it gets in the dense model."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    with torch.no_grad():
        model(x)
        handle.remove()
        return float((small.get_submodule(name)(seen[0]) - seen[1]).norm() / seen[1].norm())


@pytest.mark.parametrize(
    "options", [{"budget": 0.5}, {"format": {"two": CP(), "head": "ttm"}, "budget": 0.6}, {"format": Tucker(rank=6)}], ids=str
)
def test_a_plan_names_the_errors_that_compress_reaches(options: dict[str, Any]):
    model, x = Network(), edges(1024)  # so many that covariances are hardly shrunk
    plan = tenfold.plan(model, calibration=x, **options)
    small = tenfold.compress(model, plan, calibration=x)
    rows = [row for row in plan.layers if row.format is not None and row.name != "head"]  # whose few rows are drawn to even variances
    assert rows
    for row in rows:
        assert row.error == pytest.approx(output_error(model, small, row.name, x), rel=0.02), row.name


def test_the_best_of_all_picks_counts_and_each_is_decomposed_once(monkeypatch: pytest.MonkeyPatch):
    offers = offers_for(Network(), goal=Budget(params=0.5), calibration=edges(32))
    jobs: list[tuple[str, str]] = []
    solve = reached.decompose_each

    def counted(given: Any, **options: Any) -> Any:
        jobs.extend((job.name, str(job.format)) for job in given)
        return solve(given, **options)

    monkeypatch.setattr(reached, "decompose_each", counted)
    tried: list[Any] = []

    def pick(one: Offers) -> Any:
        tried.append(one.pick(Budget(params=0.5)))
        return one, tried[-1]

    made, best = reached.settled(offers, pick, silent)
    assert len(jobs) == len(set(jobs)) >= 2
    known = [picks for picks in tried if all(one in made.reached[name] for name, one in picks.items())]
    assert made.loss(best) == min(map(made.loss, known))
    _, again = reached.settled(made, pick, silent)
    assert again == best and len(jobs) == len(set(jobs)), "what was asked before changes nothing"


def test_layers_are_solved_with_those_that_compress_solves_them_with():
    model = nn.Sequential(*(nn.Conv2d(12, 12, 3, padding=1) for _ in range(5)))
    x, budgets = torch.randn(32, 12, 6, 6), [Budget(params=kept / 100) for kept in (40, 45, 50, 55, 60)]
    offers = offers_for(model, CP(), goal=budgets[0], calibration=x)
    first = {str(goal): timed_plan(offers, goal, "ignored", None, silent)[1] for goal in budgets}
    offers.decomposed.clear()
    assert first == {str(goal): timed_plan(offers, goal, "ignored", None, silent)[1] for goal in reversed(budgets)}
    plan = first[str(budgets[-1])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what CP says of random weights
        small = tenfold.compress(model, plan, calibration=x)
    rows = [row for row in plan.layers if row.format is not None]
    assert len({row.format for row in rows}) < len(rows), "some are solved together"
    for row in rows:
        factorized, dense = small.get_submodule(row.name).factorized, model.get_submodule(row.name).weight
        folded = [group_tensors(factorized.fold, weight.detach().double()) for weight in (dense, factorized.dense())]
        metric = offers.moments[row.name]
        error = metric.error(*(metric.matrices(factorized.fold, one) for one in folded)).sqrt()
        assert row.error == pytest.approx(float(error), rel=1e-6), row.name


def test_weights_need_no_decomposition(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reached, "decompose_each", lambda *_, **__: pytest.fail("errors of weights are known"))
    assert tenfold.plan(Network(), budget=0.5).params_after > 0


def test_what_cannot_be_decomposed_keeps_the_error_that_it_names(monkeypatch: pytest.MonkeyPatch):
    broken = torch.linalg.LinAlgError("no")
    monkeypatch.setattr(reached, "decompose_each", lambda jobs, **_: [(job, broken) for job in jobs])
    plan = tenfold.plan(Network(), TTM(rank=4), calibration=edges(32))
    assert all(row.error is not None and row.error > 0 for row in plan.layers if row.format is not None)


def test_inputs_that_never_vary_leave_the_errors_of_weights():
    model = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(32, 32), nn.ReLU())), nn.Linear(32, 8))
    blind = tenfold.plan(model, budget=0.5, calibration=torch.randn(1, 32))
    assert all(row.metric == "weight" for row in blind.layers if row.format is not None)
    said = [[(row.name, row.format, row.error) for row in one.layers] for one in (blind, tenfold.plan(model, budget=0.5))]
    assert said[0] == [(name, format, pytest.approx(error)) for name, format, error in said[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exact_fit_tells_nothing_of_smaller_ranks(dtype: torch.dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Tanh(), nn.Linear(64, 8))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.randn(64, 6) @ torch.randn(6, 64) / 20)  # as of a model that was compressed before
    offers = offers_for(model.to(dtype), {"0": SVD()}, goal=Budget(params=0.5), calibration=torch.randn(500, 64).to(dtype))
    exact, small = (next(one for one in offers.candidates["0"] if one.format == SVD(rank=rank)) for rank in (6, 4))
    guessed = reached.with_reached(offers, {"0": exact}, silent).loss({"0": small})
    assert guessed == pytest.approx(reached.with_reached(offers, {"0": small}, silent).loss({"0": small}), rel=0.05)


def test_a_plan_that_is_fast_needs_no_other_however_slow_the_estimates_are(monkeypatch: pytest.MonkeyPatch):
    x, goal = edges(32), Budget(flops=0.3)
    offers = offers_for(Network(), goal=goal, calibration=x, inputs=x[:4])
    offers = replace(offers, effects=[replace(offers.effects[0], scale=1e-3), *offers.effects[1:]])  # the first layer looks harmless
    _, free = reached.settled(offers, lambda one: (one, one.pick(goal)), silent)
    assert free != offers.pick(goal)

    def speeds(_: Any, picked: Any, __: Any) -> Any:
        return {(name, one): 1.5 if free.get(name) == one else 0.5 for name, one in picked.items()}

    monkeypatch.setattr(latency, "measured_speedups", speeds)
    _, plan = latency.timed_plan(offers, goal, "measured", x[:4], silent)
    rows = [row for row in plan.layers if row.format is not None]
    assert {row.name: row.format for row in rows} == {name: one.format for name, one in free.items()}
    assert {row.measured_speedup for row in rows} == {1.5}
