"""The Gauss-Newton system of CP against explicit matrices; products are checked in tests/golden/test_stable_cpd.py."""

import pytest
import torch
from torch import Tensor

from tenfold.solvers.cp_gauss_newton import CPProblem, System, dot, khatri_rao

SIZES = [(3, 4, 5), (3, 2, 4, 3)]


def point(sizes: tuple[int, ...], batch: int = 2, rank: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, sum(sizes), rank, generator=generator, dtype=torch.float64),
        torch.randn(batch, *sizes, generator=generator, dtype=torch.float64),
    )


def rebuilt(problem: CPProblem, x: Tensor) -> Tensor:
    letters = "ijkl"[: len(problem.sizes)]
    return torch.einsum(f"{','.join(f'b{i}r' for i in letters)}->b{letters}", *problem.split(x))


@pytest.mark.parametrize("sizes", SIZES)
def test_residual_and_gradient(sizes: tuple[int, ...]):
    x, target = point(sizes)
    for is_ridge in (False, True):
        problem = CPProblem(target, is_ridge)
        torch.testing.assert_close(problem.residual(x), target - rebuilt(problem, x))
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad((target - rebuilt(problem, leaf)).square().sum(), leaf)
        torch.testing.assert_close(-2 * problem.right(problem.residual(x), x), slope)
        (slope,) = torch.autograd.grad(problem.penalty(leaf).sum(), leaf)
        weights = torch.cat([w[:, None].expand(-1, n, -1) for w, n in zip(problem.weights(x), sizes, strict=True)], 1)
        torch.testing.assert_close(2 * x * weights, slope)


@pytest.mark.parametrize("sizes", SIZES)
def test_enough_products_solve_the_system(sizes: tuple[int, ...]):
    x, target = point(sizes)
    rho, mu = torch.tensor([0.1, 0.0], dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    system = System.at(CPProblem(target), x, rho, mu)
    right = torch.randn_like(x)
    step, along = system.solve(right, products=300, residual=1e-12)
    torch.testing.assert_close(system.product(step), right, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(along, dot(step, right))
    few, _ = system.solve(right, products=6, residual=1e-12)
    assert bool(((system.product(few) - right).flatten(1).norm(dim=1) < 0.5 * right.flatten(1).norm(dim=1)).all())


def test_the_preconditioner_inverts_the_diagonal_blocks():
    x, target = point((3, 4, 5))
    zero = torch.zeros(2, dtype=torch.float64)
    system = System.at(CPProblem(target), x, zero, zero + 1e-3)
    for first, last in ((0, 3), (3, 7), (7, 12)):
        v = torch.zeros_like(x)
        v[:, first:last] = torch.randn(2, last - first, 3, dtype=torch.float64)
        torch.testing.assert_close(system.precondition(system.product(v))[:, first:last], v[:, first:last])


def test_a_singular_point_is_survived():
    x, target = point((3, 4, 5))
    x[:, :, 1] = x[:, :, 0]
    zero = torch.zeros(2, dtype=torch.float64)
    assert bool(System.at(CPProblem(target), x, zero, zero).precondition(x).isfinite().all())


def test_balancing_keeps_the_tensor_and_lowers_the_penalty():
    x, target = point((3, 4, 5))
    x[:, :3] *= 10
    problem = CPProblem(target)
    balanced = problem.balanced(x)
    torch.testing.assert_close(rebuilt(problem, balanced), rebuilt(problem, x))
    assert bool((problem.penalty(balanced) < problem.penalty(x)).all())
    means = torch.stack([factor.square().mean(1) for factor in problem.split(balanced)])
    torch.testing.assert_close(means, means[:1].expand_as(means))
    x[:, 3:7, 0] = 0
    assert bool(problem.balanced(x).isfinite().all())


def test_khatri_rao_has_the_first_factor_slowest():
    a, b = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [5.0], [7.0]]])
    assert khatri_rao([a, b]).flatten().tolist() == [3, 5, 7, 6, 10, 14]
