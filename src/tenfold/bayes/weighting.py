"""Weighting by inputs: errors of a weight measured where inputs are, mode by mode.

The second moment of the inputs of a layer is replaced by a Kronecker product, one matrix for each input mode; its roots then act on the
axes of the factors, whatever the format.
"""

import math

import torch
from torch import Tensor

from tenfold.fold import Fold

DAMPING = 1e-4  # added relative to the mean eigenvalue: directions that no input has shown still count a little


def mode_roots(fold: Fold, moment: Tensor) -> dict[str, Tensor]:
    """Symmetric roots (n, n), by input mode, of the second moment of a layer's inputs; in float64.

    Args:
        moment: (in, in), the mean of x x'; or (in,), its diagonal alone, such as the frequencies of the ids of an embedding. For
            a convolution `in` are the input channels.

    Raises:
        ValueError: another shape, a moment that is not finite, or a weight in groups.
    """
    axis = fold.axis("i")
    if axis.groups > 1 or fold.groups > 1:
        raise ValueError(
            f"the weight has {fold.groups} groups; weighting by inputs needs one: leave the moment of this layer out, then its own "
            "norm counts"
        )
    if tuple(moment.shape) not in ((axis.size,), (axis.size, axis.size)) or not bool(torch.isfinite(moment).all()):
        raise ValueError(
            f"the moment has shape {tuple(moment.shape)}, or values that are not finite; the weight has {axis.size} inputs and needs "
            f"({axis.size},) or ({axis.size}, {axis.size}): give the mean of x x', or of x^2, over the layer's inputs"
        )
    names, sizes = fold.role("i"), [fold.sizes[mode] for mode in fold.role("i")]
    padding = math.prod(sizes) - axis.size
    moment = torch.nn.functional.pad(moment.double(), (0, padding) * moment.dim())
    roots = {}
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        before, after = math.prod(sizes[:number]), math.prod(sizes[number + 1 :])
        if moment.dim() == 1:
            frequencies = moment.reshape(before, size, after).sum((0, 2))
            roots[name] = torch.diag((frequencies / frequencies.mean().clamp_min(1e-300) + DAMPING).sqrt())
            continue
        marginal = torch.einsum("aibajb->ij", moment.reshape(before, size, after, before, size, after))
        mean = marginal.diagonal().mean().clamp_min(1e-300)
        values, vectors = torch.linalg.eigh(marginal / mean + DAMPING * torch.eye(size, dtype=marginal.dtype, device=marginal.device))
        roots[name] = vectors * values.clamp_min(DAMPING / 2).sqrt() @ vectors.mT
    return roots
