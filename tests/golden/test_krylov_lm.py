"""T5: a step of Krylov-Levenberg-Marquardt with m + 1 vectors is m + 1 conjugate gradients on the damped Gauss-Newton system.

Source: Tichavsky, Phan, Cichocki, Krylov-Levenberg-Marquardt algorithm; that the two agree follows from Lanczos vectors from the right-hand
side, and is checked against plain conjugate gradients on the explicit matrix. The algorithm itself is a baseline in benchmarks/.
"""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("tensorly", reason="the benchmarks compare with tensorly")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from krylov_lm import KLM, BoundedKLM, Krylov  # pyright: ignore[reportMissingImports]
from tenfold.solvers.cp_gauss_newton import CPProblem, System, dot


def problem() -> tuple[CPProblem, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(1, 9, 8, 7, generator=generator, dtype=torch.float64)
    x = torch.randn(1, 24, 6, generator=generator, dtype=torch.float64)
    return CPProblem(target / target.norm()), x / 3


def explicit(one: CPProblem, x: Tensor) -> Tensor:
    """J'J from the Jacobian of the tensor by all entries of X."""
    jacobian = torch.autograd.functional.jacobian(lambda flat: one.residual(flat.reshape(x.shape)).flatten(), x.flatten())
    assert isinstance(jacobian, Tensor)
    return jacobian.T @ jacobian


def conjugate_gradients(matrix: Tensor, right: Tensor, iterations: int) -> Tensor:
    step, left = torch.zeros_like(right), right.clone()
    direction = left
    for _ in range(iterations):
        image = matrix @ direction
        length = left.dot(left) / direction.dot(image)
        step, new = step + length * direction, left - length * image
        direction = new + new.dot(new) / left.dot(left) * direction
        left = new
    return step


@pytest.mark.parametrize("m", [0, 1, 4, 9])
@pytest.mark.parametrize("mu", [1e-2, 1.0])
def test_a_step_is_so_many_conjugate_gradients(m: int, mu: float) -> None:
    """To 1e-12, relative to the step; one Krylov space serves every damping."""
    one, x = problem()
    slope = one.right(one.residual(x), x)
    system = System.at(one, x, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    found = Krylov.of(system, slope, m + 1).solve(mu).flatten()
    matrix = explicit(one, x)
    wanted = conjugate_gradients(matrix + mu * torch.eye(len(matrix), dtype=torch.float64), slope.flatten(), m + 1)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-12


def test_a_complete_space_solves_the_system() -> None:
    """With as many vectors as unknowns at most, the step is that of Levenberg and Marquardt, to 1e-8."""
    one, x = problem()
    slope = one.right(one.residual(x), x)
    system = System.at(one, x, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    matrix = explicit(one, x)
    wanted = torch.linalg.solve(matrix + 0.1 * torch.eye(len(matrix), dtype=torch.float64), slope.flatten())
    torch.testing.assert_close(Krylov.of(system, slope, len(matrix)).solve(0.1).flatten(), wanted, rtol=1e-8, atol=1e-10)


def test_the_error_falls_and_the_bounded_form_keeps_the_sensitivity() -> None:
    one, x = problem()
    before, level = float(one.residual(x).square().sum()), float(one.penalty(x))
    free = KLM(one, 8)
    after = free.run(x, 160)
    assert float(one.residual(after).square().sum()) < 0.5 * before and free.products >= 160
    bounded = BoundedKLM(one, 8)
    after = bounded.run(x, 160)
    assert float(one.residual(after).square().sum()) < before
    assert float(one.penalty(after)) == pytest.approx(level, rel=1e-10)


def test_a_bounded_step_follows_the_level_set() -> None:
    one, x = problem()
    bounded = BoundedKLM(one, 8)
    slope = bounded.state(x)[1]
    system = System.at(one, x, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    step = bounded.step(bounded.spaces(system, x, slope), x, 0.1)
    assert abs(float(dot(bounded.uphill(x), step))) < 1e-12 * float(step.norm() * bounded.uphill(x).norm())
