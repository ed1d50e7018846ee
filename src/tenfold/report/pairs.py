"""Every layer of the dense model beside what stands at its name in the compressed one."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenfold.layers.base import FactorizedLayer
from tenfold.survey import survey
from tenfold.wrappers import clean_name


@dataclass(frozen=True)
class Pair:
    """A layer of the dense model and what stands at its name in the compressed one."""

    name: str
    dense: nn.Module
    small: nn.Module
    shape: tuple[int, ...]
    reason: str
    params_before: int
    params_after: int

    @property
    def is_factorized(self) -> bool:
        """Whether the layer was compressed."""
        return isinstance(self.small, FactorizedLayer) and not isinstance(self.dense, FactorizedLayer)


def pair_layers(model: nn.Module, small: nn.Module) -> list[Pair]:
    """Every layer with a weight of both models, in the order of the dense one.

    Raises:
        ValueError: the compressed model lacks a layer of the dense one, or a layer's weight has another shape.
    """
    others = {clean_name(name): module for name, module in small.named_modules(remove_duplicate=False)}
    pairs, seen = [], (set[int](), set[int]())
    for found in survey(model):
        other = others.get(found.name)
        if other is None:
            raise ValueError(
                f"the compressed {type(small).__name__} has no layer {found.name!r}, which the dense {type(model).__name__} has; "
                "the report needs a model and its own compressed version: check the order and the origin of the two"
            )
        if isinstance(other, FactorizedLayer) and other.factorized.fold.shape != found.shape:
            raise ValueError(
                f"layer {found.name!r} has a weight of shape {found.shape} in the dense model and {other.factorized.fold.shape} in the "
                "compressed one; the report needs equal shapes: give the model that was compressed"
            )
        counts = [_n_new(module, known) for module, known in zip((found.module, other), seen, strict=True)]
        pairs.append(Pair(found.name, found.module, other, found.shape, found.reason, *counts))
    return pairs


def _n_new(module: nn.Module, seen: set[int]) -> int:
    """Values of a layer's weights that were not counted before: tied weights count once."""
    new = {id(tensor): tensor for tensor in _stored(module).values() if id(tensor) not in seen}
    seen |= set(new)
    return sum(tensor.numel() for tensor in new.values())


def _stored(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that make up a layer's weights; biases are not among them."""
    if isinstance(module, FactorizedLayer):
        return dict(module.factorized.named_parameters())
    own = {name: p for name, p in module.named_parameters(recurse=False) if p.dim() >= 2}
    return own or {name: p for name, p in module.named_parameters() if p.dim() >= 2}


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The dense weights of a layer in float64, on the CPU, which has it on every machine."""
    if isinstance(module, FactorizedLayer):
        return {"weight": copy.deepcopy(module.factorized).to("cpu", torch.float64).dense()}
    return {name: parameter.detach().to("cpu", torch.float64) for name, parameter in _stored(module).items()}
