"""LSTMCell, GRUCell and RNNCell: one step of torch.nn's cells with maps `ih` and `hh` that may be factorised."""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from tenfold.format import Format
from tenfold.recurrent.container import MapContainer
from tenfold.recurrent.gru import gru_step
from tenfold.recurrent.inputs import check_state_dtype
from tenfold.recurrent.lstm import lstm_step
from tenfold.recurrent.maps import MapOptions, dense_map, make_map, start_values


class Cell(MapContainer[nn.RNNCellBase], abc.ABC):
    """One step of a recurrent layer; the arguments behind `dtype` are those of `Recurrent`."""

    dense_type: ClassVar[type[nn.RNNCellBase]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        format: Format | None = None,
        recurrent_format: Format | None = None,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
        gate_mode: int | None = None,
        recurrent_modes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        factory = {"device": device, "dtype": dtype}
        n_out = self.n_gates * hidden_size
        inputs = MapOptions(format, in_modes, out_modes, gate_mode)
        self.ih = make_map(input_size, n_out, self.n_gates, bias, inputs, factory)
        self.hh = make_map(hidden_size, n_out, self.n_gates, bias, MapOptions(recurrent_format, recurrent_modes, recurrent_modes), factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The start of torch's cells, within 1 / sqrt(hidden); see `Recurrent.reset_parameters`."""
        for one in (self.ih, self.hh):
            start_values(one, self.n_gates, 1 / math.sqrt(self.hidden_size), is_orthogonal=False)

    def __getattr__(self, name: str) -> Any:
        """By torch's names `weight_ih`, `bias_hh`, ...: the dense weight of a map, rebuilt where it is factorised, or its bias."""
        what, _, part = name.partition("_")
        maps = self.__dict__.get("_modules", {})
        if what in ("weight", "bias") and part in ("ih", "hh") and part in maps:
            return getattr(maps[part], what)
        return super().__getattr__(name)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """As torch does; names of torch's cell go to dense maps."""
        for part in ("ih", "hh"):
            for what in ("weight", "bias"):
                if isinstance(self._modules[part], nn.Linear) and f"{prefix}{what}_{part}" in state_dict:
                    state_dict[f"{prefix}{part}.{what}"] = state_dict.pop(f"{prefix}{what}_{part}")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @abc.abstractmethod
    def step(self, input: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The state after an input (batch, features)."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """The new state: h, for an LSTMCell (h, c); input (batch, features) or (features)."""
        if not isinstance(input, Tensor) or input.dim() not in (1, 2):
            raise ValueError(
                f"{type(self).__name__} got {f'{input.dim()} axes' if isinstance(input, Tensor) else type(input).__name__}; it needs a "
                "tensor (features) or (batch, features): give one step"
            )
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"{type(self).__name__} got an input of {input.shape[-1]} features; it has input_size={self.input_size}: give as many"
            )
        if hx is None:
            state = (input.new_zeros(*input.shape[:-1], self.hidden_size),) * self.n_states
        else:
            state = tuple(hx) if self.n_states > 1 and isinstance(hx, tuple | list) else (hx,)
        if len(state) != self.n_states or not all(isinstance(part, Tensor) for part in state):
            wanted = "a tuple (h, c)" if self.n_states > 1 else "one tensor h"
            raise TypeError(
                f"{type(self).__name__} got a state of type {type(hx).__name__}; it needs {wanted}: give that, or nothing for zeros"
            )
        for part in state:
            if tuple(part.shape) != (*input.shape[:-1], self.hidden_size):
                raise RuntimeError(
                    f"{type(self).__name__} got a state of shape {tuple(part.shape)}; it needs "
                    f"{(*input.shape[:-1], self.hidden_size)}: build it for this input"
                )
            check_state_dtype(type(self).__name__, part, input)
        after = self.step(input, state)
        return after if self.n_states > 1 else after[0]

    @classmethod
    def opened(cls, dense: nn.RNNCellBase) -> Self:
        cell = cls.__new__(cls)
        nn.Module.__init__(cell)
        layer: Any = dense
        cell.input_size, cell.hidden_size, cell.bias = layer.input_size, layer.hidden_size, layer.bias
        cell._take_more(layer)
        cell.ih = dense_map(layer.weight_ih, layer.bias_ih)
        cell.hh = dense_map(layer.weight_hh, layer.bias_hh)
        return cell.train(dense.training)

    def _dense_twin(self, device: Any, dtype: torch.dtype) -> nn.RNNCellBase:
        kind: Any = self.dense_type
        return kind(self.input_size, self.hidden_size, self.bias, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        """The arguments of torch's cell."""
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}"


class LSTMCell(Cell):
    """torch.nn.LSTMCell with `format=` and `recurrent_format=`; gates in torch's order i, f, g, o."""

    dense_type = nn.LSTMCell
    n_gates = 4
    n_states = 2

    def step(self, input: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return lstm_step(self.ih(input) + self.hh(state[0]), state[1], None)


class GRUCell(Cell):
    """torch.nn.GRUCell with `format=` and `recurrent_format=`; gates in torch's order r, z, n."""

    dense_type = nn.GRUCell
    n_gates = 3

    def step(self, input: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (gru_step(self.ih(input), self.hh(state[0]), state[0]),)


class RNNCell(Cell):
    """torch.nn.RNNCell with `format=` and `recurrent_format=`."""

    dense_type = nn.RNNCell
    n_gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", *args: Any, **kwargs: Any) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity is {nonlinearity!r}; it needs to be 'tanh' or 'relu': choose one of them")
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, *args, **kwargs)

    def _take_more(self, dense: Any) -> None:
        self.nonlinearity = dense.nonlinearity

    def step(self, input: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        activate = torch.tanh if self.nonlinearity == "tanh" else torch.relu
        return (activate(self.ih(input) + self.hh(state[0])),)

    def _dense_twin(self, device: Any, dtype: torch.dtype) -> nn.RNNCellBase:
        return nn.RNNCell(self.input_size, self.hidden_size, self.bias, self.nonlinearity, device=device, dtype=dtype)
