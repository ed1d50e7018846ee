"""Times on this machine: two models, or the layers of one and those that may stand for them, called in turns within one run."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tenfold.flops import count_flops, without_fast_path
from tenfold.progress import Progress
from tenfold.running import call, eval_mode, first_samples, probing, tensors_in, unchanged_buffers

MODEL_SECONDS = 2.0  # time spent on runs of one model pair at one batch size, within the limits below
LAYER_SECONDS = 0.06  # the same for one layer
FEWEST_RUNS, MOST_RUNS = 7, 50
CALL_SECONDS = 2e-4  # shorter calls are repeated within one run: the clock and the loop cost about 1e-7 s
NOISE = 0.03  # a difference below 3 % is not called one


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
    """The times of two functions, called in turns after two calls to warm up each.

    With one thread on a CPU they are those for which the thread ran: other programs that share its core change little in them.
    """
    sync: Callable[[], None] = getattr(getattr(torch, device.type, None), "synchronize", lambda: None)
    clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for function in (dense, small):
        function()
    estimates = [_seconds(function, 1, sync, clock) for function in (dense, small)]
    repeats = [max(1, min(100, round(CALL_SECONDS / max(estimate, 1e-7)))) for estimate in estimates]
    turn = sum(estimate * repeat for estimate, repeat in zip(estimates, repeats, strict=True))
    n_runs = max(FEWEST_RUNS, min(MOST_RUNS, int(seconds / max(turn, 1e-6))))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(n_runs):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(_seconds((dense, small)[which], repeats[which], sync, clock) * 1e3)
    low, _, high = statistics.quantiles([a / b for a, b in zip(*times, strict=True)], n=4)
    medians = [statistics.median(values) for values in times]
    return Race(batch, n_runs, medians[0], min(times[0]), medians[1], min(times[1]), medians[0] / medians[1], low, high)


def _seconds(function: Callable[[], Any], repeats: int, sync: Callable[[], None], clock: Callable[[], float]) -> float:
    sync()
    start = clock()
    for _ in range(repeats):
        function()
    sync()
    return (clock() - start) / repeats


def race_models(model: nn.Module, small: nn.Module, inputs: Any, batch: int, device: torch.device) -> Race:
    """The times of two models in eval mode without gradients on the first `batch` samples."""
    samples = first_samples(inputs, batch)
    with eval_mode(model), eval_mode(small), unchanged_buffers(model), unchanged_buffers(small), torch.no_grad():
        return race(lambda: call(model, samples), lambda: call(small, samples), batch, device, MODEL_SECONDS)


@dataclass(frozen=True)
class LayerRun:
    """One layer on the inputs that it gets inside the dense model: FLOP for one sample over all its calls, and times of its first call.

    predicted: by batch size, the speed-up that the machine model of contractions predicts for all its calls on a CPU.
    """

    flops_before: int
    flops_after: int
    races: tuple[Race, ...]
    predicted: tuple[tuple[int, float], ...] = ()


def run_layers(
    model: nn.Module,
    small: nn.Module,
    pairs: Mapping[str, tuple[nn.Module, nn.Module]],
    timed: set[str],
    inputs: Any,
    batches: tuple[int, ...],
    device: torch.device,
    progress: Progress,
) -> dict[str, LayerRun]:
    """A LayerRun for every (dense, compressed) pair that the inputs reach; those in `timed` are raced at every batch size.

    The pairs are run from hooks in the middle of the dense model's own run: no layer's input has to be kept.
    """
    counted: dict[str, dict[Any, tuple[int, int]]] = {name: {} for name in pairs}
    calls: dict[str, list[Any]] = {}
    races: dict[str, list[Race]] = {name: [] for name in pairs}
    is_busy = False

    def hook(name: str, batch: int) -> Any:
        old, new = pairs[name]

        def measure(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal is_busy
            if is_busy:
                return
            shapes = tuple(tuple(one.shape) for one in tensors_in((args, kwargs)))
            calls.setdefault(name, []).append(shapes)
            is_first = len(calls[name]) == 1
            is_busy = True
            try:
                runs = (lambda: old.forward(*args, **kwargs)), (lambda: new.forward(*args, **kwargs))
                if batch == batches[-1] and shapes not in counted[name]:
                    counted[name][shapes] = count_flops(runs[0]), count_flops(runs[1])
                if is_first and name in timed:
                    races[name].append(race(*runs, batch, device, LAYER_SECONDS))
            finally:
                is_busy = False
            if is_first:
                progress(f"layers at batch {batch}", len(calls), len(pairs))

        return measure

    for batch in batches:
        calls.clear()
        handles = [old.register_forward_pre_hook(hook(name, batch), with_kwargs=True) for name, (old, _) in pairs.items()]
        try:
            samples = first_samples(inputs, batch)
            with probing(model), probing(small), without_fast_path():
                call(model, samples)
        finally:
            for handle in handles:
                handle.remove()
    totals = {name: [sum(both) for both in zip(*(counted[name][shapes] for shapes in calls[name]), strict=True)] for name in calls}
    return {name: LayerRun(before // batches[-1], after // batches[-1], tuple(races[name])) for name, (before, after) in totals.items()}
