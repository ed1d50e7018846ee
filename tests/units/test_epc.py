"""Error-preserving correction: what it promises, for networks of every kind; numbers are in tests/golden/test_stable_cpd.py."""

import pytest
import torch
from test_quadratic import STATEMENTS, drawn, network_of
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.epc import GRAM_LIMIT, epc
from tenfold.solvers.quadratic import assemble, intensity_forms
from tenfold.solvers.sensitivity import rebalance, sensitivity
from tenfold.solvers.solution import relative_errors

SUM = "a r, r b + a s, s c b, c s -> a b"
CP3 = STATEMENTS[0]


def problem(statement: str, batch: int = 2) -> tuple[Tensor, Network, list[Tensor]]:
    """A target, and an unbalanced fit of it with an error of some per cent to some ten."""
    network = network_of(statement)
    factors = drawn(network, batch)
    exact = assemble(network, factors)
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    target = exact + 0.2 * exact.flatten(1).norm(dim=1).reshape(-1, *[1] * (exact.dim() - 1)) * noise / noise.flatten(1).norm(dim=1).amax()
    return target, network, factors


@pytest.mark.parametrize("objective", ["sensitivity", "intensity"])
@pytest.mark.parametrize("statement", [*STATEMENTS[:-1], SUM])
def test_the_objective_falls_and_the_error_stays_within_its_bound(statement: str, objective: str):
    target, network, factors = problem(statement)
    found = epc(target, network, factors, slack=1.2, objective=objective, sweeps=25)  # type: ignore[arg-type]
    assert bool((found.objectives.diff(dim=0) <= 0).all())
    assert bool((found.errors <= found.delta * (1 + 1e-9)).all())
    assert bool((found.objectives[-1] < 0.99 * found.objectives[0]).all())
    torch.testing.assert_close(found.delta, 1.2 * relative_errors(target, network, factors))
    torch.testing.assert_close(found.errors[-1], relative_errors(target, network, found.factors))
    measured = sensitivity(network, found.factors)
    if objective == "intensity":
        parts = zip(network.terms, network.term_slices, strict=True)
        measured = torch.stack([form.value(t, found.factors[p]) for t, p in parts for form in intensity_forms(t)]).sum(0)
    torch.testing.assert_close(found.objectives[-1], measured)


@pytest.mark.parametrize("statement", [CP3, STATEMENTS[1], STATEMENTS[2], "a r, b r, c r + a b s, s c -> a b c"])
def test_a_converged_correction_has_one_multiplier_and_no_slope_along_the_bound(statement: str):
    target, network, factors = problem(statement, batch=1)
    found = epc(target, network, factors, slack=1.3, sweeps=400, tolerance=1e-4)
    assert bool(found.is_converged.all()) and float(found.certificate) < 1e-4
    points = [factor.clone().requires_grad_() for factor in found.factors]
    error = torch.autograd.grad((target - assemble(network, points)).square().sum(), points)
    charge = torch.autograd.grad(sensitivity(network, points).sum(), points)
    mu = float(found.multipliers.mean())
    for a, b in zip(error, charge, strict=True):
        assert float((a + mu * b).norm()) < 1e-2 * float(a.norm())


def test_a_batch_with_bounds_of_its_own_is_solved_like_its_tensors_alone():
    target, network, factors = problem(CP3, batch=3)
    delta = relative_errors(target, network, factors) * torch.tensor([1.0, 1.1, 2.0], dtype=torch.float64)
    together = epc(target, network, factors, delta=delta, sweeps=10)
    for b in range(3):
        part = slice(b, b + 1)
        alone = epc(target[part], network, [factor[part] for factor in factors], delta=float(delta[b]), sweeps=10)
        torch.testing.assert_close(together.objectives[: len(alone.objectives), b], alone.objectives[:, 0], rtol=1e-6, atol=0)
        torch.testing.assert_close(together.delta[b], delta[b])


def test_float32_targets_and_exact_fits_are_taken():
    network = network_of(CP3)
    factors = drawn(network, 1)
    found = epc(assemble(network, factors).float(), network, [factor.float() for factor in factors], delta=0.05, sweeps=20)
    assert found.factors[0].dtype == torch.float64
    assert float(found.errors[-1]) == pytest.approx(0.05, rel=1e-9)
    still = epc(assemble(network, factors), network, factors, sweeps=5)
    assert float(still.errors[-1]) < 1e-12 and float(still.objectives[-1]) <= float(still.objectives[0])


@pytest.mark.parametrize("gap", [0.1, 0.01])
def test_a_ring_in_a_bad_gauge_is_brought_back(gap: float):
    """The same ring with M and its inverse between two cores: terms cancel (arXiv 2203.02617), and scaling alone does not help.

    With the smaller gap they cancel to so few digits that errors have to be counted from residuals.
    """
    network = Network.parse("a x b, b y c, c z a -> x y z", {"a": 3, "b": 3, "c": 3, "x": 6, "y": 5, "z": 4})
    good = rebalance(network, drawn(network, 1))
    gauge = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0 + gap, 1.0], [1.0, 1.0, 1.0 + 2 * gap]], dtype=torch.float64)
    bad = [good[0] @ gauge, torch.einsum("pb,nbyc->npyc", torch.linalg.inv(gauge), good[1]), good[2]]
    target = assemble(network, good)
    torch.testing.assert_close(assemble(network, bad), target)
    assert float(sensitivity(network, rebalance(network, bad))) > 8 * float(sensitivity(network, good))
    found = epc(target, network, bad, delta=0.01, sweeps=200)
    assert float(found.objectives[-1]) < 1.1 * float(sensitivity(network, good))


def test_factors_with_several_large_ranks_stay_in_place():
    network = Network.parse("x a, a b, b y -> x y", {"x": 60, "a": 30, "b": 30, "y": 60})
    assert 30 * 30 > GRAM_LIMIT
    factors = drawn(network, 1)
    found = epc(assemble(network, factors), network, factors, delta=0.1, sweeps=2)
    assert bool(found.multipliers.isnan()[0, 1]) and bool(found.multipliers.isfinite()[0, [0, 2]].all())
    assert float(found.objectives[-1]) < float(found.objectives[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "norm"}, "the objective is 'norm'; it must be 'sensitivity' or 'intensity': choose one of them"),
        ({"slack": 0.9}, "the slack is 0.9; the bound is slack x the error of the fit, so it must be at least 1: give 1.01, say"),
        ({"slack": float("nan")}, "the slack is nan"),
        (
            {"delta": 1e-3},
            "delta is 0.001, but the factors of tensor . have the relative error 0.*; correction keeps an error and cannot lower",
        ),
        ({"delta": float("nan")}, "delta is nan; a relative error of at least 0 and below 1 is needed: give for instance 0.1, or leave"),
        ({"delta": -1.0}, "delta is -1; a relative error of at least 0 and below 1 is needed"),
        ({"delta": 1.5}, "the bound of tensor 0 is 1.5 of its norm, and zero factors meet a bound of 1 or more; it must be below 1"),
    ],
)
def test_wrong_requests_are_told(options: dict[str, object], message: str):
    target, network, factors = problem(CP3)
    with pytest.raises(ValueError, match=message):
        epc(target, network, factors, **options)  # type: ignore[arg-type]


def test_targets_that_do_not_fit_are_told():
    target, network, factors = problem(CP3)
    with pytest.raises(ValueError, match="fold them first"):
        epc(target[:, :1], network, factors)
    target[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 values that are NaN or infinite"):
        epc(target, network, factors)
