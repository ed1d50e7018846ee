"""Identities: models, data and options as short texts, by which a run that goes on sees that it was given something else."""

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

from tenfold.batches import n_batches
from tenfold.calibrate import calibration_pair

LOOK = 16  # samples of the data that are looked at, spread over all of them


def model_identity(model: nn.Module) -> str:
    """The class of a model and the norm of its values: enough to see that another one was given."""
    total = math.fsum(float(torch.linalg.vector_norm(p.detach().double())) ** 2 for p in model.parameters())
    return f"{type(model).__name__} with {sum(p.numel() for p in model.parameters())} values of norm {math.sqrt(total):.6g}"


def option_identity(value: Any) -> str:
    """The value of an option; of functions, classes and other objects the name, of partial functions the arguments too."""
    if isinstance(value, nn.Module):
        return model_identity(value)
    if isinstance(value, functools.partial):
        given = [*map(option_identity, value.args), *(f"{name}={option_identity(one)}" for name, one in sorted(value.keywords.items()))]
        return f"{option_identity(value.func)}({', '.join(given)})"
    if isinstance(value, Mapping):
        return str({name: option_identity(one) for name, one in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return str([option_identity(one) for one in value])
    return str(getattr(value, "__qualname__", value if isinstance(value, str | int | float | None) else type(value).__qualname__))


def data_identity(data: Any) -> str:
    """How many samples there are (batches, where data come in batches), and a hash of some that are spread over all of them.

    A loader is its data set, as it may shuffle. What two readings give differently, as random crops, does not count.
    """
    if data is None:
        return "none"
    if isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset):
        return data_identity(data.dataset)
    with torch.random.fork_rng(devices=[]):
        readings = [[value_bytes(part) for part in tree_leaves(calibration_pair(data, LOOK, "data"))] for _ in range(2)]
    digest = hashlib.sha256(b"".join(one for one, again in zip(*readings, strict=False) if one == again))
    return f"{n_batches(data, 1)} samples, {digest.hexdigest()[:16]}"


def value_bytes(value: Any) -> bytes:
    """Shape and values of a tensor of any dtype, or the text of another value: what a hash of data is made of."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape)).encode() + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return str(value).encode()
