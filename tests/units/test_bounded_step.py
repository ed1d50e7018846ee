"""The bounded step against its definition, for networks of every kind."""

import pytest
import torch
from test_quadratic import STATEMENTS, drawn, network_of

from tenfold.solvers.bounded_step import bounded_step, secular
from tenfold.solvers.quadratic import assemble, intensity_forms, sensitivity_forms


@pytest.mark.parametrize("statement", STATEMENTS[:-1])
def test_no_factor_within_the_bound_is_better(statement: str):
    network = network_of(statement)
    factors = drawn(network)
    target = (
        assemble(network, factors) + 0.3 * drawn(network.parse(f"{' '.join(network.modes)} -> {' '.join(network.modes)}", network.sizes))[0]
    )
    residual = target - assemble(network, factors)
    error = residual.flatten(1).square().sum(1)
    for forms in (sensitivity_forms(network), intensity_forms(network)):
        for number in range(len(factors)):

            def charge(x: torch.Tensor, number: int = number, forms=forms) -> torch.Tensor:
                moved = [*factors[:number], x, *factors[number + 1 :]]
                return torch.stack([form.value(network, moved) for form in forms if form.without != number]).sum(0)

            def missed(x: torch.Tensor, number: int = number) -> torch.Tensor:
                return (target - assemble(network, [*factors[:number], x, *factors[number + 1 :]])).flatten(1).square().sum(1)

            new, mu = bounded_step(network, factors, number, forms, residual, 1.2 * error)
            same, _ = bounded_step(network, factors, number, forms, target, 1.2 * error, is_residual=False)
            torch.testing.assert_close(new, same, rtol=1e-9, atol=1e-9 * float(new.abs().max()))
            torch.testing.assert_close(missed(new), 1.2 * error, rtol=1e-9, atol=0)
            assert bool((mu > 0).all()) and bool((charge(new) < charge(factors[number])).all())
            # the gradient of error + mu x charge is zero: the problem is convex, so this is the minimum
            x = new.clone().requires_grad_()
            (slope,) = torch.autograd.grad((missed(x) + mu * charge(x)).sum(), x)
            (part,) = torch.autograd.grad(missed(x).sum(), x)
            assert float(slope.norm()) < 1e-7 * float(part.norm())


def test_a_bound_below_the_least_squares_error_changes_nothing():
    network = network_of(STATEMENTS[0])
    factors = drawn(network)
    residual = 0.1 * torch.randn(2, *network.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bound = torch.tensor([1e-6, 1.5], dtype=torch.float64) * residual.flatten(1).square().sum(1)
    new, mu = bounded_step(network, factors, 0, sensitivity_forms(network), residual, bound)
    assert torch.equal(new[0], factors[0][0]) and bool(mu[0].isnan())
    assert not torch.equal(new[1], factors[0][1]) and float(mu[1]) > 0


def test_secular_ignores_directions_that_do_nothing_for_the_error():
    values = torch.tensor([[[0.0, 1.0, 4.0]]], dtype=torch.float64)
    slope = torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    old = torch.ones(1, 1, 2, 3, dtype=torch.float64)
    coordinates, mu = secular(values, slope, old, torch.zeros(1, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    assert float(coordinates[..., 0].abs().sum()) == 0
    torch.testing.assert_close(coordinates[0, 0, 0, 1:], values[0, 0, 1:] / (values[0, 0, 1:] + mu))
    error = (values[0, 0] * (1 - coordinates[0, 0]).square()).sum()
    torch.testing.assert_close(error, torch.tensor(0.5, dtype=torch.float64), rtol=1e-12, atol=0)
