"""Shrinking while training goes on: optimiser state, guards, resuming, torch.compile, several processes, and the null model."""

import copy
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from process_cases import in_two_processes
from torch import Tensor, nn
from torch.testing import assert_close

from tenfold import bayes
from tenfold.bayes import RanksWarning, Rounding, Selection, attach
from tenfold.formats import CP, TR, TT, TTM
from tenfold.nn import Linear


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(Linear(12, 12, format=TTM(rank=4)), nn.Tanh(), Linear(12, 4, format=CP(rank=4)))


def data(n: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(n, 12, generator=generator), torch.randint(0, 4, (n,), generator=generator)


class Training:
    """A model, a method and an optimiser, with ranks decided at one step."""

    def __init__(self, make: Callable[[nn.Module], Any], shrink_at: int, rule: Any) -> None:
        self.model = network()
        self.method = make(self.model)
        self.shrink_at, self.rule, self.step, self.losses = shrink_at, rule, 0, []
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.method.watch(self.optimizer)

    def run(self, until: int) -> list[float]:
        x, y = data()
        while self.step < until:
            if self.step == self.shrink_at:
                self.method.shrink(self.rule, force=True)
            self.method.step()
            loss = self.method.loss(F.cross_entropy(self.model(x), y))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
            self.step += 1
        return self.losses

    def state(self) -> Any:
        return copy.deepcopy((self.method.state_dict(), self.model.state_dict(), self.optimizer.state_dict(), self.step))

    def load(self, state: Any) -> "Training":
        method, model, optimizer, self.step = state
        self.method.load_state_dict(method)
        self.model.load_state_dict(model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.optimizer.load_state_dict(optimizer)
        self.method.watch(self.optimizer)
        return self


METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "variational": lambda model: attach(model, n_examples=64, warmup=(5, 20)),
    "map": lambda model: attach(model, n_examples=64, kind="map"),
    "l1": lambda model: bayes.L1Bonds(model, strength=0.1),
    "lasso": lambda model: bayes.GroupLasso(model, n_examples=64, strength=10.0),
    "gates": lambda model: bayes.HardConcrete(model, target=0.5, warmup=(5, 20)),
    "budget": lambda model: bayes.GlobalBudget(model, slices=6, schedule=(5, 20)),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("stop", [12, 25])
def test_resuming_is_exact_before_and_after_ranks_changed(name: str, stop: int) -> None:
    rule = Rounding(0.3, n_spreads=0)
    whole = Training(METHODS[name], 20, rule)
    losses = whole.run(32)
    first = Training(METHODS[name], 20, rule)
    first.run(stop)
    assert stop < 20 or dict(first.model[0].factorized.network.ranks) != {"r1": 4}  # pyright: ignore
    second = Training(METHODS[name], 20, rule).load(first.state())
    assert_close(torch.tensor(second.run(32)), torch.tensor(losses[stop:]), rtol=0, atol=0)
    assert second.method.decide(rule).keys() == whole.method.decide(rule).keys()
    ranks = [[dict(weight.network.ranks) for weight in one.method.run.weights.values()] for one in (whole, second)]
    assert ranks[0] == ranks[1]
    assert second.method.report().layers[0].spectra == whole.method.report().layers[0].spectra


def test_state_of_another_method_is_refused() -> None:
    state = attach(network(), n_examples=64).state_dict()
    with pytest.raises(ValueError, match=r"the state is of a Posterior\(.*N=64.*, but this one is Posterior\(.*N=65.*: attach as before"):
        attach(network(), n_examples=65).load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"the state is for the ranks .*'2': \['r'\]}, but this model has {'0': \['r1'\]}; .* attach as before"
    ):
        attach(network(), "0", n_examples=64).load_state_dict(state)


@pytest.mark.parametrize("name", METHODS)
def test_optimiser_goes_on_with_smaller_parameters(name: str) -> None:
    training = Training(METHODS[name], 10, Rounding(0.3, n_spreads=0))
    training.run(10)
    before = {p: copy.deepcopy(training.optimizer.state[p]) for p in training.model.parameters()}
    old = training.model(data()[0])
    training.run(11)
    mine = list(training.model.parameters())
    inside = [p for group in training.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in mine} == {id(p) for p in inside}
    changed = [p for p in mine if p not in before]
    assert changed
    for p in mine:
        assert training.optimizer.state[p]["exp_avg"].shape == p.shape
    factors = [
        p for weight in training.method.run.weights.values() for p in (getattr(weight.factors, str(k)) for k in range(len(weight.factors)))
    ]
    assert all(int(training.optimizer.state[p]["step"]) == 11 for p in factors)
    assert old.shape == training.model(data()[0]).shape
    training.run(14)


def test_momentum_follows_the_factors() -> None:
    """A rounding that loses nothing leaves the weight's momentary direction as it was: <gradient of W, change of W> is kept."""
    model = Linear(12, 12, bias=False, format=TT(rank=(2, 3, 2)), in_modes=(3, 4), out_modes=(3, 4), dtype=torch.float64)
    with torch.no_grad():
        model.factorized.factors[1][:, :, 2] = 0  # rank 2 of 3
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12, momentum=0.9)
    posterior = attach(model, n_examples=1, kind="map")
    posterior.watch(optimizer)
    x = torch.randn(50, 12, dtype=torch.float64)
    model(x).square().sum().backward()
    optimizer.step()
    momenta = [optimizer.state[p]["momentum_buffer"].clone() for p in model.parameters()]
    reduction = posterior.decide(Rounding(1e-5))["model"]
    posterior.shrink(Rounding(1e-5), force=True)
    assert model.factorized.network.ranks == {"r1": 2, "r2": 2, "r3": 2}
    for number, p in enumerate(model.parameters()):
        assert_close(optimizer.state[p]["momentum_buffer"], reduction.gradients(number, momenta[number]))
    new = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for number, gradient in enumerate(new):
        assert_close(
            optimizer.state[list(model.parameters())[number]]["momentum_buffer"], gradient, rtol=1e-2, atol=1e-2 * float(gradient.norm())
        )


def test_decisions_wait_for_the_learning_rate() -> None:
    model = network()
    posterior = attach(model, n_examples=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    posterior.watch(optimizer)
    posterior.step()
    optimizer.param_groups[0]["lr"] = 0.02
    with pytest.raises(
        RuntimeError, match=r"the learning rate is 0.02, 20% of its peak 0.1; ranks are decided at 5% or less, .* or give force=True"
    ):
        posterior.shrink()
    optimizer.param_groups[0]["lr"] = 0.005
    assert posterior.shrink(Rounding(0.2)).layers
    assert attach(network(), n_examples=64).shrink().layers  # without an optimiser nothing is known


@pytest.mark.parametrize("kind", ["map", "variational"])
@pytest.mark.parametrize("format", [CP(rank=6), TT(rank=4), TR(rank=3)])
def test_the_null_model_ends_with_nothing_and_says_so(kind: Any, format: Any) -> None:
    torch.manual_seed(1)
    layer = Linear(16, 16, format=format, in_modes=(4, 4), out_modes=(4, 4))
    posterior = attach(layer, n_examples=1000, kind=kind)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    posterior.watch(optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(200):
            optimizer.param_groups[0]["lr"] = 0.03 * (0.01 + 0.99 * (1 + math.cos(math.pi * step / 200)) / 2)
            posterior.step()
            optimizer.zero_grad()
            posterior.loss(torch.zeros(())).backward()
            optimizer.step()
        decision = posterior.shrink()
    texts = [str(one.message) for one in caught if one.category is RanksWarning]
    assert any("layer 'model' has collapsed: after 50 steps its weight is" in text for text in texts)
    assert any("all ranks of model were removed: these weights are now zero" in text for text in texts)
    assert decision.removed == ("model",) and set(decision.ranks["model"].values()) == {0}
    assert "REMOVED: its weight is zero" in str(decision)
    assert "(REMOVED)" in str(posterior.report())
    posterior.finish()
    assert not layer.weight.any() and torch.equal(layer(torch.randn(2, 16)), layer.bias.expand(2, 16))  # pyright: ignore


def test_removed_layers_are_left_alone() -> None:
    model = network()
    posterior = attach(model, n_examples=64)
    with torch.no_grad():
        for p in model[0].factorized.parameters():  # pyright: ignore
            p.mul_(1e-5) if p.dim() > 1 and not p.max() < -3 else None
    with pytest.warns(RanksWarning, match="all ranks of 0 were removed"):
        assert posterior.shrink(Rounding(0.1, n_spreads=0)).removed == ("0",)
    posterior.step()
    assert torch.isfinite(model(torch.randn(4, 12))).all()  # in training, where factors are read with noise
    assert set(posterior.spectra()) == {"2"} and torch.isfinite(posterior.kl())
    assert [one.name for one in posterior.shrink(Rounding(0.1, n_spreads=0)).layers] == ["2"]


def test_report_shows_spectra_over_time() -> None:
    training = Training(lambda model: attach(model, n_examples=10**5, kind="map"), 120, Selection())
    training.run(110)
    report = training.method.report()
    steps = [step for step, _ in report.layers[0].spectra["r1"]]
    assert steps == [0, 50, 100]
    assert all(list(values) == sorted(values, reverse=True) and len(values) == 4 for _, values in report.layers[0].spectra["r1"])
    text = str(report)
    assert "Posterior, 110 steps; spectra: log10 of the variance of each slice" in text
    assert "r1: 4 -> 4" in text and "step     100" in text and "0  o1 i1 r1, r1 o2 i2 -> o1 o2 i1 i2" in text
    many = replace(report.layers[0], spectra={"r1": [(0, tuple(10.0**-k for k in range(20)))]})
    assert re.search(r" 0\.0 -1\.0 .*-11\.0 \.\. -17\.0 -18\.0 -19\.0$", str(replace(report, layers=(many,))), re.MULTILINE)


def test_a_weight_that_starts_at_zero_is_measured_from_its_first_other_size() -> None:
    model = network()
    factor = model[0].factorized.factors[0]  # pyright: ignore
    with torch.no_grad():
        value = factor.clone()
        factor.zero_()
    method = bayes.GroupLasso(model, n_examples=64)
    for size, is_collapsed, text in ((0.0, False, "-"), (1.0, False, "1"), (2.0, False, "2"), (1e-4, True, "0.0001")):
        with torch.no_grad():
            factor.copy_(size * value)
        assert ("0" in method.run.measure(method._values)) == is_collapsed
        assert f"weight at {text} of its start" in str(method.report()).splitlines()[2]


def test_history_stays_short() -> None:
    model = network()
    posterior = attach(model, n_examples=64, kind="map")
    posterior.run.every = 1
    for _ in range(300):
        posterior.step()
    entries = posterior.run.history["0"]["r1"]
    assert len(entries) <= 65 and entries[0][0] == 0 and entries[-1][0] > 280


def test_compiled_models_are_traced_once_more() -> None:
    from torch._dynamo.testing import CompileCounter

    training = Training(METHODS["variational"], 3, Rounding(0.3, n_spreads=0))
    counter = CompileCounter()
    eager = training.model
    training.model = torch.compile(eager, backend=counter, fullgraph=True)  # pyright: ignore
    training.run(3)
    assert counter.frame_count == 1
    training.run(7)
    assert counter.frame_count == 2
    assert_close(training.model(data()[0]), eager(data()[0]))


def _trained(rank: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Ranks and values after 12 steps with a decision in between; half of the batch for each of two processes, or all of it."""
    from torch.nn.parallel import DistributedDataParallel

    model = network().double()
    posterior = attach(model, n_examples=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    posterior.watch(optimizer)
    x, y = data()
    part = slice(None) if rank is None else slice(rank, None, 2)
    wrapped: nn.Module = model
    for step in range(12):
        if step == 6:
            posterior.shrink(Rounding(0.3, n_spreads=0), force=True)
        if rank is not None and step in (0, 6):
            wrapped = DistributedDataParallel(model)
        posterior.step()
        loss = posterior.loss(F.cross_entropy(wrapped(x[part].double()), y[part]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    posterior.finish()
    ranks = {name: dict(one.network.ranks) for name, one in posterior.run.weights.items()}
    return ranks, {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch() -> None:
    """float64; the order of sums differs: tolerance 1e-8."""
    found = in_two_processes(_trained)
    ranks, values = _trained(None)
    for one, two in found:
        assert one == ranks
        for name, value in values.items():
            assert_close(two[name], value, rtol=1e-8, atol=1e-8)
