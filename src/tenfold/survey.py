"""What a model holds: every layer with a weight, whether it can be factorised, and why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from tenfold.layers import all_layers
from tenfold.layers.base import FactorizedLayer
from tenfold.recurrent.container import MapContainer
from tenfold.sizes import n_values
from tenfold.wrappers import clean_name, is_compiled


@dataclass(frozen=True)
class Found:
    """One layer of a model: its name, all names that it has, and the factorised layer that can stand for it, or the reason why none.

    owner: the recurrent layer of which it is one map, if it is.
    """

    name: str
    names: tuple[str, ...]
    module: nn.Module
    layer: type[FactorizedLayer] | None
    reason: str
    owner: nn.Module | None = None

    @property
    def owner_names(self) -> tuple[str, ...]:
        """The names of the recurrent layer of which it is one map; none for any other layer."""
        return tuple(name.rpartition(".")[0] for name in self.names) if self.owner is not None else ()

    def is_a(self, kind: type) -> bool:
        """Whether a layer type stands for it: its own type, for a map only the type of the recurrent layer, torch's or tenfold's."""
        if self.owner is None:
            return isinstance(self.module, kind)
        owner: Any = self.owner
        return isinstance(owner, kind) or issubclass(owner.dense_type, kind)

    @property
    def weight(self) -> Tensor:
        """The parameter called weight, which a factorised layer would replace; of layers without one the largest parameter."""
        weight = self.module._parameters.get("weight")
        if weight is not None and (is_lazy(weight) or weight.dim() >= 2):
            return weight
        return max(_own_parameters(self.module), key=n_values)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense weight, () where it has none yet."""
        if isinstance(self.module, FactorizedLayer):
            return self.module.factorized.fold.shape
        return () if is_lazy(self.weight) else tuple(self.weight.shape)

    @property
    def n_values(self) -> int:
        """The number of stored values of the weight."""
        if isinstance(self.module, FactorizedLayer):
            return self.module.factorized.network.numel
        return n_values(self.weight)


def survey(model: nn.Module) -> list[Found]:
    """Every module that holds a weight with two or more axes of its own, in the order of the model; nothing is left out silently."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not is_compiled(module):
            names.setdefault(module, []).append(clean_name(name))
    users = _users_of_parameters(names)
    owners = {child: module for module in names if isinstance(module, MapContainer) for child in module.children()}
    found = []
    inside: set[nn.Module] = set()
    for module, all_names in names.items():
        if module in inside:
            continue
        layer, reason = None, "it is factorised already"
        if isinstance(module, FactorizedLayer):
            inside |= set(module.modules())
        elif any(is_lazy(p) or p.dim() >= 2 for p in _own_parameters(module)):
            layer, reason = _layer_for(module, all_names[0], users)
            if parametrize.is_parametrized(module):
                inside |= set(_parametrizations(module).modules())
        else:
            continue
        found.append(Found(all_names[0], tuple(dict.fromkeys(all_names)), module, layer, reason, owners.get(module)))
    return found


def _parametrizations(module: nn.Module) -> nn.Module:
    parametrized: Any = module
    return parametrized.parametrizations


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that belong to a layer itself, with those that its parametrizations compute a weight from."""
    own = list(module.parameters(recurse=isinstance(module, FactorizedLayer)))
    return own + (list(_parametrizations(module).parameters()) if parametrize.is_parametrized(module) else [])


def _users_of_parameters(names: Mapping[nn.Module, list[str]]) -> dict[int, list[str]]:
    users: dict[int, list[str]] = {}
    for module, all_names in names.items():
        for parameter in module.parameters(recurse=False):
            users.setdefault(id(parameter), []).append(all_names[0])
    return users


def _layer_for(module: nn.Module, name: str, users: Mapping[int, list[str]]) -> tuple[type[FactorizedLayer] | None, str]:
    """The factorised layer that can replace a module, or the reason why there is none."""
    kind = type(module).__name__
    if parametrize.is_parametrized(module):
        return None, "its weight is computed by a parametrization; remove it first (torch.nn.utils.parametrize.remove_parametrizations)"
    if isinstance(module, nn.MultiheadAttention):
        return (
            None,
            "query, key and value weights are packed in one parameter that torch reads directly; its out_proj is a layer of its own",
        )
    layer = next((one for one in all_layers().values() if type(module) is one.dense_type), None)
    if layer is None:
        layer = next((one for one in all_layers().values() if isinstance(module, one.dense_type)), None)
        if layer is None:
            return None, f"there is no factorised layer for {kind}"
    if changed := [name for name in ("__call__", "forward", "_conv_forward") if _is_changed(module, name, layer.dense_type)]:
        return None, f"{kind} has a {changed[0]} of its own, which a factorised {layer.dense_type.__name__} would not run"
    weight: Any = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter):
        return None, "its weight is not a parameter"
    if not isinstance(getattr(module, "bias", None), nn.Parameter | None):
        return None, "its bias is not a parameter, but made by a hook, as in pruning; remove that first (torch.nn.utils.prune.remove)"
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return None, "its weight has no shape yet; run the model once"
    if not weight.numel():
        return None, "its weight has no values"
    if reason := layer.unsupported(module):
        return None, reason
    if others := [user for user in users[id(weight)] if user != name]:
        return None, f"its weight is shared with {', '.join(others)}; factorising one of them would untie them"
    return layer, ""


def _is_changed(module: nn.Module, name: str, kind: type[nn.Module]) -> bool:
    """Whether a subclass of `kind`, or the module itself, has another method of that name."""
    method = getattr(kind, name, None)
    return getattr(module, name, None) != (method if method is None else method.__get__(module))
