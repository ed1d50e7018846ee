"""What both models cost, as wholes and layer by layer: FLOP and time on an example."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from tenfold.flops import model_flops
from tenfold.layers.base import FactorizedLayer
from tenfold.progress import Progress
from tenfold.report.pairs import Pair
from tenfold.running import EXAMPLES, batch_size, first_samples
from tenfold.survey import survey
from tenfold.timing import LayerRun, Race, race_models, run_layers
from tenfold.trace import trace


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
    """FLOP, and where `latency` is set times, on the first sample of the inputs and on up to EXAMPLES of them.

    `views` are the two models as the layers of the pairs stand in them.
    """
    large = max(1, min(EXAMPLES, batch_size(inputs)))
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
