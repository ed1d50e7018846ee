"""Uses: where the outputs of layers go while a model runs. A BatchNorm takes any mean away, but only from what it gets itself."""

import weakref
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

NORMS = (F.batch_norm, torch.batch_norm)


class Uses(TorchFunctionMode):
    """A context that sees who takes the outputs of layers: BatchNorms alone, or others too, as a connection past the norm or the caller."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._calls: Counter[str] = Counter()
        self._normed: Counter[str] = Counter()
        self._others: set[str] = set()

    @property
    def only_norms(self) -> set[str]:
        """The layers whose every output went to a BatchNorm, and to nothing else."""
        return {name for name, number in self._calls.items() if self._normed[name] == number} - self._others

    def watch(self, name: str, output: Any) -> None:
        """From now on the uses of this output count for the layer."""
        self._calls[name] += 1
        if isinstance(output, Tensor):
            self._outputs[id(output)] = (weakref.ref(output), name)

    def norm(self, arguments: tuple[Any, ...]) -> None:
        """Counts arguments that a BatchNorm gets."""
        self._normed.update(self._names(arguments))

    def returned(self, output: Any) -> None:
        """Counts what the model gives back: whoever gets it may use its mean."""
        self._others.update(self._names([output]))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = [] if func in NORMS else self._names([*args, *(kwargs or {}).values()])
        result = func(*args, **(kwargs or {}))
        if names and any(isinstance(one, Tensor) for one in tree_iter(result)):  # not a question for its shape
            self._others.update(names)
        return result

    def _names(self, values: Any) -> list[str]:
        tensors = [one for one in tree_iter(values) if isinstance(one, Tensor) and id(one) in self._outputs]
        return [name for ref, name, one in ((*self._outputs[id(one)], one) for one in tensors) if ref() is one]
