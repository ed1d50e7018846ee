"""The Gauss-Newton system of CP: residual, gradient, products and preconditioner, for a batch of tensors of any order.

The factors of a tensor stand one below the other in one tensor X (batch, sum of sizes, R), so that conjugate gradients handle one
vector. A product J'J V costs 6 R^2 for each row of X and never touches the target.

Source: Phan, Tichavsky, Cichocki 2013, Low complexity damped Gauss-Newton algorithms for CANDECOMP/PARAFAC. Deviation: the system is
solved by preconditioned conjugate gradients, not inverted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CPProblem:
    """Targets (batch, n_1, .., n_N) and what is charged beside the squared error: rho x sensitivity, or rho x ||X||^2 (ridge)."""

    target: Tensor
    is_ridge: bool = False

    @property
    def sizes(self) -> list[int]:
        """n_1, .., n_N."""
        return list(self.target.shape[1:])

    def split(self, x: Tensor) -> list[Tensor]:
        """The factors (batch, n_k, R) of X."""
        return list(x.split(self.sizes, 1))

    def residual(self, x: Tensor) -> Tensor:
        """T - [[X_1, .., X_N]] with the axes of the target."""
        first, *rest = self.split(x)
        return self.target - (first @ khatri_rao(rest).mT).reshape(self.target.shape)

    def right(self, tensor: Tensor, x: Tensor) -> Tensor:
        """Like X: the unfolding of a tensor along each mode times the Khatri-Rao product of all other factors."""
        *rest, last = factors = self.split(x)
        flat = tensor.reshape(len(tensor), -1, tensor.shape[-1])
        partial = (flat @ last).reshape(*tensor.shape[:-1], -1)
        parts = []
        for number in range(len(rest)):
            part = partial
            for axis in reversed(range(len(rest))):
                if axis != number:
                    factor = rest[axis].reshape(len(x), *(-1 if a == axis else 1 for a in range(part.dim() - 2)), x.shape[2])
                    part = (part * factor).sum(axis + 1, keepdim=True)
            parts.append(part.reshape(len(x), -1, x.shape[2]))
        parts.append(flat.mT @ khatri_rao(factors[:-1]))
        return torch.cat(parts, 1)

    def penalty(self, x: Tensor) -> Tensor:
        """(batch,): the sensitivity or the squared norm of X."""
        if self.is_ridge:
            return x.square().sum((1, 2))
        squares = self._squares(x)
        return sum((n * _product(squares, k).sum(1) for k, n in enumerate(self.sizes)), x.new_zeros(len(x)))

    def weights(self, x: Tensor) -> list[Tensor]:
        """(batch, R) for each factor: half of the penalty's gradient is X_k diag(w_k)."""
        if self.is_ridge:
            return [torch.ones_like(x[:, 0]) for _ in self.sizes]
        squares = self._squares(x)
        count = range(len(self.sizes))
        return [sum((self.sizes[m] * _product(squares, k, m) for m in count if m != k), torch.zeros_like(x[:, 0])) for k in count]

    def _squares(self, x: Tensor) -> list[Tensor]:
        return [factor.square().sum(1) for factor in self.split(x)]

    def balanced(self, x: Tensor) -> Tensor:
        """The same tensors with equal root mean squares in all factors of a term; where a term is zero it stays."""
        factors = self.split(x)
        sizes = torch.stack([factor.square().mean(1) for factor in factors])
        is_usable = (sizes > 0).all(0)
        logs = torch.where(is_usable, sizes, 1.0).log()
        scales = ((logs.mean(0) - logs) / 2).exp()
        return torch.cat([factor * scale[:, None] for factor, scale in zip(factors, scales, strict=True)], 1)


@dataclass(frozen=True)
class System:
    """(J'J + rho diag(w) + mu) V = right, at one point X.

    pairs[k][m] is the product of the Gram matrices of all factors but k and m; damped[k] that of all but k, with rho w_k + mu added to
    its diagonal.
    """

    x: list[Tensor]
    pairs: list[list[Tensor]]
    damped: list[Tensor]
    inverses: list[Tensor]

    @classmethod
    def at(cls, problem: CPProblem, x: Tensor, rho: Tensor, mu: Tensor) -> "System":
        factors = problem.split(x)
        grams = [factor.mT @ factor for factor in factors]
        count = range(len(factors))
        pairs = [[_product(grams, k, m) for m in count] for k in count]
        damped = []
        for k, weight in enumerate(problem.weights(x)):
            matrix = _product(grams, k).clone()
            matrix.diagonal(dim1=-2, dim2=-1).add_(rho[:, None] * weight + mu[:, None])
            damped.append(matrix)
        return cls(factors, pairs, damped, [_inverse(matrix) for matrix in damped])

    def product(self, v: Tensor) -> Tensor:
        """The left-hand side of the system for V (batch, sum of sizes, R)."""
        parts = v.split([factor.shape[1] for factor in self.x], 1)
        crossed = [part.mT @ factor for part, factor in zip(parts, self.x, strict=True)]
        rows = []
        for k, (part, factor) in enumerate(zip(parts, self.x, strict=True)):
            mixed = [cross * self.pairs[k][m] for m, cross in enumerate(crossed) if m != k]
            total = sum(mixed[1:], start=mixed[0])
            rows.append(torch.cat([part, factor], 2) @ torch.cat([self.damped[k], total], 1))
        return torch.cat(rows, 1)

    def precondition(self, v: Tensor) -> Tensor:
        """V times the inverse of the diagonal blocks."""
        parts = v.split([factor.shape[1] for factor in self.x], 1)
        return torch.cat([part @ inverse for part, inverse in zip(parts, self.inverses, strict=True)], 1)

    def solve(self, right: Tensor, products: int, residual: float) -> tuple[Tensor, Tensor]:
        """A step after so many conjugate gradients, and the inner products (batch,) of it with the right-hand side.

        Stops where all residuals are below `residual` of their right-hand sides.
        """
        step, left = torch.zeros_like(right), right
        z = self.precondition(left)
        direction, now = z, dot(left, z)
        goal = residual**2 * dot(right, right)
        for number in range(products):
            image = self.product(direction)
            bend = dot(direction, image)
            length = torch.where(bend > 0, now / bend, 0.0)[:, None, None]
            step, left = step + length * direction, left - length * image
            if number == products - 1 or bool((dot(left, left) <= goal).all()):
                break
            z = self.precondition(left)
            last, now = now, dot(left, z)
            direction = z + torch.where(last > 0, now / last, 0.0)[:, None, None] * direction
        return step, dot(step, right)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(batch,): inner products of (batch, rows, R) tensors."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """(batch, n_1 n_2 .., R): the columns' Kronecker products, the first factor slowest."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result[:, :, None] * factor[:, None]).flatten(1, 2)
    return result


def _product(tensors: Sequence[Tensor], *without: int) -> Tensor:
    """The entrywise product of all but some; ones where none is left."""
    left = [tensor for k, tensor in enumerate(tensors) if k not in without]
    return math.prod(left[1:], start=left[0]) if left else torch.ones_like(tensors[0])


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse of positive definite matrices; the diagonal is raised where one is numerically singular."""
    root, info = torch.linalg.cholesky_ex(matrix)
    jitter = 1e-13
    while bool((info > 0).any()) and jitter < 1:
        mean = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None].clamp_min(torch.finfo(matrix.dtype).tiny)
        matrix = matrix.clone()
        matrix.diagonal(dim1=-2, dim2=-1).add_(jitter * mean)
        root, info = torch.linalg.cholesky_ex(matrix)
        jitter *= 10
    return torch.cholesky_inverse(root)
