"""save and load: a model with factorised layers as one safetensors file. The format is described in docs/file_format.md.

`save` writes what the model holds; `load` puts it into a model that the user's own code builds. The file says which layers are
factorised and how; everything else about the network comes from that code, and every tensor of it from the file.
"""

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from tenfold.bayes.gaussian_factors import GaussianFactors
from tenfold.bayes.scaled_factors import ScaledFactors
from tenfold.files import Header, read_header, write_safetensors
from tenfold.layers import all_layers
from tenfold.layers.base import FactorizedLayer
from tenfold.messages import PLAN, check_kind
from tenfold.model_recipe import FORMAT_VERSION, LayerRecipe, check_recipe, read_recipe
from tenfold.places import fill, modules_of, places_of, replace, swapped, tensors_of
from tenfold.plan_data import Plan
from tenfold.recurrent.opened import KINDS, open_recurrent
from tenfold.weight import FactorizedWeight
from tenfold.wrappers import unwrapped


def save(model: nn.Module, path: str | os.PathLike[str], *, plan: Plan | None = None) -> None:
    """Writes all parameters and persistent buffers, and how the factorised layers are made of them, to a safetensors file.

    A tensor that stands at several places is stored once. The file is complete or not there at all; the same model gives the same
    bytes. A model from torch.compile is saved like the model in it.

    Args:
        plan: kept in the file as text, for the reader's information.

    Raises:
        OSError: the folder is missing, read-only or full (the subclass says which); nothing is left behind.
        TypeError: the model holds something that is not a plain tensor, or a factorised layer that `load` would not know.
        ValueError: a tensor has no values yet, a rank method that is not finished has put tensors into a layer, or factors are
            parametrised or pruned.
    """
    model = unwrapped(model)
    check_kind("plan", plan, Plan | None, PLAN)
    tensors, aliases = tensors_of(model)
    layers, modules = _layers_of(model)
    opened = {name: type(module).__name__ for name, module in modules_of(model).items() if isinstance(module, KINDS)}
    from tenfold import __version__

    metadata = {
        "tenfold": FORMAT_VERSION,
        "tenfold_version": __version__,
        "model": type(model).__name__,
        "layers": json.dumps(layers),
        "modules": json.dumps(modules),
        "aliases": json.dumps(aliases),
    }
    if opened:
        metadata["recurrent"] = json.dumps(opened)
    if plan is not None:
        metadata["plan"] = plan.to_text()
    write_safetensors(path, tensors, metadata)


def load(path: str | os.PathLike[str], build_model: Callable[[], nn.Module] | nn.Module) -> nn.Module:
    """The saved model on the CPU, with the dtypes of the file and in the mode (eval or training) of the model that is built.

    Loading is strict: every parameter and buffer comes from the file, or there is an error. No code of the file is executed. Ties
    between tensors are those of the file.

    Args:
        build_model: a function without arguments that returns the uncompressed network, or such a network, which stays as it is (its
            structure is copied, its weights are not) and may be on the "meta" device. Layers that are factorised in the file may be
            dense in it, or already `tenfold.nn` layers.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is damaged, not written by `save`, or does not fit the network; the message names the layer or tensors.
        TypeError: `build_model` gives no module.
    """
    header = read_header(path)
    recipe = read_recipe(header)
    model = _structure(build_model)
    model = open_recurrent(model, recipe.recurrent)[0]
    names = {name: [name] for name in recipe.layers}
    for alias, name in recipe.modules.items():
        names[name].append(alias)
    modules = modules_of(model)
    put: dict[nn.Module, nn.Module] = {}
    for name, one in recipe.layers.items():
        layer = _put(modules, names[name], one, header)
        for place in names[name]:
            put.setdefault(modules[place], layer)
    model = swapped(model, put)
    fill(model, header, recipe.aliases)
    return model


# -- the factorised layers ---------------------------------------------------------------------------------------------


def _layers_of(model: nn.Module) -> tuple[dict[str, Any], dict[str, str]]:
    """What the file says of every factorised layer by its first name, and {other name: first name}."""
    first: dict[nn.Module, str] = {}
    layers: dict[str, Any] = {}
    modules: dict[str, str] = {}
    for name, module in modules_of(model).items():
        if not isinstance(module, FactorizedLayer):
            continue
        if module in first:
            modules[name] = first[module]
            continue
        kind = type(module).__name__
        if all_layers().get(kind) is not type(module):
            raise TypeError(
                f"{name} is a {kind} of {type(module).__module__}; load knows the layers of tenfold.layers only: put its file there"
            )
        network, fold, factors = module.factorized.network, module.factorized.fold, module.factorized.factors
        if isinstance(factors, GaussianFactors | ScaledFactors):
            raise ValueError(
                f"layer {name or 'model'!r} has a rank method, which has put tensors of its own between the factors; a file holds plain "
                "layers: call the method's finish() first, or keep method.state_dict() with model.state_dict() to go on with the training"
            )
        if others := {one for one, _ in (*factors.named_parameters(), *factors.named_buffers())} - set(map(str, range(len(factors)))):
            raise ValueError(
                f"layer {name or 'model'!r} has factors that are computed from {', '.join(sorted(others))}; a file holds the factors "
                "themselves: call torch.nn.utils.parametrize.remove_parametrizations, or prune.remove, on factorized.factors first"
            )
        check_recipe(network, fold, f"layer {name!r}")
        first[module] = name
        layers[name] = {
            "layer": kind,
            "statement": network.statement,
            "sizes": network.sizes,
            "axes": [[axis.role, axis.size, list(axis.modes), axis.groups] for axis in fold.axes],
        }
    return layers, modules


# -- into a network ---------------------------------------------------------------------------------------------------


def _structure(build_model: Any) -> nn.Module:
    """The network of the user's code, free to be changed; modules from torch.compile are unwrapped."""
    if isinstance(build_model, nn.Module):
        build_model = unwrapped(build_model)
        memo: dict[int, Any] = {}
        for place in places_of(build_model).values():  # all of these are about to be replaced: share them instead of copying
            shared = place.tensor.detach()
            memo[id(place.tensor)] = nn.Parameter(shared, place.tensor.requires_grad) if place.is_parameter else shared
        model = copy.deepcopy(build_model, memo)
    elif callable(build_model):
        model = build_model()
    else:
        model = build_model
    if not isinstance(model, nn.Module):
        raise TypeError(f"build_model gave a {type(model).__name__}; a torch.nn.Module is needed: pass one, or a function that returns one")
    model = unwrapped(model)
    for module in list(model.modules()):
        for name, child in module._modules.items():
            module._modules[name] = child if child is None else unwrapped(child)
    return model


def _put(modules: Mapping[str, nn.Module], names: Sequence[str], recipe: LayerRecipe, header: Header) -> nn.Module:
    """The layer of a recipe, put at all its names; `modules` is the model as it was built, by names."""
    for name in names:
        _check_place(modules.get(name), name, recipe, header)
    old: Any = modules[names[0]]
    weight = FactorizedWeight(recipe.network, recipe.fold, device="meta")
    layer: nn.Module
    if isinstance(old, FactorizedLayer):
        is_trained = old.factorized.factors[0].requires_grad
        old.factorized = weight.train(old.training)
        layer = old
    else:
        is_trained = old.weight.requires_grad
        layer = replace(old, old, recipe.kind.around(old, weight).train(old.training))  # with the hooks of the old one
    weight.requires_grad_(is_trained)
    for name in names:
        parent, _, leaf = name.rpartition(".")
        if name:
            modules[parent]._modules[leaf] = layer  # of one module at two places the file may have two
    return layer


def _check_place(module: nn.Module | None, name: str, recipe: LayerRecipe, header: Header) -> None:
    """Raises ValueError where the network has no such layer at this place."""
    kind, saved = recipe.kind, header.metadata.get("model", "model")
    advice = f"build the {saved} that was saved"
    if module is None:
        raise ValueError(
            f"{header.path} has a layer {name!r}, which the network lacks; a {kind.dense_type.__name__} is needed there: {advice}"
        )
    if not isinstance(module, (kind.dense_type, kind)):
        raise ValueError(
            f"{header.path} has a {kind.__name__} at {name!r}, where the network has a {type(module).__name__}; "
            f"a {kind.dense_type.__name__} is needed there: {advice}"
        )
    fold = module.factorized.fold if isinstance(module, FactorizedLayer) else kind.fold_of(module, 1)
    if [(a.role, a.size, a.groups) for a in fold.axes] != [(a.role, a.size, a.groups) for a in recipe.fold.axes]:
        raise ValueError(
            f"{header.path} has a weight of shape {recipe.fold.shape} with {recipe.fold.groups} groups at {name!r}, where the network has "
            f"{fold.shape} with {fold.groups}; both must be the same: {advice}"
        )
