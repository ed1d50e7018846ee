"""What a model costs, measured on this machine: values, bytes and time."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tenfold.running import batch_size, call, eval_mode

MODEL_SECONDS = 2.0  # time spent on runs of one model pair at one batch size, within the limits below
FEWEST_RUNS, MOST_RUNS = 7, 50
CALL_SECONDS = 2e-4  # shorter calls are repeated within one run: the clock and the loop cost about 1e-7 s
NOISE = 0.03  # a difference below 3 % is not called one


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


@dataclass(frozen=True)
class Race:
    """Times of one call in milliseconds, dense and compressed in turns within one run of the program, at one batch size.

    speedup is the ratio of the medians, dense / compressed: above 1 the compressed one is faster. speedup_low and speedup_high are
    the quartiles of the ratio over the turns.
    """

    batch: int
    n_runs: int
    dense_ms: float
    dense_min_ms: float
    small_ms: float
    small_min_ms: float
    speedup: float
    speedup_low: float
    speedup_high: float

    @property
    def verdict(self) -> Literal["faster", "slower", "same"]:
        """What the compressed one is: "same" where medians differ by less than 3 %, or the minima or a quarter of the turns contradict."""
        of_minima = self.dense_min_ms / self.small_min_ms
        if self.speedup > 1 + NOISE and min(self.speedup_low, of_minima) > 1:
            return "faster"
        return "slower" if self.speedup < 1 - NOISE and max(self.speedup_high, of_minima) < 1 else "same"

    @property
    def noise(self) -> float:
        """The larger ratio of a median to its minimum: about 1.1 on a quiet machine."""
        return max(self.dense_ms / self.dense_min_ms, self.small_ms / self.small_min_ms)


def race(dense: Callable[[], Any], small: Callable[[], Any], batch: int, device: torch.device, seconds: float) -> Race:
    """The times of two functions, called in turns after two calls to warm up each."""
    sync: Callable[[], None] = getattr(getattr(torch, device.type, None), "synchronize", lambda: None)
    for function in (dense, small):
        function()
    estimates = [_seconds(function, 1, sync) for function in (dense, small)]
    repeats = [max(1, min(100, round(CALL_SECONDS / max(estimate, 1e-7)))) for estimate in estimates]
    turn = sum(estimate * repeat for estimate, repeat in zip(estimates, repeats, strict=True))
    n_runs = max(FEWEST_RUNS, min(MOST_RUNS, int(seconds / max(turn, 1e-6))))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(n_runs):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(_seconds((dense, small)[which], repeats[which], sync) * 1e3)
    low, _, high = statistics.quantiles([a / b for a, b in zip(*times, strict=True)], n=4)
    medians = [statistics.median(values) for values in times]
    return Race(batch, n_runs, medians[0], min(times[0]), medians[1], min(times[1]), medians[0] / medians[1], low, high)


def _seconds(function: Callable[[], Any], repeats: int, sync: Callable[[], None]) -> float:
    sync()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    sync()
    return (time.perf_counter() - start) / repeats


def first_samples(inputs: Any, count: int) -> Any:
    """The first `count` samples of a tensor, of a tuple of arguments or of a mapping of keyword arguments."""
    total = batch_size(inputs)

    def cut(value: Any) -> Any:
        return value[:count] if isinstance(value, Tensor) and value.dim() and value.shape[0] == total else value

    if isinstance(inputs, Mapping):
        return {name: cut(value) for name, value in inputs.items()}
    return tuple(map(cut, inputs)) if isinstance(inputs, tuple | list) else cut(inputs)


def race_models(model: nn.Module, small: nn.Module, inputs: Any, batch: int, device: torch.device) -> Race:
    """The times of two models in eval mode without gradients on the first `batch` samples."""
    samples = first_samples(inputs, batch)
    with eval_mode(model), eval_mode(small), torch.no_grad():
        return race(lambda: call(model, samples), lambda: call(small, samples), batch, device, MODEL_SECONDS)
