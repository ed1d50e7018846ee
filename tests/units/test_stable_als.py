"""Penalised alternating least squares: it finds planted factors of looped networks, and keeps factors from growing against each other."""

import pytest
import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.solution import rebuild, relative_errors
from tenfold.solvers.stable_als import stable_als

RING = "a x b, b y c, c z a -> x y z"
BLOCKS = "b x p, b y q, b z r, b p q r -> x y z"
HADAMARD = "x r, r y, x s, s y -> x y"


def network_of(statement: str, size: int, rank: int) -> Network:
    names = set(statement.replace(",", " ").replace("->", " ").split())
    return Network.parse(statement, {name: size if name in "xyz" else rank for name in names})


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("statement", [RING, BLOCKS, HADAMARD, "a b x, a c y, b c z -> x y z"])
def test_planted_factors_are_found(statement: str):
    """By one of five starts: each may stop in a local minimum."""
    network = network_of(statement, 12 if statement == HADAMARD else 6, 2)
    planted = rebuild(network, [normal(1, *shape, seed=k) for k, shape in enumerate(network.shapes)])
    solutions = [stable_als(planted, network, sweeps=200, seed=seed) for seed in range(5)]
    assert min(float(solution.errors) for solution in solutions) < 1e-3
    for solution in solutions:
        torch.testing.assert_close(solution.errors, relative_errors(planted, network, solution.factors))


def test_it_is_deterministic_and_never_rises():
    network, target = network_of(RING, 6, 3), normal(2, 6, 6, 6)
    one, two = stable_als(target, network, sweeps=60, seed=4), stable_als(target, network, sweeps=60, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.factors, two.factors, strict=True))
    assert bool((one.history.diff(dim=0) <= 1e-12).all()) and len(one.history) > 3


def test_a_border_rank_tensor_does_not_run_away():
    """W = a.a.b + a.b.a + b.a.a is a limit of rank-two tensors: without the penalty two terms grow and cancel (de Silva and Lim 2008)."""
    a, b = torch.eye(2, dtype=torch.float64)
    w = sum(torch.einsum("i,j,k->ijk", *v) for v in ((a, a, b), (a, b, a), (b, a, a)))
    network = network_of("x r, y r, z r -> x y z", 2, 2)
    target = torch.as_tensor(w)[None]
    free = als(target, network, sweeps=2000, tolerance=0.0, seed=1)
    held = stable_als(target, network, sweeps=2000, seed=1)
    assert bool(free.is_degenerate[0])
    sizes = [max(float(factor.norm()) for factor in found.factors) for found in (free, held)]
    assert sizes[1] < 0.7 * sizes[0]


def test_the_penalty_costs_little_of_the_error():
    network, target = network_of(RING, 6, 3), normal(1, 6, 6, 6)
    free, held = (min(float(solver(target, network, sweeps=200, seed=seed).errors) for seed in range(3)) for solver in (als, stable_als))
    assert held <= 1.05 * free


def test_a_zero_tensor_and_what_does_not_fit():
    network = network_of(RING, 4, 2)
    assert float(stable_als(torch.zeros(1, 4, 4, 4), network).errors) < 1e-6
    with pytest.raises(ValueError, match=r"the tensors have shape \(4, 4\), but .* needs \(4, 4, 4\); fold them first"):
        stable_als(normal(1, 4, 4), network)
    with pytest.raises(ValueError, match="the tensor has 1 values that are NaN or infinite of 64"):
        bad = normal(1, 4, 4, 4)
        bad[0, 1, 2, 3] = torch.nan
        stable_als(bad, network)
