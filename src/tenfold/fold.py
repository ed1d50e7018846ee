"""Fold: how the axes of a dense weight become the modes of a tensor, and back.

Every axis has a role, which is the first letter of its modes' names: ``o`` output features, ``i`` input features, ``k`` kernel
positions. A leading mode ``g`` holds the groups of a grouped convolution. An axis of size n may be split into modes whose
product is larger than n; the tensor is then padded with zeros, and `unfold` cuts them off again.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tenfold.mode_sizes import balanced_modes


@dataclass(frozen=True)
class Axis:
    """One axis of the dense weight: its role (o, i or k), its size and the sizes of its modes; `groups` slices lead the modes.

    Raises:
        ValueError: a size is below 1, the groups do not divide the axis, or the product of the modes is smaller than a group of it.
    """

    role: str
    size: int
    modes: tuple[int, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % self.groups or min(self.modes, default=1) < 1 or not self.modes:
            raise ValueError(
                f"the {self.role} axis of size {self.size} has the modes {self.modes} in {self.groups} groups; "
                "sizes must be at least 1 and groups must divide the axis"
            )
        if math.prod(self.modes) < self.size // self.groups:
            raise ValueError(
                f"the modes {self.modes} of the {self.role} axis have the product {math.prod(self.modes)}, "
                f"which does not fit its size {self.size // self.groups}; choose modes whose product is at least that size"
            )

    @property
    def padding(self) -> int:
        """The number of zero slices added to each group of the axis."""
        return math.prod(self.modes) - self.size // self.groups


@dataclass(frozen=True)
class Fold:
    """The axes of a dense weight in torch's order, and two hints for `Format.factors`.

    gate: the first output mode is no mode of its own (the gates of a recurrent layer); it stands on the factor of this pair.
    inner: every input and output mode of a size n that it divides is two modes, (n / inner, inner); of another size, (n, 1).
    """

    axes: tuple[Axis, ...]
    gate: int | None = None
    inner: int = 1

    @property
    def plain(self) -> "Fold":
        """The same modes without the hints."""
        if self.gate is None and self.inner == 1:
            return self
        split = {axis: tuple(size for mode in axis.modes for size in self._parts(axis, mode)) for axis in self.axes}
        return Fold(tuple(replace(axis, modes=split[axis]) for axis in self.axes))

    def _parts(self, axis: Axis, size: int) -> tuple[int, ...]:
        if self.inner == 1 or axis.role == "k":
            return (size,)
        return (size // self.inner, self.inner) if size % self.inner == 0 else (size, 1)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense weight."""
        return tuple(axis.size for axis in self.axes)

    @property
    def groups(self) -> int:
        """The number of groups, 1 where the weight is not grouped."""
        return max(axis.groups for axis in self.axes)

    @cached_property
    def named(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """The (name, size) pairs of the modes of each axis."""
        count = {"o": 0, "i": 0, "k": 0}
        result = []
        for axis in self.axes:
            pairs = [("g", axis.groups)] if axis.groups > 1 else []
            for mode in axis.modes:
                for size in self._parts(axis, mode):
                    count[axis.role] += 1
                    pairs.append((f"{axis.role}{count[axis.role]}", size))
            result.append(tuple(pairs))
        return tuple(result)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The size of every mode by name, in the order of the dense tensor."""
        return {name: size for pairs in self.named for name, size in pairs}

    @property
    def modes(self) -> tuple[str, ...]:
        """The names of all modes, in the order of the dense tensor."""
        return tuple(self.sizes)

    def role(self, letter: str) -> tuple[str, ...]:
        """The modes of one role: "o", "i", "k" or "g"."""
        return tuple(mode for mode in self.modes if mode[0] == letter)

    def axis(self, role: str) -> Axis:
        """The first axis of a role."""
        return next(axis for axis in self.axes if axis.role == role)

    @property
    def legs(self) -> tuple[tuple[str, ...], ...]:
        """Groups of modes for formats with separate modes: each output mode, the kernel modes together, each input mode."""
        kernel = self.role("k")
        return (*self._out_legs(), *((kernel,) if kernel else ()), *self._split(self.role("i")))

    @property
    def pairs(self) -> tuple[tuple[str, ...], ...]:
        """Groups of modes for formats with merged modes: (o1, i1), (o2, i2), ..., then the kernel modes together."""
        out, inp, kernel = self._out_legs(), self._split(self.role("i")), self.role("k")
        if len(out) != len(inp):
            raise ValueError(
                f"a merged format needs as many output modes as input modes, but there are {len(out)} and {len(inp)}; "
                "pad the shorter list with modes of size 1"
            )
        return (*((*o, *i) for o, i in zip(out, inp, strict=True)), *((kernel,) if kernel else ()))

    def _split(self, modes: Sequence[str]) -> list[tuple[str, ...]]:
        """Each mode by itself, or with its inner part."""
        step = 1 if self.inner == 1 else 2
        return [tuple(modes[start : start + step]) for start in range(0, len(modes), step)]

    def _out_legs(self) -> list[tuple[str, ...]]:
        legs = self._split(self.role("o"))
        if self.gate is None:
            return legs
        gate, *legs = legs
        legs[self.gate] = (*gate, *legs[self.gate])
        return legs

    def fold(self, dense: Tensor) -> Tensor:
        """The tensor of all modes, of shape `tuple(self.sizes.values())`, from the dense weight; padding is zero.

        Raises:
            ValueError: the weight has another shape than `self.shape`.
        """
        if tuple(dense.shape) != self.shape:
            raise ValueError(f"the weight has shape {tuple(dense.shape)}, but this fold is for {self.shape}; make a fold for its shape")
        for position, axis in enumerate(self.axes):
            if axis.padding:
                dense = dense.unflatten(position, (axis.groups, -1)).movedim(position + 1, -1)
                dense = F.pad(dense, (0, axis.padding)).movedim(-1, position + 1).flatten(position, position + 1)
        return dense.reshape(tuple(self.sizes.values()))

    def unfold(self, tensor: Tensor) -> Tensor:
        """The dense weight from the tensor of all modes; padding is cut off."""
        tensor = tensor.reshape([axis.groups * math.prod(axis.modes) for axis in self.axes])
        for position, axis in enumerate(self.axes):
            if axis.padding:
                tensor = tensor.unflatten(position, (axis.groups, -1)).narrow(position + 1, 0, axis.size // axis.groups)
                tensor = tensor.flatten(position, position + 1)
        return tensor


def make_fold(
    axes: Sequence[tuple[str, int]],
    n_modes: int,
    *,
    in_modes: Sequence[int] | None = None,
    out_modes: Sequence[int] | None = None,
    groups: int = 1,
    grouped_role: str = "o",
    gates: int = 1,
    gate_mode: int | None = None,
) -> Fold:
    """A fold of (role, size) axes; outputs and inputs get `n_modes` modes each; where one has modes given, the other gets as many.

    Args:
        groups: of a grouped convolution; they divide the axis of `grouped_role`, whose modes are then those of one group.
        grouped_role: "o", or "i" of a transposed convolution. The other axis is as the weight has it, of one group already.
        gates: the output axis holds so many matrices one after another; the number of the gate becomes the first output mode, unless
            `out_modes` already have the product of the whole axis.
        gate_mode: which pair of modes carries it; left out, the one with the largest input for its output, where it costs least
            and lowers no rank.

    Raises:
        ValueError: modes do not fit their axis, groups or gates do not divide theirs, or `gate_mode` names no output mode.
        TypeError: modes are no whole numbers.
    """
    _check_numbers(axes, in_modes=in_modes, out_modes=out_modes)
    if gates > 1:
        return _gated(axes, n_modes, in_modes, out_modes, gates, gate_mode)
    given = {"o": out_modes, "i": in_modes, "k": None}
    longest = max((len(modes) for modes in (in_modes, out_modes) if modes is not None and len(modes)), default=n_modes)
    result = []
    for role, size in axes:
        split = groups if role == grouped_role else 1
        if size % split:
            raise ValueError(f"{groups} groups do not divide the {role} axis of size {size}; choose groups that divide it")
        modes = given[role]
        if role == "k":
            modes = (size,)
        elif modes is None:
            modes = balanced_modes(size // split, longest)
        result.append(Axis(role, size, tuple(int(m) for m in modes), split))
    return Fold(tuple(result))


def _check_numbers(axes: Sequence[tuple[str, Any]], **modes: Any) -> None:
    for name, given in modes.items():
        if given is not None and not (isinstance(given, Collection) and all(isinstance(size, Integral) for size in given)):
            raise TypeError(f"{name} is {given!r}; a tuple of whole numbers is needed: give the sizes of the modes, as (4, 8)")
    if bad := [(role, size) for role, size in axes if not isinstance(size, Integral) or size < 1]:
        raise ValueError(f"the {bad[0][0]} axis has the size {bad[0][1]!r}; a whole number, 1 at least, is needed: check the layer's sizes")


def _gated(
    axes: Sequence[tuple[str, int]],
    n_modes: int,
    in_modes: Sequence[int] | None,
    out_modes: Sequence[int] | None,
    gates: int,
    gate_mode: int | None,
) -> Fold:
    size = dict(axes)["o"]
    if size % gates:
        raise ValueError(f"{gates} gates do not divide the output axis of size {size}; choose an axis of gates x hidden features")
    if out_modes is not None and math.prod(out_modes) >= size:
        if gate_mode is not None:
            raise ValueError(
                f"the modes {tuple(out_modes)} of the output hold all {gates} gates, but gate_mode={gate_mode} asks for a mode of "
                f"their own; give modes whose product is {size // gates}, or leave gate_mode out"
            )
        return make_fold(axes, n_modes, in_modes=in_modes, out_modes=out_modes)
    single = make_fold([(role, size // gates if role == "o" else n) for role, n in axes], n_modes, in_modes=in_modes, out_modes=out_modes)
    out, inp = single.axis("o").modes, single.axis("i").modes
    if gate_mode is None:
        gate_mode = max(range(len(out)), key=lambda k: (inp[k] / out[k] if k < len(inp) else 0.0, -k))
    if not 0 <= gate_mode < len(out):
        raise ValueError(f"gate_mode={gate_mode} names no output mode of {out}; give a number from 0 to {len(out) - 1}")
    gated = [Axis("o", size, (gates, *out)) if axis.role == "o" else axis for axis in single.axes]
    return Fold(tuple(gated), gate_mode)
