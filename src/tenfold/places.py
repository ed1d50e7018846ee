"""The places of a model: its tensors by all their names, each once for a file and back to all of them; layers put where others stand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tenfold.files import Header, read_tensors
from tenfold.wrappers import clean_name

# what belongs to a place in the model and not to the layer that stands there
HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: an entry of a module."""

    module: nn.Module
    name: str
    tensor: Tensor
    is_parameter: bool


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by every name that it has; for a compiled module the one inside."""
    return {clean_name(name): module for name, module in model.named_modules(remove_duplicate=False)}


def places_of(model: nn.Module) -> dict[str, Place]:
    """All parameters and persistent buffers by every name that they have."""
    places = {}
    for prefix, module in modules_of(model).items():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise TypeError(
                f"{prefix or 'the model'} ({type(module).__name__}) keeps extra state that is no tensor; a file holds tensors only: "
                "store that state on your own"
            )
        for is_parameter, tensors in ((True, module._parameters), (False, module._buffers)):
            for name, tensor in tensors.items():
                if tensor is None or name in module._non_persistent_buffers_set:
                    continue
                full = f"{prefix}.{name}" if prefix else name
                if is_lazy(tensor):
                    raise ValueError(f"{full} has no shape yet; every tensor needs one: run the model once")
                places[full] = Place(module, name, tensor, is_parameter)
    return places


def tensors_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once by its first name, and {other name: first name}."""
    first: dict[Any, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, place in places_of(model).items():
        tensor = place.tensor
        if tensor.is_meta:
            raise ValueError(f'{name} is on the "meta" device and has no values; a saved model needs them: load or initialise it first')
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(f"{name} is a sparse or quantised tensor; a file holds plain tensors only: convert it, e.g. with to_dense()")
        memory = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device) if tensor.numel() else id(tensor)
        key = (memory, place.is_parameter)
        if key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            tensors[name] = tensor
    return tensors, aliases


def fill(model: nn.Module, header: Header, aliases: Mapping[str, str]) -> None:
    """Puts the tensors of the file into the model, each at all its places."""
    places = places_of(model)
    check_fit(model, places, header, aliases)
    tensors = read_tensors(header.path)
    if {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} != {n: (e.dtype, e.shape) for n, e in header.tensors.items()}:
        raise ValueError(f"{header.path} changed while it was read; it must stay as it is until load returns: try again")
    made: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, place in places.items():
        stored = aliases.get(name, name)
        if stored not in made:
            old, new = place.tensor, tensors[stored]
            if id(old) in taken or old.device.type != "cpu" or old.is_inference():
                made[stored] = nn.Parameter(new, old.requires_grad) if place.is_parameter else new
            else:
                old.data = new  # the same object: whatever else in the model refers to it sees the values too
                made[stored] = old
            taken.add(id(made[stored]))
        if made[stored] is not place.tensor:
            setattr(place.module, place.name, made[stored])
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            if (buffer := module._buffers.get(name)) is not None and buffer.device.type != "cpu":
                setattr(module, name, buffer.to("cpu"))


def check_fit(model: nn.Module, places: Mapping[str, Place], header: Header, aliases: Mapping[str, str]) -> None:
    """Raises ValueError where the file and the model do not hold the same tensors."""
    have = {name: header.tensors[aliases.get(name, name)] for name in (*header.tensors, *aliases)}
    missing, unexpected = [n for n in places if n not in have], [n for n in have if n not in places]
    problems = [f"{name} is missing" for name in missing] + [f"{name} is unexpected" for name in unexpected]
    names_at: dict[tuple[nn.Module, str], str] = {}
    kinds: dict[str, bool] = {}
    for name, place in places.items():
        if name not in have:
            continue
        entry, tensor, stored = have[name], place.tensor, aliases.get(name, name)
        if entry.shape != tuple(tensor.shape):
            problems.append(f"{name} has shape {entry.shape} in the file and {tuple(tensor.shape)} in the network")
        elif entry.dtype != tensor.dtype and not (entry.dtype.is_floating_point and tensor.dtype.is_floating_point):
            problems.append(f"{name} has dtype {entry.dtype} in the file and {tensor.dtype} in the network")
        if (other := names_at.setdefault((place.module, place.name), stored)) != stored:
            problems.append(f"{name} and {other} are two tensors in the file and one in the network")
        if kinds.setdefault(stored, place.is_parameter) != place.is_parameter:
            problems.append(f"{name} and {stored} are one tensor in the file, and a parameter and a buffer in the network")
    for prefix, module in model.named_modules():
        lost = [n for n in module._non_persistent_buffers_set if (b := module._buffers.get(n)) is not None and b.is_meta]
        problems += [f'the buffer {prefix}.{name} is not saved, and has no values on "meta"' for name in lost]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(
            f"{header.path} does not fit {type(model).__name__}: {'; '.join(problems[:4])}{more}; every tensor of the network "
            f"must come from the file: build the {header.metadata.get('model', 'model')} that was saved"
        )


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Puts a layer in the place of another wherever it stands; returns the model, which is `new` where `old` was all of it."""
    return replace_all(model, {old: new})


def replace_all(model: nn.Module, layers: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts the values of a mapping in the places of its keys, wherever those stand; returns the model, a value where a key was all of it.

    The hooks of an old layer go on to the new one. Where torch.compile wraps the old layer alone, the new one is wrapped likewise.
    """
    for old, new in layers.items():
        for name in HOOKS:
            setattr(new, name, getattr(old, name))
    return swapped(model, layers)


def swapped(model: nn.Module, layers: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The model with modules in the places of others, also where plain attributes, lists, tuples and dicts refer to them.

    One walk does for all of them: one for each would visit the whole model as often as it has layers.
    """
    changes: dict[int, Any] = {id(old): new for old, new in layers.items() if new is not old}
    return _swapped(model, changes) if changes else model


def _swapped(value: Any, done: dict[int, Any]) -> Any:
    """What comes in the place of a value; `done` says so by id. All but tuples and torch.compile's wrappers are changed in place."""
    if id(value) in done or not isinstance(value, nn.Module | list | dict | tuple):
        return done.get(id(value), value)
    done[id(value)] = value  # also what refers to itself comes to an end
    if isinstance(value, tuple):
        parts = [_swapped(one, done) for one in value]
        if any(new is not old for new, old in zip(parts, value, strict=True)):
            kind: Any = type(value)
            done[id(value)] = kind(*parts) if hasattr(value, "_fields") else kind(parts)
    elif isinstance(value, nn.Module) and id(value._modules.get("_orig_mod")) in done:
        wrapper: Any = value
        inner = wrapper._orig_mod
        if (new := done[id(inner)]) is not inner:
            done[id(value)] = type(wrapper)(new, wrapper.dynamo_ctx)
    else:
        inside: Any = vars(value) if isinstance(value, nn.Module) else value  # modules hold their children in a dict there
        for key, one in list(enumerate(inside) if isinstance(inside, list) else inside.items()):
            if (new := _swapped(one, done)) is not one:
                inside[key] = new
    return done[id(value)]
