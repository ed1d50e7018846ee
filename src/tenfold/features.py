"""Features: what the layers of a compressed model and of its teacher compute from the same inputs, and how far apart that is.

Learned layer by layer, it gives every layer a target of its own, where the loss of the whole network gives one for all of them.
Source: FitNets, arXiv 1412.6550 (hints), here on the outputs of the factorised layers, which have the teacher's shape.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.layers.base import FactorizedLayer


class Features:
    """The outputs of the factorised layers of a model, and of the layers of the same names of its teacher.

    Raises:
        ValueError: the model has no factorised layer, or the teacher has no layer of the name of one.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module) -> None:
        mine = {name: module for name, module in model.named_modules() if isinstance(module, FactorizedLayer)}
        theirs = dict(teacher.named_modules())
        missing = [name for name in mine if name not in theirs]
        if not mine or missing:
            what = f"no layer {', '.join(missing)}" if mine else "no counterpart, as the model has no factorised layer"
            raise ValueError(
                f"the teacher {type(teacher).__name__} has {what}; features are compared by the names of factorised layers: give the "
                "model before compression as the teacher, or feature_weight=0"
            )
        self._pairs = [(module, theirs[name]) for name, module in mine.items()]
        self._outputs: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """A context in which outputs are kept, until the next one begins."""
        self._outputs.clear()
        handles = [layer.register_forward_hook(self._keep) for pair in self._pairs for layer in pair]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self._outputs[id(layer)] = output

    def distance(self) -> Tensor:
        """The mean over the layers that ran of ||mine - theirs||^2 / ||theirs||^2."""
        parts = []
        for mine, theirs in self._pairs:
            if id(mine) in self._outputs and id(theirs) in self._outputs:
                wanted = self._outputs[id(theirs)].detach().float()
                gap = (self._outputs[id(mine)].float() - wanted.to(self._outputs[id(mine)].device)).square().sum()
                parts.append(gap / wanted.square().sum().clamp_min(1e-12).to(gap.device))
        if not parts:
            raise ValueError(
                "no factorised layer of the model ran on this batch together with that of the teacher, so no features can be compared; "
                "at least one must: give inputs that reach them, or feature_weight=0"
            )
        return torch.stack(parts).mean()
