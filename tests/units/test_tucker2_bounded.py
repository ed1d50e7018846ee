"""Tucker-2 within a bound; that joint ranks beat alternating ones is in tests/golden/test_stable_cpd.py."""

import itertools

import pytest
import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.hosvd import hosvd
from tenfold.solvers.tucker2_bounded import tucker2_bounded

STATEMENT = "o a, a b k, b i -> o i k"


def falling(*shape: int, seed: int = 0) -> Tensor:
    """A tensor whose channel spectra fall."""
    tensor = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for axis in (1, 2):
        scale = torch.arange(1, shape[axis - 1] + 1, dtype=torch.float64) ** -0.8
        tensor = tensor * scale.reshape([-1 if a == axis else 1 for a in range(4)])
    return tensor


def network(o: int, i: int, k: int = 4) -> Network:
    return Network.parse(STATEMENT, {"o": o, "i": i, "k": k, "a": 1, "b": 1})


@pytest.mark.parametrize("delta", [0.1, 0.3, 0.6])
def test_no_pair_of_ranks_within_the_bound_is_much_cheaper(delta: float):
    target = falling(9, 7, 4)
    found, solution = tucker2_bounded(target, network(9, 7), delta)
    assert float(solution.errors) <= delta
    feasible = []
    for a, b in itertools.product(range(1, 10), range(1, 8)):
        one = network(9, 7).resized({"a": a, "b": b})
        if float(hosvd(target, one, sweeps=30).errors) <= delta:
            feasible.append(one.numel)
    assert found.numel <= 1.02 * min(feasible)


def test_a_cost_of_ones_own_is_followed():
    target = falling(12, 10, 4)
    first, _ = tucker2_bounded(target, network(12, 10), 0.3, cost=lambda a, b: 100 * a + b)
    second, _ = tucker2_bounded(target, network(12, 10), 0.3, cost=lambda a, b: a + 100 * b)
    assert first.ranks["a"] < second.ranks["a"] and first.ranks["b"] > second.ranks["b"]


def test_exact_zero_and_thin_tensors():
    target = falling(6, 5, 4)
    found, solution = tucker2_bounded(target, network(6, 5), 0.0)
    assert found.ranks == {"a": 6, "b": 5} and float(solution.errors) < 1e-9
    found, _ = tucker2_bounded(0 * target, network(6, 5), 0.1)
    assert found.ranks == {"a": 1, "b": 1}
    found, solution = tucker2_bounded(falling(6, 1, 4), network(6, 1), 0.2)
    assert found.ranks["b"] == 1 and float(solution.errors) <= 0.2


@pytest.mark.parametrize(
    ("statement", "batch", "delta", "message"),
    [
        (STATEMENT, 2, 0.1, "2 tensors were given; ranks that fit one of them may not fit another: give one at a time"),
        (STATEMENT, 1, 1.0, "delta is 1.0; zero factors have the relative error 1, so it must be from 0 up to below 1"),
        ("o a, a k, a i -> o i k", 1, 0.1, "is not a Tucker-2 network; a core with two ranks, each joined to a factor of its own"),
        ("o a, a b, b k c, c i -> o i k", 1, 0.1, "is not a Tucker-2 network"),
    ],
)
def test_wrong_requests_are_told(statement: str, batch: int, delta: float, message: str):
    one = Network.parse(statement, {"o": 4, "i": 3, "k": 2, "a": 2, "b": 2, "c": 2})
    with pytest.raises(ValueError, match=message):
        tucker2_bounded(torch.randn(batch, *one.shape, dtype=torch.float64), one, delta)
