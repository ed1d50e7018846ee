"""RNN: torch.nn.RNN whose matrices may be factorised."""

from typing import Any

import torch
from torch import Tensor, nn

from tenfold.recurrent.base import Recurrent
from tenfold.recurrent.scan import State, Step


class RNN(Recurrent):
    """torch.nn.RNN, h = tanh or relu (W_ih x + b_ih + W_hh h + b_hh), with `format=` and `recurrent_format=` for its maps.

    As in torch, `nonlinearity` is "tanh" or "relu", the fourth argument or a keyword. See `Recurrent` for the arguments that torch's
    layer does not have.
    """

    dense_type = nn.RNN
    n_gates = 1

    def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any) -> None:
        if len(args) > 3:
            nonlinearity, args = args[3], (*args[:3], *args[4:])
        self.nonlinearity = nonlinearity
        super().__init__(*args, nonlinearity=nonlinearity, **kwargs)

    def _take_more(self, dense: Any) -> None:
        self.nonlinearity = dense.nonlinearity

    def step(self, hh: Any, bias: Tensor | None, hr: nn.Module | None) -> Step:
        activate = torch.tanh if self.nonlinearity == "tanh" else torch.relu

        def step(now: Tensor, state: State) -> State:
            return (activate(hh(state[0], now)),)

        return step

    def _dense_twin(self, device: Any, dtype: torch.dtype) -> nn.RNNBase:
        names = ("input_size", "hidden_size", "num_layers", "nonlinearity", "bias", "batch_first", "dropout", "bidirectional")
        return nn.RNN(**{name: getattr(self, name) for name in names}, device=device, dtype=dtype)
