"""Sensitivity and its relatives against explicit Jacobians and tensors, for networks of every kind."""

import pytest
import torch
from test_quadratic import STATEMENTS, drawn, network_of
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.quadratic import assemble
from tenfold.solvers.sensitivity import (
    component_gram,
    condition_numbers,
    intensities,
    intensity_ratio,
    is_swamp,
    largest_eigenvalue,
    normalised_sensitivity,
    rebalance,
    sensitivity,
    worst_congruence,
)

SUM = "a r, r b + a s, s c b, c s -> a b"
CP3 = STATEMENTS[0]


def jacobian(network: Network, factors: list[Tensor]) -> Tensor:
    """(entries of the tensor, entries of all factors), for a batch of one."""
    parts = torch.autograd.functional.jacobian(
        lambda *f: assemble(network, [one[None] for one in f]).flatten(), tuple(factor[0] for factor in factors)
    )
    return torch.cat([part.flatten(1) for part in parts], 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("statement", [*STATEMENTS, SUM])
def test_sensitivity_is_the_squared_jacobian(statement: str):
    network = network_of(statement)
    factors = drawn(network, batch=1)
    torch.testing.assert_close(sensitivity(network, factors)[0], jacobian(network, factors).square().sum())


def test_sensitivity_is_differentiable_and_batched():
    network = network_of(SUM)
    factors = [factor.requires_grad_() for factor in drawn(network, batch=3)]
    assert torch.autograd.gradcheck(lambda *f: sensitivity(network, f), tuple(factors))
    alone = [sensitivity(network, [factor[b : b + 1] for factor in factors]) for b in range(3)]
    torch.testing.assert_close(sensitivity(network, factors), torch.cat(alone))


@pytest.mark.parametrize("statement", [*STATEMENTS, SUM])
def test_rebalance_keeps_the_tensor_and_is_the_best_scaling(statement: str):
    network = network_of(statement)
    scales = torch.logspace(-2, 2, len(network.factors), dtype=torch.float64)
    factors = [factor * scale for factor, scale in zip(drawn(network), scales, strict=True)]
    best = rebalance(network, factors, sweeps=200)
    torch.testing.assert_close(assemble(network, best), assemble(network, factors), rtol=1e-11, atol=1e-11)
    least = sensitivity(network, best)
    assert bool((least <= sensitivity(network, factors) * (1 + 1e-12)).all())
    for term, part in zip(network.terms, network.term_slices, strict=True):
        for index in (i for i in term.sizes if len(term.carriers(i)) > 1):
            (first, axis), (second, other) = ((part.start + k, a) for k, a in term.carriers(index)[:2])
            for factor in (0.97, 1.03):
                moved = list(best)
                moved[first], moved[second] = moved[first].clone(), moved[second].clone()
                moved[first].select(axis + 1, 0).mul_(factor)
                moved[second].select(other + 1, 0).div_(factor)
                assert bool((sensitivity(network, moved) >= least * (1 - 1e-6)).all())


def test_rebalance_leaves_zero_terms_alone():
    network = network_of(CP3)
    factors = drawn(network)
    factors[0][:, :, 0] = 0
    best = rebalance(network, factors)
    assert all(bool(factor.isfinite().all()) for factor in best)
    torch.testing.assert_close(assemble(network, best), assemble(network, factors))


@pytest.mark.parametrize("statement", STATEMENTS[:4])
def test_normalised_sensitivity_does_not_see_scales(statement: str):
    network = network_of(statement)
    factors = drawn(network)
    other = [factor * scale for factor, scale in zip(factors, (5.0, 0.1, 3.0, 0.5), strict=False)]
    torch.testing.assert_close(normalised_sensitivity(network, other), normalised_sensitivity(network, factors), rtol=1e-4, atol=0)


def test_normalised_sensitivity_of_rank_one_is_one_and_of_zero_is_zero():
    for statement in ("o r, r k, r i -> o k i", "a x b, b y c, c z a -> x y z", "o a, a b k, b i -> o k i"):
        network = network_of(statement)
        network = network.resized(dict.fromkeys(network.ranks, 1))
        factors = drawn(network)
        torch.testing.assert_close(normalised_sensitivity(network, factors), torch.ones(2, dtype=torch.float64))
        assert float(normalised_sensitivity(network, [0 * factor for factor in factors]).sum()) == 0


def test_components_of_cp_are_its_terms():
    network = network_of(CP3)
    o, k, i = drawn(network, batch=1)
    terms = torch.einsum("or,rk,ri->roki", o[0], k[0], i[0]).flatten(1)
    torch.testing.assert_close(component_gram(network, [o, k, i], "r")[0], terms @ terms.T)
    torch.testing.assert_close(intensities(network, [o, k, i], "r")[0], terms.norm(dim=1))
    ratio = terms.square().sum() / terms.sum(0).square().sum()
    torch.testing.assert_close(intensity_ratio(network, [o, k, i])[0], ratio)
    cosines = torch.nn.functional.normalize(terms, dim=1) @ torch.nn.functional.normalize(terms, dim=1).T
    torch.testing.assert_close(worst_congruence(network, [o, k, i])[0], cosines.amin().clamp_max(0))


def test_cancelling_terms_show():
    """n (a + b/n)^3 - n a^3 for n = 30: two terms of 30 times the norm, almost opposite."""
    network = Network.parse("a r, b r, c r -> a b c", {"a": 2, "b": 2, "c": 2, "r": 2})
    n = 30.0
    x = torch.tensor([[1.0, 1.0], [1 / n, 0.0]], dtype=torch.float64)
    signs = torch.tensor([n, -n], dtype=torch.float64)
    factors = [(x * signs)[None], x[None], x[None]]
    assert float(intensity_ratio(network, factors)) > 500
    assert float(worst_congruence(network, factors)) < -0.99
    assert float(condition_numbers(network, factors).amin()) > 1e3
    assert float(intensity_ratio(network, drawn(network))[0]) < 10


def test_numbers_without_ranks_or_pairs():
    network = network_of("a b -> a b")
    factors = drawn(network)
    assert intensity_ratio(network, factors).tolist() == [1, 1] and worst_congruence(network, factors).tolist() == [0, 0]
    assert bool(condition_numbers(network, factors).isnan().all())
    torch.testing.assert_close(sensitivity(network, factors), torch.full((2,), float(factors[0][0].numel()), dtype=torch.float64))


def test_condition_numbers_are_those_of_the_design_matrices():
    network = network_of(CP3)
    o, k, i = drawn(network, batch=1)
    design = torch.einsum("rk,ri->kir", k[0], i[0]).flatten(0, 1)
    torch.testing.assert_close(condition_numbers(network, [o, k, i])[0, 0], torch.linalg.cond(design) ** 2, rtol=1e-6, atol=0)
    k[:, 1] = k[:, 0]
    i[:, 1] = i[:, 0]
    assert float(condition_numbers(network, [o, k, i])[0, 0]) == float("inf")


@pytest.mark.parametrize("statement", [*STATEMENTS[:4], SUM])
def test_the_largest_eigenvalue_is_that_of_the_explicit_matrix(statement: str):
    network = network_of(statement)
    factors = drawn(network, batch=2)
    found = largest_eigenvalue(network, factors, tolerance=1e-6, iterations=500)
    for b in range(2):
        exact = torch.linalg.matrix_norm(jacobian(network, [factor[b : b + 1] for factor in factors]), 2) ** 2
        assert float(found[b]) == pytest.approx(float(exact), rel=1e-4)


def test_gradient_descent_is_stable_below_the_inverse_of_the_eigenvalue_and_not_above():
    network = network_of(CP3)
    start = drawn(network, batch=1)
    target = assemble(network, start)
    limit = 1 / float(largest_eigenvalue(network, start, tolerance=1e-6))
    ends = []
    for share in (0.9, 1.1):
        factors = [(factor + 1e-6 * noise).requires_grad_() for factor, noise in zip(start, drawn(network, 1, seed=1), strict=True)]
        losses = []
        for _ in range(60):
            loss = (assemble(network, factors) - target).square().sum()
            losses.append(float(loss.detach()))
            slopes = torch.autograd.grad(loss, factors)
            factors = [(f - share * limit * g).detach().requires_grad_() for f, g in zip(factors, slopes, strict=True)]
        ends.append(losses[-1] / losses[0])
    assert ends[0] < 1 < 100 < ends[1]


def test_a_swamp_is_seen():
    steps = torch.arange(40, dtype=torch.float64)
    slow, growing = 0.4 * (1 - 1e-6 * steps), 10 + steps
    errors = torch.stack([slow, slow, 0.4 * 0.99**steps], 1)
    squares = torch.stack([growing, torch.full_like(growing, 10.0), growing], 1)
    assert is_swamp(errors, squares).tolist() == [True, False, False]
    assert is_swamp(errors[:5], squares[:5]).tolist() == [False, False, False]
    with pytest.raises(
        ValueError, match=r"the errors have shape \(40, 3\) and the squared intensities \(39, 3\); give one of each for every sweep"
    ):
        is_swamp(errors, squares[1:])
