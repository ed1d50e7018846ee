"""The output-space metric of layers with very many inputs: the diagonal of the second moment, since the whole would be too large.

What is left out is how inputs vary together; that some are a hundred times as large as others, as in transformers, is kept.

Source: arXiv 2312.05821 (ASVD), there with mean absolute values in place of second moments.
"""

import torch
from torch import Tensor

from tenfold.fold import Fold
from tenfold.solvers.whitening import CONSTANT, DAMPING, Root, Whitening


class DiagonalWhitening(Whitening):
    """A `Whitening` whose `moment`, `metric` and `damped` are the diagonals alone: (groups, in x kernel)."""

    @property
    def metric(self) -> Tensor:
        """The second moments, or the variances where the mean is free."""
        if self.mean is None or not self.is_mean_free:
            return self.moment
        left = self.moment - self.mean.square()
        return torch.where(left > CONSTANT * self.moment, left, torch.zeros_like(left))

    @property
    def damped(self) -> Tensor:
        """The metric with DAMPING of its mean added; ones where all of it is zero."""
        metric = self.metric
        mean = metric.mean(-1, keepdim=True)
        return metric + torch.where(mean > 0, DAMPING * mean, 1.0)

    def error(self, weight: Tensor, other: Tensor) -> Tensor:
        """As for the whole moment, of (groups, out, in x kernel) matrices."""
        metric = self.metric if self.is_varied else self.damped
        power = [(matrix.square() * metric[:, None]).sum() for matrix in (weight - other, weight)]
        return power[0] / power[1].clamp_min(1e-300)

    def left_over(self, fold: Fold, roots: object) -> None:
        """Nothing: what roots leave of a diagonal is not worth a fit of its own."""

    def _kronecker(self, fold: Fold) -> tuple[Tensor, Tensor]:
        axis = fold.axis("i")
        both = self.damped.unflatten(-1, (axis.size // axis.groups, -1))
        return both.mean(2), both.mean(1) / both.mean((1, 2))[:, None]

    def _times(self, tensor: Tensor) -> Tensor:
        return self.damped[..., None] * tensor

    def _root(self, modes: tuple[str, ...], carrier: int, part: Tensor) -> Root:
        root = part.sqrt()
        return Root(modes, carrier, root, 1 / root)
