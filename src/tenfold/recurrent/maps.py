"""One matrix of a recurrent layer as a module of its own: dense, or factorised with the gates as one more output mode."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import init
from tenfold.decompose import decompose
from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.layers.base import check_format
from tenfold.layers.linear import Linear
from tenfold.weight import FactorizedWeight

Addend: TypeAlias = Tensor | None  # a name, since torch 2.6 traces no union in the annotations of inner functions


@dataclass(frozen=True)
class MapOptions:
    """How one map is stored: dense where there is no format."""

    format: Format | None = None
    in_modes: Sequence[int] | None = None
    out_modes: Sequence[int] | None = None
    gate_mode: int | None = None

    def __post_init__(self) -> None:
        given = {name: one for name, one in vars(self).items() if name != "format" and one is not None}
        if self.format is None and given:
            raise ValueError(
                f"a map without a format got {', '.join(f'{name}={one}' for name, one in given.items())}; only a factorised map has modes: "
                "give format= too, recurrent_format= for recurrent_modes=, or leave the modes out"
            )

    def fold(self, n_in: int, n_out: int, n_gates: int) -> Fold:
        """The fold of the map's weight (n_out, n_in) with `n_gates` matrices one after another."""
        check_format("a recurrent map", self.format)
        assert self.format is not None
        axes = [("o", n_out), ("i", n_in)]
        modes = {"in_modes": self.in_modes, "out_modes": self.out_modes, "gates": n_gates, "gate_mode": self.gate_mode}
        return self.format.fold(make_fold(axes, Linear.modes_of(self.format), **modes))


def make_map(n_in: int, n_out: int, n_gates: int, bias: bool, options: MapOptions, factory: dict[str, Any]) -> nn.Module:
    """A Linear (n_out, n_in) with values that are still to be set."""
    if options.format is None:
        return nn.Linear(n_in, n_out, bias, **factory)
    fold = options.fold(n_in, n_out, n_gates)
    weight = FactorizedWeight(options.format.network(fold), fold, **factory)
    return Linear.around(nn.Linear(n_in, n_out, bias, device="meta", dtype=factory.get("dtype")), weight)


def decomposed_map(dense: nn.Linear, n_gates: int, options: MapOptions, name: str, sweeps: int, seed: int) -> nn.Module:
    """The factorised map closest to a dense one; the dense one itself where there is no format."""
    if options.format is None:
        return dense
    fold = options.fold(dense.in_features, dense.out_features, n_gates)
    found = decompose([dense.weight], fold, options.format.network(fold), options.format, names=[name], sweeps=sweeps, seed=seed)
    return Linear.around(dense, found[0].weight)


def dense_map(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    """A Linear of torch around parameters, which are shared, not copied."""
    one = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    one.weight = weight
    if bias is not None:
        one.bias = bias
    return one


def copied_map(one: Any) -> nn.Linear:
    """A dense map with the same values in parameters of its own."""
    weight, bias = (None if p is None else nn.Parameter(p.detach().clone(), p.requires_grad) for p in (one.weight, one.bias))
    assert weight is not None
    return dense_map(weight, bias)


def map_rows(one: nn.Module, x: Tensor) -> Tensor:
    """(steps, batch, out) from (steps, batch, in); where the batch stands first in memory the wide input is not copied for it."""
    is_swapped = x.dim() == 3 and not x.is_contiguous() and x.transpose(0, 1).is_contiguous()
    return one(x.transpose(0, 1)).transpose(0, 1) if is_swapped else one(x)


def start_values(one: nn.Module, n_gates: int, bound: float, *, is_orthogonal: bool) -> None:
    """Start values of a map: uniform within `bound` as torch.nn's, or a factorised weight with the same standard deviation.

    A factorised map with more inputs than 1 / bound^2 starts smaller, as torch.nn.Linear does: it is meant for wide inputs, at which
    the uniform start of torch's recurrent layers saturates every gate.
    """
    layer: Any = one
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound)
    if isinstance(one, Linear):
        if is_orthogonal:
            init.orthogonal_(one.factorized, gates=n_gates)
        else:
            one.factorized.init_normal_(min(bound, 1 / math.sqrt(one.in_features)) / math.sqrt(3))
    elif is_orthogonal:
        for gate in layer.weight.detach().chunk(n_gates):
            nn.init.orthogonal_(gate)
    else:
        nn.init.uniform_(layer.weight, -bound, bound)


def bound_map(one: nn.Module, batch: int) -> Callable[[Tensor, Addend], Tensor]:
    """(h (batch, in), z) -> z + the map of h, without the map's bias; what depends on weights alone is computed here, once for all steps.

    With hooks on the map it is called as a module in every step, so that they see each of its inputs; one with a forward of its own, as
    adapters have it, too.
    """
    layer: Any = one
    has_hooks = one._forward_hooks or one._forward_pre_hooks or one._backward_hooks or one._backward_pre_hooks
    if has_hooks or type(one).forward not in (nn.Linear.forward, Linear.forward):
        bias = layer.bias

        def whole(h: Tensor, z: Addend) -> Tensor:
            y = one(h)
            if bias is not None:
                y = y - bias.to(y.dtype)
            return y if z is None else z.to(y.dtype) + y

        return whole
    if isinstance(one, Linear):
        apply = one.factorized.bound(batch)

        def factorised(h: Tensor, z: Addend) -> Tensor:
            y = apply(h)
            return y if z is None else z.to(y.dtype) + y

        return factorised
    weight: Tensor = layer.weight
    transposed = weight.t()

    def dense(h: Tensor, z: Addend) -> Tensor:
        if z is None:
            return F.linear(h, weight)
        return torch.addmm(z, h, transposed)

    return dense
