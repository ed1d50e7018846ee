"""Models: a recurrent network, dense or with factorised maps, and a head for sequences or for characters."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from tenfold import init
from tenfold import recurrent as recurrent_layers
from tenfold.format import Format
from tenfold.formats import parse_format
from tenfold.recipes.options import DENSE

N_GATES = {"LSTM": 4, "GRU": 3}
Head: TypeAlias = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Rnn:
    """A recurrent network: an LSTM or GRU with inputs (batch, steps, n_inputs) and hidden states of size `hidden`."""

    cell: Literal["LSTM", "GRU"]
    n_inputs: int
    hidden: int
    n_layers: int = 1

    def build(self, format: str, recurrent_format: str | None = None, *, seed: int) -> nn.Module:
        """torch.nn's network for "dense", else tenfold.nn's with the input-to-hidden maps in a format; start values follow from the seed.

        Raises:
            ValueError: the format, its rank or its modes do not fit.
        """
        sizes = (self.n_inputs, self.hidden, self.n_layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if format == DENSE:
                rnn: Any = getattr(nn, self.cell)(*sizes, batch_first=True)
            else:
                chosen, modes = parse_format(format)
                recurrent, hidden_modes = _recurrent(recurrent_format)
                kwargs = {"format": chosen, **modes, "recurrent_format": recurrent, "recurrent_modes": hidden_modes}
                rnn = getattr(recurrent_layers, self.cell)(*sizes, batch_first=True, **kwargs)
            self._start(rnn, torch.Generator().manual_seed(seed))
        return rnn

    def _start(self, rnn: Any, generator: torch.Generator) -> None:
        """The same distribution for all formats, so that a comparison is one of formats and not of start values.

        Input maps get the standard deviation 1 / sqrt(inputs), so that gates start near their linear part whatever the number of
        inputs: torch's own, 1 / sqrt(3 hidden), saturates them where there are thousands. Recurrent maps are orthogonal for each gate
        where they are dense or Kronecker products, biases zero, but 1 for the forget gate of an LSTM.
        """
        for layer in range(self.n_layers):
            std = 1 / math.sqrt(self.n_inputs if layer == 0 else self.hidden)
            found = self.factorized(rnn)
            with torch.no_grad():
                if (inputs := found.get(f"weight_ih_l{layer}")) is not None:
                    inputs.init_normal_(std, generator=generator)
                else:
                    getattr(rnn, f"weight_ih_l{layer}").normal_(0.0, std, generator=generator)
                if (recurrent := found.get(f"weight_hh_l{layer}")) is not None:
                    with contextlib.suppress(ValueError):  # other formats than sums of Kronecker products keep their normal start
                        init.orthogonal_(recurrent, gates=N_GATES[self.cell], generator=generator)
                else:
                    for gate in getattr(rnn, f"weight_hh_l{layer}").chunk(N_GATES[self.cell]):
                        nn.init.orthogonal_(gate, generator=generator)
        with torch.no_grad():
            for name, value in rnn.named_parameters():
                if "bias" in name:
                    value.zero_()
                    if self.cell == "LSTM" and "ih" in name:
                        value[self.hidden : 2 * self.hidden] = 1.0

    def factorized(self, rnn: nn.Module) -> dict[str, Any]:
        """The factorised weights by torch's names; empty for a dense network."""
        return dict(getattr(rnn, "factorized", {}))

    @property
    def dense_map(self) -> int:
        """The values of the dense input-to-hidden maps."""
        rows = N_GATES[self.cell] * self.hidden
        return rows * self.n_inputs + (self.n_layers - 1) * rows * self.hidden

    @property
    def dense_recurrent(self) -> int:
        """The values of the dense hidden-to-hidden maps."""
        return self.n_layers * N_GATES[self.cell] * self.hidden**2

    def map_parameters(self, rnn: nn.Module, kind: Literal["ih", "hh"]) -> int:
        """The stored values of the input-to-hidden or the hidden-to-hidden maps, without biases."""
        found = self.factorized(rnn)
        dense = {"ih": self.dense_map, "hh": self.dense_recurrent}[kind]
        stored = [weight.network.numel for name, weight in found.items() if f"_{kind}_" in name]
        return sum(stored) if stored else dense


def _recurrent(text: str | None) -> tuple[Format | None, tuple[int, ...] | None]:
    """The format of the recurrent map and the modes of the hidden features, which are its inputs and, for each gate, its outputs."""
    if text is None:
        return None, None
    format, modes = parse_format(text)
    if "out_modes" in modes and modes["out_modes"] != modes.get("in_modes"):
        raise ValueError(
            f"the recurrent format {text!r} has out={modes['out_modes']} and in={modes.get('in_modes')}; inputs and outputs are the hidden "
            "features, which are split in one way: give in= alone"
        )
    return format, modes.get("in_modes")


class SequenceClassifier(nn.Module):
    """Scores (batch, classes) of sequences (batch, steps, inputs), from the hidden state after the last step of each."""

    def __init__(self, rnn: nn.Module, hidden: int, n_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.rnn = rnn
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scores; steps from `lengths` on are padding, which comes after all that is read."""
        states = self.rnn(inputs)[0]
        last = states[:, -1] if lengths is None else states[torch.arange(len(states), device=states.device), lengths - 1]
        return self.head(self.dropout(last))


class CharacterModel(nn.Module):
    """Scores (batch, steps, characters) of the next character, from characters (batch, steps)."""

    def __init__(self, rnn: nn.Module, n_inputs: int, hidden: int, n_characters: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_characters, n_inputs)
        self.rnn = rnn
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, n_characters)

    def forward(self, characters: Tensor) -> Tensor:
        """Scores after each character."""
        return self.head(self.dropout(self.rnn(self.embedding(characters))[0]))
