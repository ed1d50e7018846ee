"""GRU: torch.nn.GRU whose matrices may be factorised."""

from typing import Any

import torch
from torch import Tensor, nn

from tenfold.recurrent.base import Recurrent
from tenfold.recurrent.scan import State, Step


class GRU(Recurrent):
    """torch.nn.GRU with `format=` for the input-to-hidden and `recurrent_format=` for the hidden-to-hidden maps.

    Gates stand in torch's order r, z, n, with n = tanh(W_in x + b_in + r * (W_hn h + b_hn)). See `Recurrent` for the arguments that
    torch's layer does not have.
    """

    dense_type = nn.GRU
    n_gates = 3

    def gate_bias(self, bias: Tensor | None) -> None:
        """None: the reset gate multiplies the bias of the new gate in every step."""

    def step(self, hh: Any, bias: Tensor | None, hr: nn.Module | None) -> Step:
        def step(now: Tensor, state: State) -> State:
            return (gru_step(now, hh(state[0], bias), state[0]),)

        return step


def gru_step(x: Tensor, hidden: Tensor, h: Tensor) -> Tensor:
    """The new state, from what input and state give to the gates (batch, 3 x hidden) each."""
    n = h.shape[-1]
    r, z = torch.sigmoid(x[..., : 2 * n] + hidden[..., : 2 * n]).chunk(2, -1)
    new = torch.tanh(torch.addcmul(x[..., 2 * n :], r, hidden[..., 2 * n :]))
    return torch.lerp(new.to(h.dtype), h, z.to(h.dtype))  # under autocast a given state is finer than the gates
