"""Levenberg-Marquardt for CP; exact recovery and odd sizes are in tests/golden/test_stable_cpd.py."""

import pytest
import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.epc import epc
from tenfold.solvers.levenberg_marquardt import CPLayout, levenberg_marquardt
from tenfold.solvers.quadratic import assemble
from tenfold.solvers.sensitivity import rebalance, sensitivity
from tenfold.solvers.solution import relative_errors


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cp(o: int = 12, k: int = 9, i: int = 10, rank: int = 8) -> Network:
    return Network.parse("o r, r k, r i -> o i k", {"o": o, "k": k, "i": i, "r": rank})


@pytest.mark.parametrize("penalty", ["sensitivity", "ridge"])
def test_a_fit_is_deterministic_balanced_and_its_history_ends_at_its_error(penalty: str):
    target, network = noise(2, 12, 10, 9), cp()
    one, two = (levenberg_marquardt(target, network, penalty=penalty, schedule=(1e-3, 1e-4)) for _ in range(2))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(one.factors, two.factors, strict=True))
    torch.testing.assert_close(one.errors, relative_errors(target, network, one.factors))
    assert bool((one.history.diff(dim=0) <= 0).all()) and len(one.history) > 3
    torch.testing.assert_close(one.history[-1], one.errors)
    torch.testing.assert_close(sensitivity(network, rebalance(network, one.factors)), sensitivity(network, one.factors))


def test_it_gets_below_the_objective_of_alternating_least_squares():
    target, network = noise(1, 12, 10, 9), cp(rank=12)
    rho = 1e-3 / (12 * 9 * 10) ** (1 / 3) * float(target.norm()) ** (2 / 3)

    def objective(factors: list[Tensor]) -> float:
        return float((target - assemble(network, factors)).square().sum() + rho * sensitivity(network, rebalance(network, factors)).sum())

    start = cp_als(target, network, sweeps=100).factors
    found = levenberg_marquardt(target, network, schedule=(1e-3,), steps=60, start=start)
    assert objective(found.factors) < objective(start)


def test_its_end_is_a_fixed_point_of_correction_with_the_penalty_as_multiplier():
    target, network = noise(1, 12, 10, 9), cp(rank=4)
    target = target / target.norm()
    value = 2e-3
    found = levenberg_marquardt(target, network, schedule=(value,), steps=300, products=60, tolerance=1e-12)
    rho = value / (12 * 9 * 10) ** (1 / 3)
    corrected = epc(target, network, found.factors, sweeps=3)
    torch.testing.assert_close(corrected.multipliers, torch.full_like(corrected.multipliers, rho), rtol=1e-2, atol=0)
    assert float(corrected.objectives[-1]) > 0.999 * float(corrected.objectives[0])


def test_bounds_are_met_exactly_one_for_each_tensor():
    target, network = noise(3, 12, 10, 9), cp(rank=20)
    free = levenberg_marquardt(target, network, schedule=(1e-5,))
    delta = free.errors * torch.tensor([1.02, 1.2, 2.0], dtype=torch.float64)
    found = levenberg_marquardt(target, network, delta=delta)
    torch.testing.assert_close(found.errors, delta, rtol=1e-6, atol=0)
    assert bool((sensitivity(network, found.factors) < sensitivity(network, free.factors)).all())


def test_orders_above_three_and_several_modes_on_a_factor():
    network = Network.parse("a r, b1 b2 r, r c, d r -> b1 a c b2 d", {"a": 4, "b1": 2, "b2": 3, "c": 5, "d": 4, "r": 3})
    factors = [noise(2, *shape, seed=number) for number, shape in enumerate(network.shapes)]
    target = assemble(network, factors)
    found = levenberg_marquardt(target, network, schedule=(1e-4, 1e-8), steps=40)
    assert float(found.errors.amax()) < 1e-2
    matrix = Network.parse("o r, r i -> o i", {"o": 6, "i": 5, "r": 2})
    assert levenberg_marquardt(noise(1, 6, 5), matrix).algorithm == "tt_svd"


def test_layouts_stack_and_unstack():
    layout = CPLayout.of(Network.parse("o r, r k1 k2, r i -> o i k1 k2", {"o": 5, "k1": 3, "k2": 2, "i": 4, "r": 2}))
    factors = [noise(2, *shape) for shape in layout.network.shapes]
    x = layout.stacked(factors)
    assert x.shape == (2, 15, 2) and [layout.legs[k] for k in layout.order] == [("i",), ("o",), ("k1", "k2")]
    assert all(torch.equal(a, b) for a, b in zip(layout.unstacked(x), factors, strict=True))
    i, o, k = x.split([4, 5, 6], 1)
    torch.testing.assert_close(layout.flat(assemble(layout.network, factors)), torch.einsum("bir,bor,bkr->biok", i, o, k))


@pytest.mark.parametrize(
    ("statement", "sizes", "options", "message"),
    [
        (
            "o a, a b k, b i -> o k i",
            {"a": 2, "b": 2},
            {},
            "is not a CP network; one rank on all factors, with modes of their own, is needed",
        ),
        ("o r, r k, r i o -> o k i", {"r": 2}, {}, "is not a CP network"),
        ("o r, r k, r i -> o k i", {"r": 21}, {}, "the rank 'r' of .* is 21, but ranks above 20 add nothing; choose at most that"),
        ("o r, r k, r i -> o k i", {"r": 2}, {"penalty": "norm"}, "the penalty is 'norm'; it must be 'sensitivity' or 'ridge': choose one"),
        ("o r, r k, r i -> o k i", {"r": 2}, {"delta": float("nan")}, "delta is nan; a relative error of at least 0 and below 1 is needed"),
        ("o r, r i -> o i", {"r": 2}, {"delta": -0.1}, "delta is -0.1; a relative error of at least 0 and below 1 is needed"),
        (
            "o r, r k, r i -> o k i",
            {"r": 2},
            {"delta": 0.05},
            "delta is 0.05 for tensor 0, but the relative error reached is 0.*; an error within",
        ),
    ],
)
def test_wrong_requests_are_told(statement: str, sizes: dict[str, int], options: dict[str, object], message: str):
    network = Network.parse(statement, {"o": 6, "k": 4, "i": 5, **sizes})
    with pytest.raises(ValueError, match=message):
        levenberg_marquardt(noise(1, *network.shape), network, **options)  # type: ignore[arg-type]
