"""The output-space metric: errors of a weight measured on what its layer computes from real inputs.

With S the second moment of the inputs of a layer, the expected squared error of its outputs is ||(W - W~) S^(1/2)||^2. S is taken as
the Kronecker product of one matrix for the input channels and one for the kernel positions. Then whitening only changes the
target: any solver runs on W S^(1/2), and the factors that carry the input or kernel modes are multiplied by S^(-1/2) afterwards.

Source: arXiv 2511.04494 (the metric). On trial kernels the Kronecker approximation with the refit kept 97 % of what the whole of S gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.network import Network
from tenfold.solvers.solution import equalise, rebuild

DAMPING = 1e-4  # added to S relative to its mean eigenvalue: directions that no input has shown still count a little


@dataclass(frozen=True)
class Whitening:
    """Second moment of a layer's inputs in float64: (in x kernel, in x kernel), channels slowest; one for each group: (groups, ...).

    `moment` is the mean of x x' over samples and positions, with x an unfolded patch.
    """

    moment: Tensor

    @property
    def damped(self) -> Tensor:
        """The moment with DAMPING of its mean eigenvalue added; a moment of zero (inputs that are always zero) becomes the identity."""
        mean = self.moment.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        eye = torch.eye(self.moment.shape[-1], dtype=self.moment.dtype, device=self.moment.device)
        return self.moment + torch.where(mean > 0, DAMPING * mean, 1.0) * eye

    def error(self, weight: Tensor, other: Tensor) -> Tensor:
        """||(W - W~) S^(1/2)||^2 / ||W S^(1/2)||^2 for (groups, out, in x kernel) matrices, over all groups."""
        delta = weight - other
        return ((delta @ self.moment) * delta).sum() / ((weight @ self.moment) * weight).sum().clamp_min(1e-300)

    def matrices(self, fold: Fold, tensor: Tensor) -> Tensor:
        """(groups, out, in x kernel) from (groups, *modes) tensors without padding."""
        modes = [m for m in fold.modes if m != "g"]
        order = [m for role in "oik" for m in modes if m[0] == role]
        n_out = len(fold.role("o"))
        return tensor.permute(0, *(modes.index(m) + 1 for m in order)).flatten(n_out + 1).flatten(1, n_out)

    def whiten(self, fold: Fold, network: Network, tensor: Tensor) -> Tensor:
        """W S^(1/2) for (groups, *modes) tensors. A mode that several factors carry stays as it is: no factor could be unwhitened."""
        for role, (root, _) in zip("ik", self._roots(fold), strict=True):
            if root is not None and _carrier(fold, network, role) is not None:
                tensor = _multiply_modes(tensor, network.modes, fold.role(role), root)
        return tensor

    def unwhiten(self, fold: Fold, network: Network, factors: Sequence[Tensor], tensor: Tensor) -> list[Tensor]:
        """Factors of W from factors of W S^(1/2); then the output factor, if there is one, is refitted with all of S."""
        factors = list(factors)
        for role, (_, inverse) in zip("ik", self._roots(fold), strict=True):
            if inverse is not None and (number := _carrier(fold, network, role)) is not None:
                factors[number] = _multiply_modes(factors[number], network.factors[number], fold.role(role), inverse)
        return equalise(self._refit(fold, network, factors, tensor))

    def _roots(self, fold: Fold) -> list[tuple[Tensor, Tensor] | tuple[None, None]]:
        """S^(1/2) and its inverse, (groups, n, n), of channels and of kernel positions; None where the fold splits or lacks the axis."""
        n_kernel = 1
        for mode in fold.role("k"):
            n_kernel *= fold.sizes[mode]
        axis = fold.axis("i")
        moment = self.damped.reshape(-1, axis.size // axis.groups, n_kernel, axis.size // axis.groups, n_kernel)
        channels = torch.einsum("gipjp->gij", moment)
        kernel = torch.einsum("gipiq->gpq", moment)
        for _ in range(5):  # nearest Kronecker product by power iterations
            kernel = torch.einsum("gipjq,gij->gpq", moment, channels)
            kernel = kernel / kernel.flatten(1).norm(dim=1)[:, None, None]
            channels = torch.einsum("gipjq,gpq->gij", moment, kernel)
        is_split = len(axis.modes) > 1 or axis.padding > 0
        return [(None, None) if is_split else _root(channels), _root(kernel) if n_kernel > 1 else (None, None)]

    def _refit(self, fold: Fold, network: Network, factors: list[Tensor], tensor: Tensor) -> list[Tensor]:
        """The factor that carries all output modes and nothing but ranks besides, solved exactly: C = W S Z (Z' S Z)^-1."""
        out = [m for m in fold.modes if m[0] == "o"]
        number = next(
            (k for k, f in enumerate(network.factors) if set(out) <= set(f) and all(i in out or i in network.ranks for i in f)), None
        )
        axis = fold.axis("i")
        if number is None or axis.padding or len([k for k, f in enumerate(network.factors) if set(f) & set(out)]) > 1:
            return factors
        ranks = [i for i in network.factors[number] if i in network.ranks]
        rest = [f for k, f in enumerate(network.factors) if k != number]
        inner = [m for m in network.modes if m not in out]
        z = rebuild(Network.of(rest, (*inner, *ranks), network.sizes), [f for k, f in enumerate(factors) if k != number])
        z = z.flatten(1, len(inner)).flatten(2)
        w = self.matrices(fold, tensor)
        sz = self.damped.reshape(-1, *self.moment.shape[-2:]) @ z
        gram = z.mT @ sz
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        ridge = 1e-9 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        new = torch.linalg.solve(gram + (ridge + 1e-300) * eye, (w @ sz).mT).mT
        have = [*out, *ranks]
        shaped = new.reshape(-1, *(network.sizes[i] for i in have))
        factors[number] = shaped.permute(0, *(have.index(i) + 1 for i in network.factors[number])).contiguous()
        return factors


def _carrier(fold: Fold, network: Network, role: str) -> int | None:
    """The one factor that carries all modes of a role, None where they are spread over several."""
    found = {k for mode in fold.role(role) for k, _ in network.carriers(mode)}
    return found.pop() if len(found) == 1 else None


def _root(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root and its inverse of (groups, n, n)."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(1e-8 * values[..., -1:].clamp_min(1e-300)).sqrt()
    return (vectors * values[..., None, :]) @ vectors.mT, (vectors / values[..., None, :]) @ vectors.mT


def _multiply_modes(tensor: Tensor, names: Sequence[str], modes: Sequence[str], matrix: Tensor) -> Tensor:
    """A (groups, *names) tensor times a (groups, n, n) symmetric matrix along `modes`, taken together."""
    order = [i for i in names if i not in modes] + list(modes)
    moved = tensor.permute(0, *(list(names).index(i) + 1 for i in order))
    flat = moved.reshape(moved.shape[0], -1, matrix.shape[-1]) @ matrix
    return flat.reshape(moved.shape).permute(0, *(order.index(i) + 1 for i in names)).contiguous()
