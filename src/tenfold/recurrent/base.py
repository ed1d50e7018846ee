"""Recurrent: what LSTM, GRU and RNN have in common. A subclass is one file: its torch layer, its gates and one step."""

import abc
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import Self

from tenfold.format import Format
from tenfold.recurrent.container import MapContainer
from tenfold.recurrent.inputs import Input, check_input, check_state
from tenfold.recurrent.maps import MapOptions, bound_map, dense_map, make_map, map_rows, start_values
from tenfold.recurrent.scan import State, Step, scan_packed, scan_padded

_TORCH_NAME = re.compile(r"(weight|bias)_(ih|hh|hr)_(l\d+(?:_reverse)?)")


class Recurrent(MapContainer[nn.RNNBase], abc.ABC):
    """A recurrent layer of torch.nn whose matrices are maps: child modules `ih_l0`, `hh_l0`, `ih_l0_reverse`, ... of the type Linear.

    All steps go through the input map at once, before the recurrence. A dense map is a torch.nn.Linear.

    Args:
        format: of the input-to-hidden maps; None leaves them dense.
        recurrent_format: of the hidden-to-hidden maps; None leaves them dense.
        joint_format: one map of [x, h] to all gates in place of both, `joint_l0`, ...; with the one bias that it needs.
        in_modes: what the inputs of the first layer are split into.
        out_modes: what the hidden features are split into; the gates are then one more output mode, which stands on the factor of
            pair `gate_mode`, where left out on the one with the most inputs for its outputs. With the product of gates and
            hidden features, modes of the whole output, the gates being the slowest part of the first one, as in the papers.
        recurrent_modes: the same for hidden-to-hidden maps, inputs and outputs; where left out chosen by the fold.
        recurrent_init: "normal", or "orthogonal" for semi-orthogonal hidden-to-hidden maps, gate by gate; with
            `recurrent_format=KCP(rank=1)` the Kronecker recurrent unit of Jose et al. 2018, arXiv 1705.10142.

    Raises:
        ValueError: an argument is out of range, or ranks or modes do not fit.
    """

    dense_type: ClassVar[type[nn.RNNBase]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        format: Format | None = None,
        recurrent_format: Format | None = None,
        joint_format: Format | None = None,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
        gate_mode: int | None = None,
        recurrent_modes: Sequence[int] | None = None,
        recurrent_init: str = "normal",
        **options: Any,
    ) -> None:
        super().__init__()
        if proj_size and self.n_states == 1:
            raise ValueError(f"{type(self).__name__} got proj_size={proj_size}; only an LSTM has a projection: leave it out")
        # torch's own layer checks the arguments, and keeps them; on "meta" it costs nothing
        extra: dict[str, Any] = {"proj_size": proj_size} if self.n_states > 1 else {}
        extra |= {"bias": bias, "batch_first": batch_first, "dropout": dropout, "bidirectional": bidirectional, **options}
        kind: Any = self.dense_type
        self._take_options(kind(input_size, hidden_size, num_layers, device="meta", dtype=dtype, **extra))
        self.is_joint = joint_format is not None
        if self.is_joint and (format is not None or recurrent_format is not None):
            raise ValueError(
                f"{type(self).__name__} got joint_format={joint_format} with another format; one map of [x, h] takes the place of both: "
                "give joint_format alone, or format and recurrent_format"
            )
        if recurrent_init not in (("normal",) if self.is_joint else ("normal", "orthogonal")):
            needed = "'normal' with joint_format" if self.is_joint else "'normal' or 'orthogonal'"
            raise ValueError(f"recurrent_init is {recurrent_init!r}; it needs to be {needed}: choose that")
        self.recurrent_init = recurrent_init
        factory = {"device": device, "dtype": dtype}
        inputs = MapOptions(format or joint_format, in_modes, out_modes, gate_mode)
        recurrent = MapOptions(recurrent_format, recurrent_modes, recurrent_modes)
        for layer, suffix in self._suffixes():
            n_in = input_size if layer == 0 else self.n_out * self.n_directions
            sizes = {"joint": n_in + self.n_out} if self.is_joint else {"ih": n_in, "hh": self.n_out}
            for part, size in sizes.items():
                name = f"{part}_{suffix}"
                options_of_map = self._map_options(name, inputs, recurrent)
                self.add_module(name, make_map(size, self.n_gates * hidden_size, self.n_gates, bias, options_of_map, factory))
            if proj_size:
                self.add_module(f"hr_{suffix}", make_map(hidden_size, proj_size, 1, False, MapOptions(), factory))
        self.reset_parameters()

    # -- what a subclass says ---------------------------------------------------------------------------------------

    @abc.abstractmethod
    def step(self, hh: Any, bias: Tensor | None, hr: nn.Module | None) -> Step:
        """One step of the recurrence, from the bound hidden-to-hidden map (see `bound_map`), its bias and the projection."""

    def gate_bias(self, bias: Tensor | None) -> Tensor | None:
        """The part of the hidden-to-hidden bias that can be added to all steps before the recurrence."""
        return bias

    # -- torch's interface ------------------------------------------------------------------------------------------

    def _take_options(self, dense: Any) -> None:
        for name in ("mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size"):
            setattr(self, name, getattr(dense, name))
        self.n_directions = 2 if self.bidirectional else 1
        self.n_out = self.proj_size or self.hidden_size

    def _suffixes(self) -> list[tuple[int, str]]:
        ends = ("", "_reverse")[: 2 if self.bidirectional else 1]
        return [(layer, f"l{layer}{end}") for layer in range(self.num_layers) for end in ends]

    def reset_parameters(self) -> None:
        """The start of torch's layers, within 1 / sqrt(hidden); factorised maps normal, and smaller where inputs are many."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for name, one in self.named_children():
            is_orthogonal = self.recurrent_init == "orthogonal" and name.startswith("hh_")
            start_values(one, 1 if name.startswith("hr_") else self.n_gates, bound, is_orthogonal=is_orthogonal)

    def flatten_parameters(self) -> None:
        """Nothing: parameters have no flat copy here."""

    def __getattr__(self, name: str) -> Any:
        """By torch's names, `weight_ih_l0`, `bias_hh_l0_reverse`, ...: the dense weight of a map, or its bias."""
        found = _TORCH_NAME.fullmatch(name)
        maps = self.__dict__.get("_modules", {})
        if found is None or (f"{found[2]}_{found[3]}" not in maps and f"joint_{found[3]}" not in maps):
            return super().__getattr__(name)
        if (one := maps.get(f"{found[2]}_{found[3]}")) is not None:
            value = getattr(one, found[1])
            if value is None:
                return super().__getattr__(name)
            return value
        return self._from_joint(maps[f"joint_{found[3]}"], found[1], found[2])

    def _from_joint(self, joint: Any, what: str, part: str) -> Tensor:
        if what == "bias":
            return joint.bias if part == "ih" else torch.zeros_like(joint.bias)
        n_in = joint.in_features - self.n_out
        return joint.weight[:, :n_in] if part == "ih" else joint.weight[:, n_in:]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """As torch does; names of torch's layer go to dense maps."""
        for key in list(state_dict):
            found = _TORCH_NAME.fullmatch(key[len(prefix) :]) if key.startswith(prefix) else None
            if found is not None and isinstance(self._modules.get(f"{found[2]}_{found[3]}"), nn.Linear):
                state_dict[f"{prefix}{found[2]}_{found[3]}.{found[1]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    # -- forward ----------------------------------------------------------------------------------------------------

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """(outputs, last state) as torch.nn's layer gives them."""
        data = check_input(self, input)
        state = check_state(self, data, hx)
        inputs, last = data.values, []
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(end for number, end in self._suffixes() if number == layer):
                start = tuple(part[len(last)] for part in state)
                found, after = self._run(suffix, inputs, start, data, is_reverse=direction == 1)
                outputs.append(found)
                last.append(after)
            inputs = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
            if self.dropout and self.training and layer < self.num_layers - 1:
                inputs = F.dropout(inputs, self.dropout, True)
        states = tuple(torch.stack(parts) for parts in zip(*last, strict=True))
        return data.outputs(inputs), data.states(states)

    def _run(self, suffix: str, inputs: Tensor, start: State, data: Input, *, is_reverse: bool) -> tuple[Tensor, State]:
        """One layer in one direction."""
        maps: Any = self._modules
        batch = start[0].shape[0]
        if self.is_joint:
            gates, hh, bias = self._split_joint(maps[f"joint_{suffix}"], inputs)
        else:
            gates, hidden = map_rows(maps[f"ih_{suffix}"], inputs), maps[f"hh_{suffix}"]
            hh, bias = bound_map(hidden, batch), hidden.bias
        if (added := self.gate_bias(bias)) is not None:
            gates = gates + added.to(gates.dtype)
        step = self.step(hh, bias, maps.get(f"hr_{suffix}"))
        if data.sizes is None:
            return scan_padded(step, gates, start, is_reverse=is_reverse)
        return scan_packed(step, gates, data.sizes, start, is_reverse=is_reverse)

    def _split_joint(self, joint: nn.Module, inputs: Tensor) -> tuple[Tensor, Any, Tensor | None]:
        """What the inputs give to the gates at all steps, and the part of the map that belongs to h, a matrix made once for all steps."""
        layer: Any = joint
        gates = joint(F.pad(inputs, (0, self.n_out)))
        unit = torch.eye(self.n_out, dtype=inputs.dtype, device=inputs.device)
        hidden = layer.factorized.apply(F.pad(unit, (layer.in_features - self.n_out, 0)))
        zero = None if self.gate_bias(layer.bias) is not None or layer.bias is None else torch.zeros_like(layer.bias)
        return gates, lambda h, z: h @ hidden if z is None else torch.addmm(z, h, hidden), zero

    # -- from and to torch's layer ----------------------------------------------------------------------------------

    @classmethod
    def opened(cls, dense: nn.RNNBase) -> Self:
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._take_options(dense)
        layer.is_joint, layer.recurrent_init = False, "normal"
        parameters = dense._parameters
        for _, suffix in layer._suffixes():
            for part in ("ih", "hh", "hr"):
                if (weight := parameters.get(f"weight_{part}_{suffix}")) is not None:
                    layer.add_module(f"{part}_{suffix}", dense_map(weight, parameters.get(f"bias_{part}_{suffix}")))
        layer._take_more(dense)
        return layer.train(dense.training)

    def _map_options(self, name: str, inputs: MapOptions, recurrent: MapOptions) -> MapOptions:
        """Modes of inputs are those of the first layer; a projection has no format, and its outputs no modes."""
        if name.startswith("hr"):
            return MapOptions()
        if name.startswith("hh"):
            return replace(recurrent, in_modes=None) if self.proj_size else recurrent
        return inputs if name.partition("_l")[2].startswith("0") else replace(inputs, in_modes=None)

    def closed(self) -> nn.RNNBase:
        """As a container does. One map of [x, h] is two matrices in torch's layer, which are new."""
        if self.is_joint:
            return self.to_dense().requires_grad_(any(p.requires_grad for p in self.parameters()))
        return super().closed()

    def _dense_twin(self, device: Any, dtype: torch.dtype) -> nn.RNNBase:
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        extra = {"proj_size": self.proj_size} if self.proj_size else {}
        return self.dense_type(**{name: getattr(self, name) for name in names}, **extra, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        """The arguments of torch's layer."""
        return self.dense_type.extra_repr(self)  # pyright: ignore[reportArgumentType] - it reads the options, which are here too
