"""Running a model that somebody else wrote: its arguments, and the modes that come back when the run is over."""

import contextlib
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree

from tenfold.wrappers import is_compiled

EXAMPLES = 32  # samples of an example input; plans and reports time layers on so many
REFUSALS = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError)  # of models that check what they get


class NotFinite(ValueError):
    """Inputs of a layer that are NaN or infinite."""


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output for a tensor, a tuple or list of arguments or a mapping of keyword arguments."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if isinstance(inputs, Mapping):
        return model(**{name: _to(value, device) for name, value in inputs.items()})
    if isinstance(inputs, tuple | list):
        return model(*(_to(value, device) for value in inputs))
    return model(_to(inputs, device))


def run_on(model: nn.Module, inputs: Any, data: str) -> Any:
    """The model's output for inputs; `data` is what an error calls where they come from.

    Raises:
        RuntimeError: the model does not take them.
    """
    try:
        return call(model, inputs)
    except (NotFinite, torch.cuda.OutOfMemoryError):
        raise
    except REFUSALS as error:
        shapes = ", ".join(f"{tuple(one.shape)} of {one.dtype}" for one in tensors_in(inputs)) or type(inputs).__name__
        text = str(error) or type(error).__name__
        if isinstance(error, TypeError) and re.search("(positional|keyword) argument", text):
            text += '; the last of several tensors of a sample, and the entry "labels" of a mapping, are its target and no argument'
        raise RuntimeError(
            f"{type(model).__name__} does not run on the {data}, whose batch is {shapes}: {text}; inputs as in training are "
            "needed: give data of the size and with the transforms (to float tensors, normalised) that the model was trained with"
        ) from error


def first_argument(values: tuple[Any, ...]) -> Tensor | None:
    """The first tensor among the arguments of a layer."""
    return next((value for value in values if isinstance(value, Tensor)), None)


def batch_size(inputs: Any) -> int:
    """The first axis of the first tensor."""
    return next((one.shape[0] for one in tensors_in(inputs) if one.dim()), 1)


def first_samples(inputs: Any, count: int) -> Any:
    """The first `count` samples of a tensor, of a tuple of arguments or of a mapping of keyword arguments, also of what is nested there."""
    total = batch_size(inputs)

    def cut(value: Any) -> Any:
        return value[:count] if isinstance(value, Tensor) and value.dim() and value.shape[0] == total else value

    return _pytree.tree_map(cut, dict(inputs) if isinstance(inputs, Mapping) else inputs)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    return [leaf for leaf in _pytree.tree_leaves(dict(value) if isinstance(value, Mapping) else value) if isinstance(leaf, Tensor)]


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


class eval_mode:
    """A context in which the model is in eval mode; every module's mode comes back at the end."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module, mode in self.modes:
            module.training = mode


@contextlib.contextmanager
def unchanged_buffers(model: nn.Module, *, learning: Collection[nn.Module] = ()) -> Iterator[None]:
    """A context at whose end every buffer is the same tensor with the same values as before, save those of the modules `learning`.

    Models that process streams keep a state in them, in eval mode too.
    """
    places = [(module._buffers, dict(module._buffers)) for module in model.modules() if module not in learning]
    buffers = {id(one): one for _, before in places for one in before.values() if one is not None and not is_lazy(one)}
    saved = [(one, one._version, one.detach().clone()) for one in buffers.values() if not one.is_inference()]
    try:
        yield
    finally:
        for place, before in places:
            place.clear()
            place.update(before)
        with torch.no_grad():
            for one, version, values in saved:
                if one._version != version:
                    one.copy_(values)


@contextlib.contextmanager
def probing(model: nn.Module, *, learning: Collection[nn.Module] = ()) -> Iterator[None]:
    """A context for runs that only look: eval mode, no gradients, and modules from torch.compile run as they are written.

    Buffers are as before at its end, save those of the modules `learning`.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        stack.enter_context(unchanged_buffers(model, learning=learning))
        stack.enter_context(torch.no_grad())
        if any(is_compiled(module) for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Using `torch.compile\\(module\\)` when there are global hooks")  # of FlopCounterMode
        yield
