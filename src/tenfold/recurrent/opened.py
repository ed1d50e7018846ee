"""torch's recurrent layers in a model <-> containers with dense maps, so that a plan can name each of their matrices."""

import copy
from collections.abc import Container, Mapping
from typing import Any

from torch import nn

from tenfold.layers.base import FactorizedLayer
from tenfold.places import replace_all
from tenfold.recurrent.cells import GRUCell, LSTMCell, RNNCell
from tenfold.recurrent.container import MapContainer
from tenfold.recurrent.gru import GRU
from tenfold.recurrent.lstm import LSTM
from tenfold.recurrent.rnn import RNN
from tenfold.wrappers import clean_name

KINDS: tuple[type[MapContainer], ...] = (LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell)
CELL_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def is_closed(module: nn.Module) -> bool:
    """Whether a module is a recurrent layer of torch that can be opened: its own class, with all its weights as plain parameters."""
    kind = next((kind for kind in KINDS if type(module) is kind.dense_type), None)
    if kind is None or "forward" in vars(module):
        return False
    layer: Any = module
    names = {name for names in layer._all_weights for name in names} if isinstance(layer, nn.RNNBase) else set(CELL_NAMES)
    return names == set(module._parameters)


def opened_view(model: nn.Module) -> nn.Module:
    """The model with its recurrent layers opened: itself where it has none, else a copy of its structure with the same parameters.

    A model that cannot be copied comes back as it is.
    """
    if not any(map(is_closed, model.modules())):
        return model
    tensors = [*model.parameters(), *model.buffers()]
    try:
        view = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except (RuntimeError, TypeError):
        return model
    return open_recurrent(view)[0]


def open_recurrent(model: nn.Module, names: Container[str] | None = None) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The model, changed in place, with its recurrent layers opened, all or those named, and what was opened by name."""
    found = [(clean_name(name), module) for name, module in model.named_modules() if is_closed(module)]
    found = [(name, module) for name, module in found if names is None or name in names]
    layers: dict[nn.Module, nn.Module] = {}
    for _, module in found:
        kind = next(kind for kind in KINDS if type(module) is kind.dense_type)
        dense: Any = module
        layers[module] = kind.opened(dense)
    return replace_all(model, layers), dict(found)


def close_recurrent(model: nn.Module, opened: Mapping[str, nn.Module] | None = None) -> nn.Module:
    """The model, changed in place, with recurrent layers of dense maps alone as torch's again.

    opened: from `open_recurrent`: only these are closed, and each is the very module again that it was.
    """
    layers: dict[nn.Module, nn.Module] = {}
    for long_name, module in model.named_modules():
        name = clean_name(long_name)
        if isinstance(module, MapContainer) and (opened is None or name in opened) and not _is_factorised(module):
            layers[module] = module.closed() if opened is None else opened[name]
    return replace_all(model, layers)


def _is_factorised(module: nn.Module) -> bool:
    return any(isinstance(one, FactorizedLayer) for one in module.modules())
