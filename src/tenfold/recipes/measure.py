"""Measure: what a training step costs: FLOP, time, and the memory that it needs for a while."""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tenfold.flops import count_flops

N_TURNS = 20
MOST_SECONDS = 120.0  # of all turns together; at least three are run


@dataclass(frozen=True)
class StepCost:
    """The cost of one training step: forward, backward and the optimiser's update.

    flops: in matrix products, convolutions and LSTMs.
    seconds, seconds_min: median and minimum of `n_turns` steps, all networks in turns within one run of the program.
    peak_bytes: most bytes of tensors alive at one time, beyond those from before the step; gradients are among them, space that a kernel
        takes for itself is not.
    """

    flops: int
    seconds: float
    seconds_min: float
    peak_bytes: int
    n_turns: int


def step_costs(steps: Mapping[str, Callable[[], Any]], n_turns: int = N_TURNS) -> dict[str, StepCost]:
    """The costs of several functions, each of which does one step; each is called a few times before it is timed."""
    flops = {name: count_flops(step) for name, step in steps.items()}
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    began = time.perf_counter()
    for turn in range(n_turns):
        for name in steps if turn % 2 else reversed(list(steps)):
            start = time.perf_counter()
            steps[name]()
            times[name].append(time.perf_counter() - start)
        if turn >= 2 and time.perf_counter() - began > MOST_SECONDS:
            break
    return {name: StepCost(flops[name], statistics.median(found), min(found), peaks[name], len(found)) for name, found in times.items()}


def peak_bytes(step: Callable[[], Any]) -> int:
    """The most bytes of tensors that are alive at one time during a call, beyond those from before it.

    >>> peak_bytes(lambda: torch.zeros(1000) + torch.ones(1000))
    12000
    """
    with _Storages() as storages:
        step()
    return storages.peak


class _Storages(TorchDispatchMode):
    """Follows the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._watch(tensor, 0)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._watch(tensor, tensor.untyped_storage().nbytes())
        return result

    def _watch(self, tensor: torch.Tensor, n_bytes: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or tensor.is_meta:
            return
        self._known.add(key)
        self.now += n_bytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, n_bytes)

    def _forget(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.now -= n_bytes


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_iter(values) if isinstance(value, torch.Tensor)]
