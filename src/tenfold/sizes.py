"""What a model stores: values and bytes of its parameters and buffers."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def n_values(parameter: Tensor) -> int:
    """The number of values of a parameter, 0 where it has no shape yet."""
    return 0 if is_lazy(parameter) else parameter.numel()


def n_parameters(model: nn.Module) -> int:
    """The number of parameters, shared ones counted once."""
    return sum(map(n_values, model.parameters()))


def n_bytes(model: nn.Module) -> int:
    """The bytes of all parameters, shared ones counted once."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if not is_lazy(p))


@dataclass(frozen=True)
class Size:
    """What a model stores: values of its parameters (shared ones once), values of its buffers, and the bytes of both."""

    parameters: int
    buffers: int
    size_bytes: int


def size_of(model: nn.Module) -> Size:
    """The size of a model."""
    parameters, buffers = list(model.parameters()), list(model.buffers())
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *buffers))
    return Size(sum(p.numel() for p in parameters), sum(b.numel() for b in buffers), size_bytes)
