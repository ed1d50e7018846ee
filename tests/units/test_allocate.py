"""The choice of ranks over layers, against all choices there are."""

import itertools
import random
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tenfold import Budget
from tenfold.ranks.allocate import Option, allocate

Layers = list[list[Option]]


def case(rng: random.Random, n_layers: int, n_options: int, names: list[str]) -> tuple[Layers, dict[str, int], dict[str, int]]:
    """Layers whose options trade loss against costs as ranks do, with noise; the totals and the fixed parts."""
    layers = []
    for _ in range(n_layers):
        size = {name: rng.randint(50, 1000) for name in names}
        weight, options = 10 ** rng.uniform(-1, 1), [Option(0.0, dict(size))]
        for _ in range(n_options):
            kept = rng.random()
            costs = {name: max(1, int(size[name] * min(1.2, kept * rng.uniform(0.7, 1.3)))) for name in names}
            options.append(Option(weight * (1 - kept) ** 2 * rng.uniform(0.9, 1.1), costs))
        layers.append(options)
    fixed = {name: rng.randint(0, 100) for name in names}
    return layers, {name: fixed[name] + sum(options[0].costs[name] for options in layers) for name in names}, fixed


def loss(layers: Layers, chosen: list[int] | tuple[int, ...]) -> float:
    return sum(options[k].loss for options, k in zip(layers, chosen, strict=True))


def is_held(layers: Layers, chosen: list[int] | tuple[int, ...], totals: dict[str, int], fixed: dict[str, int], budget: Budget) -> bool:
    return all(
        sum(options[k].costs[name] for options, k in zip(layers, chosen, strict=True)) + fixed[name] <= fraction * totals[name]
        for name, fraction in budget.limits.items()
    )


@pytest.mark.parametrize("names", [["params"], ["flops"], ["params", "flops"], ["params", "flops", "bytes"]], ids="+".join)
def test_against_all_choices(names: list[str]):
    """Of 100 random cases, an error is raised exactly where no choice holds the limits, and 95 are within 5 % of the best choice."""
    rng, excess = random.Random(len(names)), []
    for _ in range(100):
        layers, totals, fixed = case(rng, rng.randint(2, 4), rng.randint(2, 6), names)
        budget = Budget(**{name: round(rng.uniform(0.15, 1), 3) for name in names})
        held = [one for one in itertools.product(*map(range, map(len, layers))) if is_held(layers, one, totals, fixed, budget)]
        if not held:
            with pytest.raises(ValueError, match="smallest reachable|at once"):
                allocate(layers, totals, fixed, budget)
            continue
        chosen = allocate(layers, totals, fixed, budget)
        assert is_held(layers, chosen, totals, fixed, budget)
        best = min(loss(layers, one) for one in held)
        excess.append(loss(layers, chosen) - best * 1.05)
    assert len(excess) > 50 and sum(one > 1e-12 for one in excess) <= 0.05 * len(excess)


def test_a_price_alone_would_miss_what_an_exchange_finds():
    """The second layer's middle option is above the line between its others: no price chooses it."""
    layers = [
        [Option(0.0, {"params": 10}), Option(10.0, {"params": 4})],
        [Option(0.0, {"params": 10}), Option(6.0, {"params": 6}), Option(7.0, {"params": 1})],
    ]
    assert allocate(layers, {"params": 20}, {"params": 0}, Budget(params=0.8)) == [0, 1]


def test_a_budget_of_one_keeps_everything():
    layers, totals, fixed = case(random.Random(0), 6, 5, ["params"])
    assert allocate(layers, totals, fixed, Budget(params=1)) == [0] * 6


def test_layers_that_cost_nothing_in_the_budget_stay_as_they_are():
    layers = [[Option(0.0, {"flops": 0}), Option(0.3, {"flops": 0})], [Option(0.0, {"flops": 8}), Option(0.1, {"flops": 3})]]
    assert allocate(layers, {"flops": 8}, {"flops": 0}, Budget(flops=0.5)) == [0, 1]


def test_a_layer_without_loss_takes_the_cheapest():
    layers = [
        [Option(0.0, {"params": 9}), Option(0.0, {"params": 2}), Option(0.0, {"params": 4})],
        [Option(0.0, {"params": 9}), Option(1.0, {"params": 1})],
    ]
    assert allocate(layers, {"params": 18}, {"params": 0}, Budget(params=0.7)) == [1, 0]


@pytest.mark.parametrize("name", ["params", "flops", "bytes"])
def test_an_impossible_budget_names_one_that_works(name: str):
    layers, totals, fixed = case(random.Random(3), 5, 4, [name])
    with pytest.raises(
        ValueError, match=f"the budget asks to keep {name}=0.0001, but the smallest reachable here is {name}=(.*); ask"
    ) as caught:
        allocate(layers, totals, fixed, Budget(**{name: 1e-4}))
    named = float(str(caught.value).split(f"is {name}=")[1].split(";")[0])
    assert is_held(layers, allocate(layers, totals, fixed, Budget(**{name: named})), totals, fixed, Budget(**{name: named}))
    with pytest.raises(ValueError, match="smallest reachable"):
        allocate(layers, totals, fixed, Budget(**{name: named - 0.0002}))


def test_limits_that_exclude_each_other():
    options = [Option(0.0, {"params": 10, "flops": 10}), Option(0.1, {"params": 1, "flops": 9}), Option(0.1, {"params": 9, "flops": 1})]
    with pytest.raises(
        ValueError, match=r"no choice of ranks keeps all of params=0.5,flops=0.5 at once, though each alone can reach .*; relax one"
    ):
        allocate([options], {"params": 10, "flops": 10}, {"params": 0, "flops": 0}, Budget(params=0.5, flops=0.5))


def test_many_layers_with_many_options():
    """60 layers with 120 options each; the loss is near the bound that any price gives from below."""
    layers, totals, fixed = case(random.Random(5), 60, 120, ["flops"])
    chosen = allocate(layers, totals, fixed, Budget(flops=0.4))
    assert is_held(layers, chosen, totals, fixed, Budget(flops=0.4))
    limit = 0.4 * totals["flops"] - fixed["flops"]
    bounds = []
    for exponent in range(-40, 80):
        price = 10 ** (exponent / 40)
        bounds.append(sum(min(o.loss + price * o.costs["flops"] / limit for o in options) for options in layers) - price)
    assert max(bounds) <= loss(layers, chosen) < 1.02 * max(bounds)


class LargestResult(TorchDispatchMode):
    """The values in the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.n_values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.n_values = max(self.n_values, result.numel())
        return result


def test_memory_is_bounded_where_hardly_a_pair_can_be_left_out(monkeypatch: pytest.MonkeyPatch):
    """Under two limits pairs of changes are compared in parts, with the same choice."""
    layers, totals, fixed = case(random.Random(1), 40, 10, ["params", "flops"])
    budget = Budget(params=0.5, flops=0.5)
    chosen = allocate(layers, totals, fixed, budget)
    monkeypatch.setattr("tenfold.ranks.allocate.PAIRS", 4096)
    with LargestResult() as largest:
        assert allocate(layers, totals, fixed, budget) == chosen
    assert largest.n_values <= 2 * 4096


def test_memory_does_not_grow_with_the_square_of_the_options():
    """200 layers with 10 options each; all pairs of changes that may help are more than a million."""
    layers, totals, fixed = case(random.Random(1), 200, 10, ["flops"])
    with LargestResult() as largest:
        allocate(layers, totals, fixed, Budget(flops=0.5))
    assert largest.n_values < 20 * sum(map(len, layers))


class CountedCosts(dict[str, float]):
    """Costs that count how often one of them is read."""

    n_reads = 0

    def __getitem__(self, name: str) -> float:
        CountedCosts.n_reads += 1
        return super().__getitem__(name)


def test_options_are_read_as_often_whatever_the_number_of_layers(monkeypatch: pytest.MonkeyPatch):
    """Under two limits; spending what is left took a look at every option in each of its steps, of which there are as many as layers."""
    layers, totals, fixed = case(random.Random(1), 120, 10, ["params", "flops"])
    layers = [[Option(option.loss, CountedCosts(option.costs)) for option in options] for options in layers]
    monkeypatch.setattr(CountedCosts, "n_reads", 0)
    allocate(layers, totals, fixed, Budget(params=0.5, flops=0.5))
    assert CountedCosts.n_reads < 300 * sum(map(len, layers))
