"""What goes into a recurrent layer and comes out of it: padded, unbatched or packed, with the checks that torch's layers make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from tenfold.contract.run import is_cast
from tenfold.recurrent.scan import State

if TYPE_CHECKING:
    from tenfold.recurrent.base import Recurrent


@dataclass(frozen=True)
class Input:
    """values: (steps, batch, features), or packed (.., features) with the number of sequences at each step in `sizes`.

    order: brings the sequences of a batch into the order of the packed ones; None where they stand so.
    outputs, states: from that form to what torch's layer returns.
    """

    values: Tensor
    batch: int
    is_unbatched: bool
    sizes: tuple[int, ...] | None
    order: Tensor | None
    outputs: Callable[[Tensor], Any]
    states: Callable[[State], Any]


def check_input(layer: "Recurrent", input: Any) -> Input:
    """The input of a layer.

    Raises:
        TypeError: neither a tensor nor a PackedSequence.
        ValueError, RuntimeError: another number of axes or of features, or no step.
    """
    name = type(layer).__name__
    if isinstance(input, PackedSequence):
        return _packed(layer, input)
    if not isinstance(input, Tensor):
        raise TypeError(f"{name} got a {type(input).__name__}; it needs a tensor or a PackedSequence: convert it with torch.as_tensor")
    if input.dim() not in (2, 3):
        raise ValueError(
            f"{name} got an input with {input.dim()} axes; it needs 2 (steps, features) or 3 ({_axes(layer)}): add or remove an axis"
        )
    _check_features(layer, input)
    is_unbatched = input.dim() == 2
    values = input.unsqueeze(1) if is_unbatched else input.transpose(0, 1) if layer.batch_first else input
    if values.shape[0] == 0:
        raise RuntimeError(f"{name} got a sequence of 0 steps; at least one is needed: leave empty sequences out")

    def outputs(found: Tensor) -> Tensor:
        return found.squeeze(1) if is_unbatched else found.transpose(0, 1) if layer.batch_first else found

    def states(found: State) -> Any:
        return _as_torch(tuple(part.squeeze(1) for part in found) if is_unbatched else found)

    return Input(values, values.shape[1], is_unbatched, None, None, outputs, states)


def _packed(layer: "Recurrent", input: PackedSequence) -> Input:
    _check_features(layer, input.data)
    sizes = tuple(input.batch_sizes.tolist())
    if not sizes or sizes[0] == 0:
        raise RuntimeError(
            f"{type(layer).__name__} got a PackedSequence of zero length; at least one step is needed: leave empty sequences out"
        )

    def outputs(found: Tensor) -> PackedSequence:
        return PackedSequence(found, input.batch_sizes, input.sorted_indices, input.unsorted_indices)

    def states(found: State) -> Any:
        back = input.unsorted_indices
        return _as_torch(found if back is None else tuple(part.index_select(1, back) for part in found))

    return Input(input.data, sizes[0], False, sizes, input.sorted_indices, outputs, states)


def check_state(layer: "Recurrent", data: Input, hx: Any) -> State:
    """The first state: parts (layers x directions, batch, features); zeros where none is given.

    Raises:
        TypeError, ValueError, RuntimeError: another number of parts, or another shape.
    """
    rows = layer.num_layers * layer.n_directions
    widths = (layer.n_out, layer.hidden_size)[: layer.n_states]
    if hx is None:
        return tuple(torch.zeros(rows, data.batch, width, dtype=_dtype(data.values), device=data.values.device) for width in widths)
    parts = tuple(hx) if layer.n_states > 1 and isinstance(hx, tuple | list) else (hx,)
    if len(parts) != layer.n_states or not all(isinstance(part, Tensor) for part in parts):
        wanted = "a tuple (h, c)" if layer.n_states > 1 else "one tensor h"
        raise TypeError(
            f"{type(layer).__name__} got a state of type {type(hx).__name__}; it needs {wanted}: give that, or nothing for zeros"
        )
    for part, width in zip(parts, widths, strict=True):
        shape = (rows, width) if data.is_unbatched else (rows, data.batch, width)
        if tuple(part.shape) != shape:
            raise RuntimeError(
                f"{type(layer).__name__} got a state of shape {tuple(part.shape)}; it needs {shape}: build it for this input"
            )
        check_state_dtype(type(layer).__name__, part, data.values)
    found: State = tuple(part.unsqueeze(1) for part in parts) if data.is_unbatched else parts
    return found if data.order is None else tuple(part.index_select(1, data.order) for part in found)


def check_state_dtype(name: str, state: Tensor, input: Tensor) -> None:
    """Raises RuntimeError where a state has another dtype than the input; under autocast it is enough that it is a fraction."""
    if not (state.is_floating_point() if is_cast(input) else state.dtype == input.dtype):
        raise RuntimeError(f"{name} got a state of the dtype {state.dtype}; its input has {input.dtype}: convert one of them")


def _dtype(input: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype(input.device.type) if is_cast(input) else input.dtype


def _check_features(layer: "Recurrent", values: Tensor) -> None:
    if values.shape[-1] != layer.input_size:
        raise RuntimeError(
            f"{type(layer).__name__} got an input of {values.shape[-1]} features; it has input_size={layer.input_size}: give as many"
        )
    dtype = next(layer.parameters()).dtype
    if values.dtype != dtype and not is_cast(values):
        raise ValueError(f"{type(layer).__name__} got an input of the dtype {values.dtype}; its weights have {dtype}: convert one of them")


def _axes(layer: "Recurrent") -> str:
    return "batch, steps, features" if layer.batch_first else "steps, batch, features"


def _as_torch(state: State) -> Any:
    first, *others = state
    return state if others else first
