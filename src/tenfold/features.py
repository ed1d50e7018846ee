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
from tenfold.loss import tensors_of
from tenfold.survey import survey
from tenfold.wrappers import clean_name, is_compiled, unwrapped


class Features:
    """The outputs of the factorised layers of a model, and of the layers of the same names of its teacher.

    Of a recurrent layer whose maps are factorised, while the teacher has torch's own, the outputs of the whole layer are compared.
    Modules from torch.compile run as they are written meanwhile: what is compiled does not see hooks that come and go.

    Raises:
        ValueError: the model has no factorised layer, or the teacher has no layer of the name of one.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module) -> None:
        inner = unwrapped(model), unwrapped(teacher)
        mine = [one for one in survey(inner[0]) if isinstance(one.module, FactorizedLayer)]
        theirs = {clean_name(name): module for name, module in inner[1].named_modules(remove_duplicate=False)}
        pairs: dict[str, tuple[nn.Module, nn.Module]] = {}
        missing = []
        for one in mine:
            if one.name in theirs:
                pairs[one.name] = (one.module, theirs[one.name])
            elif one.owner is not None and one.owner_names[0] in theirs:
                pairs[one.owner_names[0]] = (one.owner, theirs[one.owner_names[0]])
            else:
                missing.append(one.name)
        if not mine or missing:
            what = f"no layer {', '.join(missing)}" if mine else "no counterpart, as the model has no factorised layer"
            raise ValueError(
                f"the teacher {type(inner[1]).__name__} has {what}; features are compared by the names of factorised layers: give the "
                "model before compression as the teacher, or feature_weight=0"
            )
        self._pairs = list(pairs.values())
        self._has_compiled = any(is_compiled(module) for one in (model, teacher) for module in one.modules())
        self._outputs: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """A context in which outputs are kept, until the next one begins."""
        self._outputs.clear()
        handles = [layer.register_forward_hook(self._keep) for pair in self._pairs for layer in pair]
        try:
            with torch.compiler.set_stance("force_eager") if self._has_compiled else contextlib.nullcontext():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, layer: nn.Module, _: Any, output: Any) -> None:
        if found := tensors_of(output):  # of a recurrent layer the outputs come before the states
            self._outputs[id(layer)] = found[0]

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
