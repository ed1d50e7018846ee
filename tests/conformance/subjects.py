"""What is tested: every format, with every choice of its switches, and every layer. Both are discovered; nothing is listed by hand.

A choice of options that are no switches stands in `VARIANTS` of the format's reference, tests/golden/<format>.py.
"""

import dataclasses
import importlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.formats import all_formats, format_text
from tenfold.layers import all_layers
from tenfold.layers.base import FactorizedLayer
from tenfold.network import Network
from tenfold.weight import FactorizedWeight


@dataclass(frozen=True)
class Subject:
    """A format with one choice of its options, and the module tests/golden/<format>.py that says what it must be."""

    name: str
    format: Format
    golden: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    weight_type: type[FactorizedWeight] = FactorizedWeight

    @property
    def reference(self) -> ModuleType:
        """The reference; a format without one is not done."""
        return importlib.import_module(f"golden.{self.golden}")

    def ranked(self, rank: Any) -> Format:
        """The format with a rank."""
        return dataclasses.replace(self.format, rank=rank)

    def network(self, fold: Fold, rank: Any) -> Network:
        """The network of a weight."""
        return self.ranked(rank).network(fold)

    def weight(self, fold: Fold, rank: Any) -> FactorizedWeight:
        """A weight in float64 with normal entries."""
        weight = self.weight_type(self.network(fold, rank), fold, dtype=torch.float64)
        weight.init_normal_(1.0)
        return weight

    def layer(self, kind: type[FactorizedLayer], dense: nn.Module, fold: Fold, rank: Any) -> Any:
        """The layer with the options and the bias of a dense one."""
        return kind.around(dense, self.weight(fold, rank))

    def __str__(self) -> str:
        return self.name


def subjects() -> list[Subject]:
    """Every format of tenfold.formats with every choice of its switches, and with the variants of its reference."""
    found = []
    for name, kind in all_formats().items():
        switches = [one.name for one in dataclasses.fields(kind) if isinstance(one.default, bool)]
        choices = [dict(zip(switches, values, strict=True)) for values in itertools.product((False, True), repeat=len(switches))]
        for options in (*choices, *getattr(Subject(name, kind(), name).reference, "VARIANTS", ())):
            found.append(Subject(format_text(kind(**options)), kind(**options), name, options))
    return found


SUBJECTS = subjects()
LAYERS = list(all_layers().values())


def takes(format: Format, fold: Fold) -> bool:
    """Whether the format has factors, joined by ranks, for modes in these numbers."""
    try:
        factors = format.factors(fold)
    except ValueError:
        return False
    return any(index not in fold.modes for indices in factors for index in indices)


def merged(fold: Fold, format: Format) -> Fold:
    """The fold as the format takes it, where it wants as many output as input modes with the shorter list filled up with ones.

    Where it wants another number of them, or has no rank with this one, modes are split, or the last ones joined.
    """
    longest = max(len(fold.axis("o").modes), len(fold.axis("i").modes))
    choices = [fold, _resplit(fold, longest, only_ones=True), *(_resplit(fold, count) for count in range(1, 5))]
    return format.fold(next(one for one in choices if takes(format, one)))


def _resplit(fold: Fold, count: int, *, only_ones: bool = False) -> Fold:
    """The fold with so many output and input modes."""

    def split(modes: tuple[int, ...]) -> tuple[int, ...]:
        if len(modes) > count:
            return (*modes[: count - 1], math.prod(modes[count - 1 :]))
        while len(modes) < count:
            parts = [] if only_ones else [(size // a * a, n, a) for n, size in enumerate(modes) for a in range(2, size) if size % a == 0]
            if not parts:
                return modes + (1,) * (count - len(modes))
            _, n, a = max(parts)
            modes = (*modes[:n], modes[n] // a, a, *modes[n + 1 :])
        return modes

    return Fold(tuple(axis if axis.role == "k" else dataclasses.replace(axis, modes=split(axis.modes)) for axis in fold.axes))


def reference_dense(subject: Subject, weight: FactorizedWeight) -> Tensor:
    """The dense weight in torch's axis order, entry by entry from the paper's formula."""
    axes = weight.fold.axes
    groups = max(axis.groups for axis in axes)
    values = [factor.detach().numpy() for factor in weight.factors]
    dense = np.empty([axis.size for axis in axes])
    for position in itertools.product(*(range(axis.size) for axis in axes)):
        group = 0
        digits: dict[str, tuple[int, ...]] = {"o": (), "i": (), "k": ()}
        for axis, index in zip(axes, position, strict=True):
            if axis.groups > 1:
                group, index = divmod(index, axis.size // axis.groups)
            digits[axis.role] += digits_of(index, axis.modes)
        factors = [value[group] for value in values] if groups > 1 else values
        dense[position] = subject.reference.entry(factors, digits["o"], digits["i"], digits["k"], **subject.options)
    return torch.from_numpy(dense)


def digits_of(index: int, modes: Sequence[int]) -> tuple[int, ...]:
    """The mode indices of an index, the first mode being the slowest."""
    digits: list[int] = []
    for size in reversed(modes):
        index, digit = divmod(index, size)
        digits.insert(0, digit)
    return tuple(digits)


def reference_numel(subject: Subject, fold: Fold, network: Network) -> int:
    """The number of parameters by the paper's formula."""
    sizes = {role: [fold.sizes[mode] for mode in fold.role(role)] for role in "oik"}
    one = subject.reference.numel(sizes["o"], sizes["i"], sizes["k"], list(network.ranks.values()), **subject.options)
    return fold.groups * one


def planted(subject: Subject, fold: Fold, rank: Any) -> tuple[Network, Tensor]:
    """A network and a tensor (1, *modes) that it represents exactly; one group."""
    weight = subject.weight(fold, rank)
    return weight.network, fold.fold(weight.dense()).detach()[None]


def random_tensor(fold: Fold) -> Tensor:
    """(1, *modes) without padding, so that every unfolding has full rank; spectra fall, as those of trained weights do."""
    sizes = tuple(fold.sizes.values())
    tensor = torch.randn(1, *sizes, dtype=torch.float64)
    for axis, size in enumerate(sizes, 1):
        scale = torch.arange(1, size + 1, dtype=torch.float64) ** -1.0
        q = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q
        tensor = torch.einsum("b...i,ij->b...j", tensor.movedim(axis, -1), q * scale).movedim(-1, axis)
    return tensor


def bounds(subject: Subject, fold: Fold) -> list[tuple[list[str], list[str]]] | None:
    """For each rank the modes which both sides share and the modes on one side; None where no theorem bounds the error.

    A reference names the latter in `cuts`, where nothing is shared, or both in `blocks`.
    """
    modes = [list(fold.role(role)) for role in "oik"]
    if "blocks" in vars(subject.reference):
        return subject.reference.blocks(*modes, **subject.options)
    cuts = subject.reference.cuts(*modes, **subject.options) if "cuts" in vars(subject.reference) else None
    return None if cuts is None else [([], list(side)) for side in cuts]


def tails(fold: Fold, tensor: Tensor, cuts: Sequence[tuple[Sequence[str], Sequence[str]]], ranks: Sequence[int]) -> list[float]:
    """For each cut the squared singular values that a rank leaves out, relative to ||T||^2, summed over the shared modes; by numpy."""
    array = tensor[0].numpy()
    names = list(fold.modes)
    result = []
    for (shared, side), rank in zip(cuts, ranks, strict=True):
        order = [names.index(mode) for mode in (*shared, *side)] + [n for n, mode in enumerate(names) if mode not in (*shared, *side)]
        shape = [math.prod(fold.sizes[mode] for mode in group) for group in (shared, side)]
        values = np.linalg.svd(array.transpose(order).reshape(*shape, -1), compute_uv=False)
        result.append(float((values[:, rank:] ** 2).sum() / (values**2).sum()))
    return result
