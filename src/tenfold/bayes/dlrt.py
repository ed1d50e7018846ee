"""Dynamical low-rank training: gradient descent on the manifold of matrices of low rank, whose rank moves up and down.

W = U S V'. A step: the bases take in the directions of the gradient, U^ = orth [U, G V] and V^ = orth [V, G' U]; the small matrix
makes a gradient step within them, S^ = U^' W V^ - rate x U^' G V^, with the gradient of a second backward pass; its SVD is cut where
the tail exceeds `tolerance` x ||S^||. Small singular values do not slow it down, and nothing has to be tuned against a data term.

Source: Schotthoefer et al. 2022, arXiv 2205.13571 (rank-adaptive training); the augmented bases: Ceruti, Kusch, Lubich 2022,
doi:10.1007/s10543-021-00907-7. Deviation: gradients where the source integrates K and L steps; they span the same space for one Euler step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.bayes.guards import check_loss, check_number, check_positive, check_whole_number
from tenfold.bayes.method import RankMethod
from tenfold.bayes.reduction import Reduction
from tenfold.bayes.run import Run, Spectra, averaged
from tenfold.bayes.surgery import factor_parameter, replaced, set_network
from tenfold.weight import FactorizedWeight


class DLRT(RankMethod):
    """Layers of two factors and one rank (SVD, TTM and KCP of two pairs ..), whose factors the method trains itself.

    All other parameters belong to an optimiser: make it from `other_parameters()`, and step it after `step(closure)`, which leaves their
    gradients. Gradients of the factors are averaged over the processes of a distributed run, since those are new parameters after each
    pass, which DistributedDataParallel does not know: give it `find_unused_parameters=True`, for the first ones have no gradients then.

    Args:
        rate: the learning rate of the small matrices.
        tolerance: the part of a matrix in Frobenius norm that each step may cut.
        max_rank: ranks stay at or below it; left out, at the smaller side of the matrix.

    Raises:
        ValueError: as for `attach`, or a layer has other than two factors and one rank, or a frozen factor.
        TypeError: a setting is no number.
    """

    quantity = "the singular values"

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        rate: float,
        tolerance: float = 0.01,
        max_rank: int | None = None,
    ) -> None:
        check_positive("DLRT", "rate", rate, 0.05)
        check_number("DLRT", "tolerance", tolerance, 0.01)
        if not 0 < tolerance < 1:
            raise ValueError(f"DLRT got tolerance={tolerance}; it is a part of a norm, above 0 and below 1: give one like 0.01")
        if max_rank is not None:
            check_whole_number("DLRT", "max_rank", max_rank, 64)
            if max_rank < 1:
                raise ValueError(f"DLRT got max_rank={max_rank}; a rank is at least 1: give a larger one, or leave it out")
        self.model, self.rate, self.tolerance, self.max_rank = model, rate, tolerance, None if max_rank is None else int(max_rank)
        self.run = Run(model, layers)
        for name, weight in self.run.weights.items():
            _check_matrix(name, weight)
        self.run.hold()
        self.values: dict[str, Tensor] = {}
        for name, weight in self.run.weights.items():
            left, right = self._matrices(weight)
            u, s, v = _svd(left, right)
            self._write(name, u * s, v)
            self.values[name] = s
        self.run.record(self.spectra())

    def other_parameters(self) -> list[nn.Parameter]:
        """The parameters that this method does not train."""
        mine = {id(factor_parameter(weight, number)) for weight in self.run.weights.values() for number in (0, 1)}
        return [p for p in self.model.parameters() if id(p) not in mine]

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Two backward passes and a step of all factors; the loss of the first pass.

        Raises:
            TypeError: there is no closure.
            ValueError: the loss of a pass or a gradient is not finite.
        """
        if closure is None:
            raise TypeError(
                "DLRT.step got no closure; it needs one that zeroes gradients, computes the loss, calls backward and returns the loss"
            )
        self.run.check_held()
        self.run.steps += 1
        loss = self.loss(closure())
        bases = {name: self._augmented(name, weight) for name, weight in self.run.live.items()}
        check_loss(closure(), self.run.steps)
        with torch.no_grad():
            for name, weight in self.run.live.items():
                self._cut(name, weight, *bases[name])
            self.run.observe(self.spectra(), self._values)
        return loss.detach()

    @torch.no_grad()
    def _augmented(self, name: str, weight: FactorizedWeight) -> tuple[Tensor, Tensor]:
        """Bases with the gradients' directions, after the factors were written in them."""
        left, right = self._matrices(weight)
        left_gradient, right_gradient = self._gradients(name, weight)
        u_hat = torch.linalg.qr(torch.cat([left, left_gradient], 1)).Q
        v_hat = torch.linalg.qr(torch.cat([right.mT, right_gradient.mT], 1)).Q
        self._write(name, left @ (right @ v_hat), v_hat.mT)
        return u_hat, v_hat

    def _cut(self, name: str, weight: FactorizedWeight, u_hat: Tensor, v_hat: Tensor) -> None:
        left, _ = self._matrices(weight)
        gradient, _ = self._gradients(name, weight)
        small = u_hat.mT @ (left - self.rate * gradient)
        p, s, q = torch.linalg.svd(small, full_matrices=False)
        tails = s.square().flip(0).cumsum(0).flip(0)
        keep = max(1, int((tails > self.tolerance**2 * tails[0]).sum()))
        keep = min(keep, self.max_rank or keep)
        self.values[name] = s[:keep]
        self._write(name, (u_hat @ p[:, :keep]) * s[:keep], q[:keep] @ v_hat.mT)

    def _gradients(self, name: str, weight: FactorizedWeight) -> tuple[Tensor, Tensor]:
        """(m, R) and (R, n): the gradients of the factors, all finite."""
        gradients = self._matrices(weight, of_gradient=True)
        if not all(bool(one.isfinite().all()) for one in gradients):
            raise ValueError(
                f"the factors of layer {name!r} have gradients that are not finite after {self.run.steps} steps; finite ones are needed: "
                "lower the learning rates, and go on from the last good state"
            )
        return gradients

    def _matrices(self, weight: FactorizedWeight, *, of_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """(m, R) and (R, n) in float64, of the factors or of their gradients."""
        ((_, first), (_, second)) = weight.network.carriers(next(iter(weight.network.ranks)))
        parts: list[Tensor] = []
        for number in (0, 1):
            parameter = factor_parameter(weight, number)
            value = parameter.grad if of_gradient else parameter
            part = torch.zeros_like(parameter) if value is None else value.detach()
            parts.append(averaged(part) if of_gradient else part)
        left, right = (part.double() for part in parts)
        return left.movedim(first, -1).flatten(0, -2), right.movedim(second, 0).flatten(1)

    def _write(self, name: str, left: Tensor, right: Tensor) -> None:
        """New factors from (m, R) and (R, n)."""
        weight = self.run.weights[name]
        rank = next(iter(weight.network.ranks))
        ((_, first), (_, second)) = weight.network.carriers(rank)
        network = weight.network.resized({rank: left.shape[1]})
        for number, axis, matrix in ((0, first, left.mT), (1, second, right)):
            rest = [size for n, size in enumerate(network.shapes[number]) if n != axis]
            old = factor_parameter(weight, number)
            value = matrix.reshape(-1, *rest).movedim(0, axis).to(old)
            setattr(weight.factors, str(number), replaced(self.run.watched.optimizers, old, value))
        set_network(weight, network)

    def penalty(self) -> Tensor:
        """0: ranks follow from the cut."""
        return torch.zeros(())

    def spectra(self) -> Spectra:
        return {name: {next(iter(weight.network.ranks)): self.values[name]} for name, weight in self.run.live.items()}

    def marks(self, name: str) -> Mapping[str, Tensor]:
        """All slices: what is too small was cut already."""
        return {rank: torch.ones(size, dtype=torch.bool) for rank, size in self.run.weights[name].network.ranks.items()}

    def _update(self) -> None:
        """`step` does it all."""

    def _values(self, name: str) -> list[Tensor]:
        return [factor_parameter(self.run.weights[name], number) for number in (0, 1)]

    def _follow(self, name: str, reduction: Reduction) -> None:
        u, s, v = _svd(*self._matrices(self.run.weights[name]))
        self._write(name, u * s, v)
        self.values[name] = s

    def _extra_state(self) -> dict[str, Any]:
        return {
            "settings": f"DLRT({self.rate}, {self.tolerance}, {self.max_rank})",
            "values": {k: v.clone() for k, v in self.values.items()},
        }

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        self.values = {name: value.clone() for name, value in state["values"].items()}


def _check_matrix(name: str, weight: FactorizedWeight) -> None:
    network = weight.network
    shared = [mode for mode in network.modes if len(network.carriers(mode)) > 1]
    if len(network.factors) != 2 or len(network.ranks) != 1 or shared:
        raise ValueError(
            f"DLRT got layer {name!r} with {network.statement!r}; it needs two factors that share one rank and no mode: use "
            "SVD there, or name the layers that are meant"
        )
    if frozen := [number for number in (0, 1) if not factor_parameter(weight, number).requires_grad]:
        raise ValueError(
            f"DLRT got layer {name!r} whose factor {frozen[0]} is frozen; it trains both factors together, and makes both anew in every "
            "step: call requires_grad_(True) on it, leave the layer out, or use another method"
        )


def _svd(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, R), S (R,), V' (R, n) of a product of (m, R) and (R, n)."""
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.mT)
    p, s, q = torch.linalg.svd(r_left @ r_right.mT, full_matrices=False)
    return q_left @ p, s, q @ q_right.mT
