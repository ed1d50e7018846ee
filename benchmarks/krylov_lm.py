"""Krylov-Levenberg-Marquardt (KLM), free and at constant sensitivity, against the library's solver: error and sensitivity at equal work.

A step of KLM solves (J'J + mu) d = g in the space of m + 1 Lanczos vectors from g, which is what m + 1 conjugate gradients without a
preconditioner find; after a rejected step another mu costs a small solve only. `BoundedKLM` steps along the level set of the sensitivity,
d = (J'J + mu)^-1 (g - lam u) with u the gradient of the sensitivity and lam such that u'd = 0, then scales all factors back onto it.
Work is counted in products J'J v and in residuals, which is what the time goes to.

Source: Tichavsky, Phan, Cichocki, Krylov-Levenberg-Marquardt algorithm for structured Tucker tensor decompositions; bounded: Phan et
al. 2020, arXiv 2008.05441. Deviations: the small system is solved directly, and every Lanczos vector is made orthogonal twice.
Command: `python benchmarks/krylov_lm.py --json benchmarks/results/krylov_lm.json`, a minute on one core.
"""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cp_als_vs_tensorly import kernel
from race import report
from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.cp_gauss_newton import CPProblem, System, dot
from tenfold.solvers.levenberg_marquardt import CPLayout, levenberg_marquardt
from tenfold.solvers.sensitivity import sensitivity
from tenfold.solvers.solution import relative_errors

EMPTY = 1e-13  # relative: a Lanczos vector this short is rounding, the space is complete


@dataclass(frozen=True)
class Krylov:
    """An orthonormal basis Y (vectors, rows, R) of the Krylov space of J'J from one vector, W = Y' J'J Y, and that vector in terms of Y."""

    basis: Tensor
    small: Tensor
    start: Tensor

    @classmethod
    def of(cls, system: System, start: Tensor, vectors: int) -> "Krylov":
        """At most so many vectors of the space of an undamped system, from `start` (1, rows, R)."""
        length = float(start.norm())
        basis, images = [start / length], [system.product(start / length)]
        while len(basis) < vectors:
            new = images[-1]
            for _ in range(2):
                for one in basis:
                    new = new - dot(one, new)[:, None, None] * one
            if float(new.norm()) <= EMPTY * float(images[-1].norm()):
                break
            basis.append(new / new.norm())
            images.append(system.product(basis[-1]))
        flat, moved = torch.cat(basis).flatten(1), torch.cat(images).flatten(1)
        first = torch.zeros(len(basis), dtype=start.dtype)
        first[0] = length
        return cls(torch.cat(basis), flat @ moved.T, first)

    def solve(self, mu: float) -> Tensor:
        """(J'J + mu)^-1 times the start, within the space."""
        small = (self.small + self.small.T) / 2 + mu * torch.eye(len(self.start), dtype=self.small.dtype)
        return torch.einsum("v,vij->ij", torch.linalg.solve(small, self.start), self.basis)[None]


@dataclass
class KLM:
    """Levenberg-Marquardt steps in Krylov spaces, for one tensor of a problem. Counts its products and residuals."""

    problem: CPProblem
    vectors: int
    products: int = field(default=0, init=False)
    residuals: int = field(default=0, init=False)

    def run(self, x: Tensor, products: int) -> Tensor:
        """X after steps that took at least so many products J'J v."""
        error, slope, mu, growth = *self.state(x), None, 2.0
        while self.products < products:
            system = System.at(self.problem, x, x.new_zeros(1), x.new_zeros(1))
            spaces = self.spaces(system, x, slope)
            mu = mu or float(torch.diagonal(spaces[0].small).max()) / 2
            while mu < 1e12:
                step = self.step(spaces, x, mu)
                trial = self.moved(x, step)
                trial_error, trial_slope = self.state(trial)
                if trial_error < error:
                    break
                mu, growth = mu * growth, growth * 2
            else:
                return x
            gain = (error - trial_error) / float(dot(step, slope + mu * step))
            mu, growth = mu * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
            x, error, slope = trial, trial_error, trial_slope
        return x

    def state(self, x: Tensor) -> tuple[float, Tensor]:
        """The squared error and minus half of its gradient."""
        self.residuals += 1
        residual = self.problem.residual(x)
        return float(residual.square().sum()), self.problem.right(residual, x)

    def spaces(self, system: System, x: Tensor, slope: Tensor) -> list[Krylov]:
        """The Krylov spaces of a step."""
        self.products += self.vectors
        return [Krylov.of(system, slope, self.vectors)]

    def step(self, spaces: list[Krylov], x: Tensor, mu: float) -> Tensor:
        """A step at a damping."""
        return spaces[0].solve(mu)

    def moved(self, x: Tensor, step: Tensor) -> Tensor:
        """X after a step."""
        return x + step


@dataclass
class BoundedKLM(KLM):
    """KLM that stays where the sensitivity is what it was at the start."""

    level: float = field(default=0.0, init=False)

    def run(self, x: Tensor, products: int) -> Tensor:
        self.level = float(self.problem.penalty(x))
        return super().run(x, products)

    def spaces(self, system: System, x: Tensor, slope: Tensor) -> list[Krylov]:
        self.products += 2 * self.vectors
        return [Krylov.of(system, start, self.vectors) for start in (slope, self.uphill(x))]

    def uphill(self, x: Tensor) -> Tensor:
        """Half of the gradient of the sensitivity."""
        weights = [w[:, None].expand(-1, n, -1) for w, n in zip(self.problem.weights(x), self.problem.sizes, strict=True)]
        return x * torch.cat(weights, 1)

    def step(self, spaces: list[Krylov], x: Tensor, mu: float) -> Tensor:
        down, up = (space.solve(mu) for space in spaces)
        uphill = self.uphill(x)
        return down - (dot(uphill, down) / dot(uphill, up))[:, None, None] * up

    def moved(self, x: Tensor, step: Tensor) -> Tensor:
        trial = x + step
        order = 2 * (len(self.problem.sizes) - 1)  # of the sensitivity in X
        return trial * (self.level / float(self.problem.penalty(trial))) ** (1 / order)


def rows(size: int, rank: int, products: int, vectors: int = 11) -> list[dict[str, object]]:
    """Every method from the same 20 sweeps of ALS on one synthetic (9, size, size) kernel."""
    target = kernel(size)[None].double()
    target = target / target.norm()
    network = Network.parse("k r, o r, r i -> k o i", {"o": size, "k": 9, "i": size, "r": rank})
    layout = CPLayout.of(network)
    start = cp_als(target, network, sweeps=20, ridge=1e-3)
    problem = CPProblem(layout.flat(target))
    x = problem.balanced(layout.stacked(start.factors))
    found = []

    def add(method: str, factors: list[Tensor], began: float, work: object) -> None:
        numbers = {
            "products": work,
            "error": float(relative_errors(target, network, factors)),
            "sensitivity": float(sensitivity(network, factors)),
        }
        found.append({"kernel": f"9x{size}x{size} R={rank}", "method": method, **numbers, "seconds": time.perf_counter() - began})

    add("start", start.factors, time.perf_counter(), 0)
    for name, method in (("KLM", KLM(problem, vectors)), ("bounded KLM", BoundedKLM(problem, vectors))):
        began = time.perf_counter()
        factors = layout.unstacked(method.run(x, products))
        add(name, factors, began, method.products)
    began = time.perf_counter()
    solution = levenberg_marquardt(target, network, start=start.factors, steps=products // 30, products=10, tolerance=0.0)
    add("tenfold", solution.factors, began, f"at most {products // 30 * 30}")
    return found


def main() -> None:
    """Prints one row for each kernel and method."""
    report("krylov_lm", [row for size, rank in ((32, 48), (64, 96)) for row in rows(size, rank, 600)])


if __name__ == "__main__":
    main()
