"""LSTM: torch.nn.LSTM whose matrices may be factorised."""

from typing import Any

import torch
from torch import Tensor, nn

from tenfold.recurrent.base import Recurrent
from tenfold.recurrent.scan import State, Step


class LSTM(Recurrent):
    """torch.nn.LSTM with `format=` for the input-to-hidden and `recurrent_format=` for the hidden-to-hidden maps.

    Gates stand in torch's order i, f, g, o. See `Recurrent` for the arguments that torch's layer does not have.

    >>> layer = LSTM(12, 8, batch_first=True)
    >>> layer(torch.zeros(2, 5, 12))[0].shape
    torch.Size([2, 5, 8])
    """

    dense_type = nn.LSTM
    n_gates = 4
    n_states = 2

    def __init__(self, *args: Any, forget_bias: float | None = None, **kwargs: Any) -> None:
        self.forget_bias = forget_bias
        super().__init__(*args, **kwargs)
        if forget_bias is not None and not self.bias:
            raise ValueError(f"LSTM got forget_bias={forget_bias} with bias=False; it needs biases: leave one of the two out")

    def reset_parameters(self) -> None:
        """As `Recurrent`; with `forget_bias`, that is the bias of the forget gate, both parts together."""
        super().reset_parameters()
        if self.forget_bias is None or not self.bias:
            return
        forget = slice(self.hidden_size, 2 * self.hidden_size)
        with torch.no_grad():
            for name, one in self.named_children():
                layer: Any = one
                if layer.bias is not None:
                    layer.bias[forget] = 0.0 if name.startswith("hh") else self.forget_bias

    def _take_more(self, dense: Any) -> None:
        self.forget_bias = None

    def step(self, hh: Any, bias: Tensor | None, hr: nn.Module | None) -> Step:
        def step(now: Tensor, state: State) -> State:
            return lstm_step(hh(state[0], now), state[1], hr)

        return step


def lstm_step(gates: Tensor, c: Tensor, hr: nn.Module | None) -> State:
    """(h, c) from the sums of all gates (batch, 4 x hidden) and the cell before."""
    i, f, _, o = torch.sigmoid(gates).chunk(4, -1)  # one operation for all gates, though one of them is not used
    c = torch.addcmul(f * c, i, torch.tanh(gates.chunk(4, -1)[2]))
    h = o * torch.tanh(c)
    return (h if hr is None else hr(h)), c
