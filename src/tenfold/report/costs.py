"""What both models cost, as wholes and layer by layer: FLOP and time on an example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tenfold.flops import count_flops, model_flops, without_fast_path
from tenfold.layers.base import FactorizedLayer
from tenfold.progress import Progress
from tenfold.report.measure import Race, first_samples, race, race_models
from tenfold.report.pairs import Pair
from tenfold.running import batch_size, call, probing
from tenfold.survey import survey
from tenfold.trace import trace

LARGE_BATCH = 32
LAYER_SECONDS = 0.06


@dataclass(frozen=True)
class LayerRun:
    """One layer on the inputs that it gets inside the dense model: FLOP for one sample over all its calls, and times of its first call.

    predicted: by batch size, the speed-up that the machine model of contractions predicts for all its calls on a CPU.
    """

    flops_before: int
    flops_after: int
    races: tuple[Race, ...]
    predicted: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Costs:
    """FLOP for one sample, counted at `batch`; times at each batch size; and the same for every layer that the example reaches."""

    batch: int
    flops_before: int
    flops_after: int
    races: tuple[Race, ...]
    layers: dict[str, LayerRun]


def measure_costs(
    model: nn.Module,
    small: nn.Module,
    views: tuple[nn.Module, nn.Module],
    pairs: Sequence[Pair],
    inputs: Any,
    device: torch.device,
    latency: bool,
    progress: Progress,
) -> Costs:
    """FLOP, and where `latency` is set times, on the first sample of the inputs and on up to LARGE_BATCH of them.

    `views` are the two models as the layers of the pairs stand in them.
    """
    large = max(1, min(LARGE_BATCH, batch_size(inputs)))
    sizes = tuple(dict.fromkeys((1, large))) if latency else (large,)
    samples = first_samples(inputs, large)
    progress("counting FLOP", 0, 1)
    flops = model_flops(model, samples), model_flops(small, samples)
    progress("counting FLOP", 1, 1)
    timed = {pair.name for pair in pairs if pair.is_factorized} if latency else set()
    both = {pair.name: (pair.dense, pair.small) for pair in pairs}
    layers = run_layers(*views, both, timed, inputs, sizes, device, progress)
    predicted = _predicted(views[0], pairs, samples, sizes)
    layers = {name: replace(run, predicted=predicted.get(name, ())) for name, run in layers.items()}
    races = []
    for number, batch in enumerate(sizes if latency else ()):
        progress("timing the models", number, len(sizes))
        races.append(race_models(model, small, inputs, batch, device))
    progress("timing the models", len(races), len(races))
    return Costs(large, *flops, tuple(races), layers)


def _predicted(model: nn.Module, pairs: Sequence[Pair], samples: Any, batches: tuple[int, ...]) -> dict[str, tuple[tuple[int, float], ...]]:
    """The predicted speed-ups of the compressed layers."""
    small = {pair.name: pair.small.factorized.network for pair in pairs if isinstance(pair.small, FactorizedLayer)}
    found = [one for one in survey(model) if one.name in small and one.layer is not None]
    steps = trace(model, samples, found)
    result = {}
    for one in found:
        if (load := steps.workload(one)) is not None:
            speedups = [(batch, load.speedup(small[one.name], batch)) for batch in batches]
            result[one.name] = tuple((batch, speedup) for batch, speedup in speedups if speedup is not None)
    return result


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
    flops: dict[str, tuple[int, int]] = {}
    calls: dict[str, int] = {}
    races: dict[str, list[Race]] = {name: [] for name in pairs}
    is_busy = False

    def hook(name: str, batch: int) -> Any:
        old, new = pairs[name]

        def measure(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal is_busy
            if is_busy:
                return
            calls[name] = calls.get(name, 0) + 1
            if calls[name] > 1:
                return
            is_busy = True
            try:
                runs = (lambda: old.forward(*args, **kwargs)), (lambda: new.forward(*args, **kwargs))
                if batch == batches[-1]:
                    flops[name] = count_flops(runs[0]), count_flops(runs[1])
                if name in timed:
                    races[name].append(race(*runs, batch, device, LAYER_SECONDS))
            finally:
                is_busy = False
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
    return {
        name: LayerRun(before * calls[name] // batches[-1], after * calls[name] // batches[-1], tuple(races[name]))
        for name, (before, after) in flops.items()
    }
