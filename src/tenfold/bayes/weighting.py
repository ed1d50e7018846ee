"""Weighting by inputs: errors of a weight measured where inputs are, mode by mode.

The second moment of the inputs of a layer is replaced by a Kronecker product, one matrix for each input mode; its roots then act on the
axes of the factors, whatever the format. For a table that ids look up the second moment is diagonal, and its modes are counted as digits.
"""

import math
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from tenfold.bayes.factorized_weights import check_rows
from tenfold.contract.run import digits_of
from tenfold.fold import Fold

Moment: TypeAlias = Tensor | Mapping[str, Tensor]

DAMPING = 1e-4  # added relative to the mean eigenvalue: directions that no input has shown still count a little


class IdFrequencies:
    """How often every digit of the ids of factorised tables occurs, for `Rounding(moments=frequencies.moments)`.

    The rows of a large table are not looked up alike, and those that are rare are hardly known: counted alike, they hide the others. The
    digits of a row are its indices in the input modes, so ten million rows need some hundred counts. In several processes each counts
    its own ids: add up the counts before a decision.

    Args:
        folds: of the tables, by layer name.

    >>> from tenfold.fold import make_fold
    >>> frequencies = IdFrequencies({"table": make_fold([("o", 2), ("i", 6)], 2, in_modes=(2, 3))})
    >>> frequencies.add("table", torch.tensor([0, 0, 5]))
    >>> [counts.tolist() for counts in frequencies.moments["table"].values()]
    [[2.0, 1.0], [2.0, 0.0, 1.0]]
    """

    def __init__(self, folds: Mapping[str, Fold]) -> None:
        self._n_rows = {name: fold.axis("i").size for name, fold in folds.items()}
        self.moments = {
            name: {mode: torch.zeros(fold.sizes[mode], dtype=torch.float64) for mode in fold.role("i")} for name, fold in folds.items()
        }

    def add(self, name: str, ids: Tensor) -> None:
        """Counts ids of a table in, of any shape.

        Raises:
            TypeError: the ids are no whole numbers.
            ValueError: there is no such table.
            IndexError: an id is none of its rows.
        """
        if name not in self.moments:
            raise ValueError(f"there is no table {name!r}; ids can be counted for {', '.join(self.moments) or 'none'}: give one of these")
        check_rows("IdFrequencies", name, self._n_rows[name], ids)
        counts = list(self.moments[name].values())
        for one, digits in zip(counts, digits_of(ids.detach().flatten().cpu(), [len(one) for one in counts]), strict=True):
            one += torch.bincount(digits, minlength=len(one))


def mode_roots(fold: Fold, moment: Moment) -> dict[str, Tensor]:
    """Symmetric roots (n, n), by input mode, of the second moment of a layer's inputs; in float64.

    Args:
        moment: (in, in), the mean of x x'; or (in,), its diagonal alone, such as the frequencies of the ids of an embedding; or the
            sums of the diagonal by input mode, see `IdFrequencies`. For a convolution `in` are the input channels.

    Raises:
        ValueError: another shape, a moment that is not finite or has a negative mean of squares, or a weight in groups.
    """
    axis = fold.axis("i")
    if axis.groups > 1 or fold.groups > 1:
        raise ValueError(
            f"the weight has {fold.groups} groups; weighting by inputs needs one: leave the moment of this layer out, then its own "
            "norm counts"
        )
    names, sizes = fold.role("i"), [fold.sizes[mode] for mode in fold.role("i")]
    if isinstance(moment, Mapping):
        if not all(_is_moment(one) for one in moment.values()):
            raise ValueError("the counts of a mode are negative or not finite; numbers from 0 on are needed: count ids, see IdFrequencies")
        given, wanted = {name: len(one) for name, one in moment.items()}, dict(zip(names, sizes, strict=True))
        if given != wanted:
            raise ValueError(f"the moment has the modes {given}; the weight has {wanted}: count the ids of this layer, see IdFrequencies")
        return {name: _diagonal_root(moment[name].double()) for name in names}
    if tuple(moment.shape) not in ((axis.size,), (axis.size, axis.size)) or not _is_moment(moment):
        raise ValueError(
            f"the moment has shape {tuple(moment.shape)}, or values that are not finite, or negative on its diagonal; the weight has "
            f"{axis.size} inputs and needs ({axis.size},) or ({axis.size}, {axis.size}): give the mean of x x', or of x^2, over the "
            "layer's inputs"
        )
    padding = math.prod(sizes) - axis.size
    moment = torch.nn.functional.pad(moment.double(), (0, padding) * moment.dim())
    roots = {}
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        before, after = math.prod(sizes[:number]), math.prod(sizes[number + 1 :])
        if moment.dim() == 1:
            roots[name] = _diagonal_root(moment.reshape(before, size, after).sum((0, 2)))
            continue
        marginal = torch.einsum("aibajb->ij", moment.reshape(before, size, after, before, size, after))
        mean = marginal.diagonal().mean().clamp_min(1e-300)
        values, vectors = torch.linalg.eigh(marginal / mean + DAMPING * torch.eye(size, dtype=marginal.dtype, device=marginal.device))
        roots[name] = vectors * values.clamp_min(DAMPING / 2).sqrt() @ vectors.mT
    return roots


def _is_moment(moment: Tensor) -> bool:
    """Whether all values are finite, and none of the diagonal negative."""
    diagonal = moment if moment.dim() == 1 else moment.diagonal()
    return bool(torch.isfinite(moment).all()) and bool((diagonal >= 0).all())


def _diagonal_root(frequencies: Tensor) -> Tensor:
    return torch.diag((frequencies / frequencies.mean().clamp_min(1e-300) + DAMPING).sqrt())
