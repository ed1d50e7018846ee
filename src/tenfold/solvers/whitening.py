"""The output-space metric: errors of a weight measured on what its layer computes from real inputs.

With S the second moment of the inputs of a layer, the expected squared error of its outputs is ||(W - W~) S^(1/2)||^2. S is taken as
the Kronecker product of one matrix for the input channels and one for the kernel positions. Then whitening only changes the
target: any solver runs on W S^(1/2), and the factors that carry the input or kernel modes are multiplied by S^(-1/2) afterwards. Where one
factor carries both, as in an SVD, all of S is used and nothing is left to `output_fit`.

A few rows say nothing of most directions, and an error in those that they happen to show would look like none. So S is drawn towards a
multiple of the identity, by as much as its own noise is estimated to be; of many rows that is next to nothing.

Source: arXiv 2511.04494 (the metric); Chen, Wiesel, Eldar, Hero 2010, arXiv 0907.4698, eq. 23 (the shrinkage, OAS). On trial kernels the
Kronecker approximation with the refit kept 97 % of what the whole of S gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.network import Network
from tenfold.solvers.sensitivity import rebalance
from tenfold.solvers.solution import rebuild

DAMPING = 1e-4  # added to S relative to its mean eigenvalue: directions that no input has shown still count a little
CONSTANT = 1e-10  # of the second moment: less covariance than that is rounding of float32 inputs, 1e-5 of them


@dataclass(frozen=True)
class Whitening:
    """Second moment of a layer's inputs in float64: (in x kernel, in x kernel), channels slowest; one for each group: (groups, ...).

    `moment` is the mean of x x' over samples and positions, with x an unfolded patch; `mean`, (groups, in x kernel), that of x. Where
    the mean of the outputs is free, as a bias or a BatchNorm corrects it, only what varies counts: S is then the covariance.
    `rows`: the number of patches that they were computed from; None where they are exact.
    """

    moment: Tensor
    mean: Tensor | None = None
    is_mean_free: bool = False
    rows: int | None = None

    @property
    def metric(self) -> Tensor:
        """S: the second moment, or the covariance where the mean is free; of few rows, drawn towards even variances."""
        if self.mean is None or not (self.is_mean_free or self.rows):
            return self.moment
        outer = self.mean[..., :, None] * self.mean[..., None, :]
        covariance = self.moment - outer
        # inputs that never vary leave nothing but rounding
        is_varied = _traces(covariance) > CONSTANT * _traces(self.moment)
        if self.rows:
            covariance = _shrunk(covariance, self.rows)
        if not self.is_mean_free:
            return covariance + outer
        return torch.where(is_varied[..., None, None], covariance, torch.zeros_like(covariance))

    @cached_property
    def is_varied(self) -> bool:
        """Whether S is not zero."""
        return bool(self.metric.any())

    @property
    def damped(self) -> Tensor:
        """S with DAMPING of its mean eigenvalue added; S of zero (inputs that never vary) becomes the identity."""
        metric = self.metric
        mean = metric.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        eye = torch.eye(metric.shape[-1], dtype=metric.dtype, device=metric.device)
        result = metric + torch.where(mean > 0, DAMPING * mean, 1.0) * eye
        return result.reshape(-1, *result.shape[-2:])

    def error(self, weight: Tensor, other: Tensor) -> Tensor:
        """||(W - W~) S^(1/2)||^2 / ||W S^(1/2)||^2 for (groups, out, in x kernel) matrices, over all groups.

        That of the weight where inputs never vary: any weight would do for them, but others will come.
        """
        delta, metric = weight - other, self.metric if self.is_varied else self.damped
        return ((delta @ metric) * delta).sum() / ((weight @ metric) * weight).sum().clamp_min(1e-300)

    def matrices(self, fold: Fold, tensor: Tensor) -> Tensor:
        """(groups, out, in x kernel) from (groups, *modes) tensors without padding."""
        modes = [m for m in fold.modes if m != "g"]
        order = [m for role in "oik" for m in modes if m[0] == role]
        n_out = len(fold.role("o"))
        return tensor.permute(0, *(modes.index(m) + 1 for m in order)).flatten(n_out + 1).flatten(1, n_out)

    def whiten(self, fold: Fold, network: Network, tensor: Tensor, roots: Sequence["Root"] | None = None) -> Tensor:
        """W S^(1/2) for (groups, *modes) tensors. A mode that several factors carry stays as it is: no factor could be unwhitened.

        Args:
            roots: from `roots`, where they are there already.
        """
        for root in self.roots(fold, network) if roots is None else roots:
            tensor = _multiply_modes(tensor, network.modes, root.modes, root.matrix)
        return tensor

    def unwhiten(
        self,
        fold: Fold,
        network: Network,
        factors: Sequence[Tensor],
        tensor: Tensor,
        roots: Sequence["Root"] | None = None,
        *,
        is_refitted: bool = True,
    ) -> list[Tensor]:
        """Factors of W from factors of W S^(1/2); then the output factor, if there is one, is refitted with all of S.

        They are scaled to be least sensitive again, since S^(-1/2) has made parts of them large.
        """
        factors = list(factors)
        for root in self.roots(fold, network) if roots is None else roots:
            factors[root.carrier] = _multiply_modes(factors[root.carrier], network.factors[root.carrier], root.modes, root.inverse)
        return rebalance(network, self._refit(fold, network, factors, tensor) if is_refitted else factors)

    def roots(self, fold: Fold, network: Network) -> list["Root"]:
        """Roots of S for the modes that one factor carries: of channels and kernel positions together where it is the same one."""
        inputs, kernel = fold.role("i"), fold.role("k")
        carriers = [_carrier(fold, network, role) for role in "ik"]
        if fold.axis("i").padding:
            return []
        if carriers[0] is not None and (carriers[0] == carriers[1] or not kernel):
            return [self._root((*inputs, *kernel), carriers[0], self.damped)]
        parts = zip((inputs, kernel), carriers, self._kronecker(fold), strict=True)
        return [self._root(modes, carrier, part) for modes, carrier, part in parts if carrier is not None]

    def left_over(self, fold: Fold, roots: Sequence["Root"]) -> Tensor | None:
        """What the roots leave of S: the metric (groups, in x kernel, in x kernel) of the whitened tensor, None for the identity."""
        modes = (*fold.role("i"), *fold.role("k"))
        if any(root.modes == modes for root in roots):
            return None
        result = self.damped
        sizes = [fold.sizes[mode] for mode in modes]
        for root in roots:
            for _ in range(2):  # from the right, and from the left
                rows = result.mT.reshape(len(result), -1, *sizes)
                result = _multiply_modes(rows, ("row", *modes), root.modes, root.inverse).reshape(result.shape)
        return (result + result.mT) / 2

    def _kronecker(self, fold: Fold) -> tuple[Tensor, Tensor]:
        """The nearest Kronecker product to S: (groups, n, n) for channels and for kernel positions."""
        n_kernel = 1
        for mode in fold.role("k"):
            n_kernel *= fold.sizes[mode]
        axis = fold.axis("i")
        moment = self.damped.reshape(-1, axis.size // axis.groups, n_kernel, axis.size // axis.groups, n_kernel)
        channels = torch.einsum("gipjp->gij", moment)
        kernel = torch.einsum("gipiq->gpq", moment)
        for _ in range(5):  # by power iterations
            kernel = torch.einsum("gipjq,gij->gpq", moment, channels)
            kernel = kernel / kernel.flatten(1).norm(dim=1)[:, None, None]
            channels = torch.einsum("gipjq,gpq->gij", moment, kernel)
        return channels, kernel

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
        sz = self._times(z)
        gram = z.mT @ sz
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        ridge = 1e-9 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        new = torch.linalg.solve(gram + (ridge + 1e-300) * eye, (w @ sz).mT).mT
        have = [*out, *ranks]
        shaped = new.reshape(-1, *(network.sizes[i] for i in have))
        factors[number] = shaped.permute(0, *(have.index(i) + 1 for i in network.factors[number])).contiguous()
        return factors

    def _times(self, tensor: Tensor) -> Tensor:
        """S times (groups, in x kernel, n)."""
        return self.damped @ tensor

    def _root(self, modes: tuple[str, ...], carrier: int, part: Tensor) -> "Root":
        values, vectors = torch.linalg.eigh(part)
        values = values.clamp_min(1e-8 * values[..., -1:].clamp_min(1e-300)).sqrt()
        return Root(modes, carrier, (vectors * values[..., None, :]) @ vectors.mT, (vectors / values[..., None, :]) @ vectors.mT)


def _shrunk(covariance: Tensor, rows: int) -> Tensor:
    """The oracle approximating shrinkage of (groups, n, n) covariances of so many rows; traces stay as they are."""
    size, trace = covariance.shape[-1], _traces(covariance)
    power, even = torch.linalg.matrix_norm(covariance).square(), trace.square() / size
    noise = ((1 - 2 / size) * power + trace.square()) / (rows + 1 - 2 / size)
    share = torch.where(power > even, noise / (power - even), 0.0).clamp(0, 1)
    result = covariance * (1 - share)[..., None, None]
    result.diagonal(dim1=-2, dim2=-1).add_((share * trace / size)[..., None])
    return result


def _traces(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


def output_mean(weight: Tensor, mean: Tensor) -> Tensor:
    """(out,) in float64: what a weight (out, in, ..) makes of the mean patch (groups, in x kernel)."""
    return (weight.double().reshape(len(mean), -1, mean.shape[-1]) @ mean[..., None]).flatten()


def _carrier(fold: Fold, network: Network, role: str) -> int | None:
    """The one factor that carries all modes of a role, None where they are spread over several."""
    found = {k for mode in fold.role(role) for k, _ in network.carriers(mode)}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Root:
    """A symmetric square root and its inverse, (groups, n, n), or their diagonals (groups, n), of the modes that one factor carries."""

    modes: tuple[str, ...]
    carrier: int
    matrix: Tensor
    inverse: Tensor


def _multiply_modes(tensor: Tensor, names: Sequence[str], modes: Sequence[str], matrix: Tensor) -> Tensor:
    """A (groups, *names) tensor times a (groups, n, n) symmetric matrix, or a diagonal (groups, n), along `modes`, taken together."""
    order = [i for i in names if i not in modes] + list(modes)
    moved = tensor.permute(0, *(list(names).index(i) + 1 for i in order))
    flat = moved.reshape(moved.shape[0], -1, matrix.shape[-1])
    flat = flat @ matrix if matrix.dim() == 3 else flat * matrix[:, None]
    return flat.reshape(moved.shape).permute(0, *(order.index(i) + 1 for i in names)).contiguous()
