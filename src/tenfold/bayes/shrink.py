"""Rules that decide ranks: rounding, which looks at the weight alone, and selection, which looks at what a method says of each slice."""

import abc
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tenfold.bayes.components import reduce_components
from tenfold.bayes.guards import check_number
from tenfold.bayes.reduction import AxisMap, Reduction, kept_slices, removal
from tenfold.bayes.refit import relative_change, squared_norm
from tenfold.bayes.rounding import round_tree
from tenfold.bayes.weight_moments import relative_spread
from tenfold.bayes.weighting import Moment, mode_roots
from tenfold.fold import Fold
from tenfold.network import Network

N_SPREADS = 2.0  # chosen on planted ranks; noise in excess slices adds up over all ranks


@dataclass(frozen=True)
class RankedWeight:
    """A weight that is to be decided on.

    factors: in float64.
    marks: by rank, which slices a method would keep.
    variances: of the factors' entries, where they are known.
    """

    name: str
    network: Network
    fold: Fold
    factors: Sequence[Tensor]
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    variances: Sequence[Tensor] = ()


class Rule(abc.ABC):
    """How the ranks of a weight follow from its factors, or from marks on its slices."""

    def check(self, names: Collection[str]) -> None:
        """Raises ValueError where the rule speaks of other layers than these."""
        return

    @abc.abstractmethod
    def reduce(self, one: RankedWeight) -> Reduction:
        """The smaller weight, in float64."""


@dataclass(frozen=True)
class Rounding(Rule):
    """The smallest ranks at which the weight changes by at most `tolerance`, in whatever basis the factors are.

    Trees (SVD, Tucker, TT, TTM, HT, Monarch of two factors, ..) by QR and SVD, with that bound; others by the norms of components,
    with merging and refit (`components.py`). A sum of terms is reduced term by term.

    Args:
        tolerance: of the relative Frobenius norm, from 0 to 1, exclusive.
        n_spreads: the tolerance is at least so many standard deviations of the weight, where a posterior tells them: what is smaller is
            not known. A weight that is not larger itself is removed. 0 where a few parameters do the work of many: each of them is then
            uncertain, and the layer is needed nevertheless.
        moments: for some layers by name, the second moment of their inputs, see `mode_roots`; for tables `IdFrequencies` counts it. Errors
            and standard deviations are then measured on what the layer computes. Where inputs never vary, as at the border of images, or
            in rows of a table that are hardly looked up, a posterior is as wide as its prior.

    Raises:
        ValueError: a number is out of its range. TypeError: it is no number.
    """

    tolerance: float = 0.01
    n_spreads: float = N_SPREADS
    moments: Mapping[str, Moment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number("Rounding", "tolerance", self.tolerance, 0.01)
        check_number("Rounding", "n_spreads", self.n_spreads, N_SPREADS)
        if not 0 < self.tolerance < 1:
            raise ValueError(
                f"Rounding got the tolerance {self.tolerance}; it is the relative error that a decision may cause, above 0 and below 1: "
                "give one like 0.01"
            )
        if not 0 <= self.n_spreads < math.inf:
            raise ValueError(f"Rounding got n_spreads={self.n_spreads}; it is 0 or a finite number above it: give one like {N_SPREADS}")

    def __str__(self) -> str:
        weighted = f", inputs of {', '.join(self.moments)}" if self.moments else ""
        return f"rounding to {self.tolerance:g}{weighted}"

    def check(self, names: Collection[str]) -> None:
        if wrong := [name for name in self.moments if name not in names]:
            raise ValueError(
                f"Rounding got moments of {', '.join(wrong)}; the layers whose ranks are decided are {', '.join(names)}: give moments of "
                "these alone"
            )

    def reduce(self, one: RankedWeight) -> Reduction:
        network, factors = one.network, one.factors
        if squared_norm(network, factors) == 0:
            return removal(network, factors)
        roots = mode_roots(one.fold, self.moments[one.name]) if one.name in self.moments else {}
        roots = {mode: root for mode, root in roots.items() if all(len(term.carriers(mode)) == 1 for term in network.terms)}
        weighted = _along_modes(network, factors, roots)
        tolerance = self.tolerance
        if one.variances and self.n_spreads:
            variances = _along_modes(network, one.variances, {mode: root.square() for mode, root in roots.items()})
            tolerance = max(tolerance, self.n_spreads * relative_spread(network, weighted, variances))
        if tolerance >= 1:
            return removal(network, factors)
        total = math.sqrt(squared_norm(network, weighted))
        sizes: dict[str, int] = {}
        maps: list[AxisMap] = []
        new: list[Tensor] = []
        for term, part in zip(network.terms, network.term_slices, strict=True):
            size = math.sqrt(squared_norm(term, weighted[part]))
            made = self._reduce_term(term, factors[part], weighted[part], roots, tolerance * total / len(network.terms) / max(size, 1e-300))
            sizes.update(made.sizes)
            new += made.factors
            maps += [AxisMap(one.factor + part.start, one.axis, one.value, one.gradient, one.batch) for one in made.maps]
        after = network.resized(sizes)
        return Reduction(sizes, new, maps, relative_change(network, weighted, after, _along_modes(after, new, roots)))

    def _reduce_term(
        self, term: Network, factors: Sequence[Tensor], weighted: Sequence[Tensor], roots: Mapping[str, Tensor], tolerance: float
    ) -> Reduction:
        """The reduction of one term, to at most `tolerance` relative to itself."""
        if tolerance >= 1:
            return removal(term, factors)
        if term.is_tree:
            sizes, maps, _ = round_tree(term, factors, tolerance, roots)
            made = Reduction(sizes, (), maps)
            return Reduction(sizes, [made.values(number, one) for number, one in enumerate(factors)], maps)
        sizes, found, maps, _ = reduce_components(term, weighted, tolerance)
        inverse = {mode: torch.linalg.inv(root) for mode, root in roots.items()}
        return Reduction(sizes, _along_modes(term, found, inverse), maps)


@dataclass(frozen=True)
class Selection(Rule):
    """The slices that the method itself would keep: variances above its cut, gates that are open, slices that are not zero.

    For a `Posterior` this is the thresholding of the published code, kept as the baseline: its result depends on the basis of the
    factors and on where the optimiser stands.
    """

    def __str__(self) -> str:
        return "selection by the method's own marks"

    def reduce(self, one: RankedWeight) -> Reduction:
        made = kept_slices(one.network, one.factors, one.marks)
        if made.is_removed:
            return made
        error = relative_change(one.network, one.factors, one.network.resized(made.sizes), made.factors)
        return Reduction(made.sizes, made.factors, made.maps, error)


def _along_modes(network: Network, factors: Sequence[Tensor], matrices: Mapping[str, Tensor]) -> list[Tensor]:
    """The factors multiplied along modes that one factor of each term carries."""
    factors = list(factors)
    for mode, matrix in matrices.items():
        for number, axis in network.carriers(mode):
            factors[number] = (factors[number].movedim(axis, -1) @ matrix.to(factors[number])).movedim(-1, axis).contiguous()
    return factors
