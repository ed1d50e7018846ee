"""What one run of a model on an example does in every layer: the shapes of its calls and the FLOP of one sample."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tenfold.flops import flop_counter
from tenfold.layers.base import FactorizedLayer, Workload
from tenfold.network import Network
from tenfold.running import batch_size, first_argument, probing, run_on
from tenfold.survey import Found

EXAMPLE = "example inputs"


@dataclass(frozen=True)
class Workloads:
    """What a layer does for one sample in all its calls: (what one of them does, how many do the same)."""

    loads: tuple[tuple[Workload, int], ...]

    @property
    def dense_flops(self) -> int:
        """FLOP of the dense layer."""
        return round(sum(load.dense_flops * count for load, count in self.loads))

    def flops(self, network: Network) -> int:
        """FLOP of the layer with a factorised weight, in eval."""
        return round(sum(load.flops(network) * count for load, count in self.loads))

    def speedup(self, network: Network, batch: int) -> float | None:
        """Predicted seconds of the dense layer / those of the factorised one for a batch, in eval on a CPU; None for lookups."""
        if any(load.is_lookup for load, _ in self.loads):
            return None
        dense = sum(load.dense_seconds(network, batch) * count for load, count in self.loads)
        return dense / sum(load.seconds(network, batch) * count for load, count in self.loads)


@dataclass(frozen=True)
class Trace:
    """What one run of the model on an example did: (input shape, output shape) of every call of every layer, and FLOP a sample."""

    calls: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]]
    flops: int
    batch: int

    def workload(self, found: Found) -> Workloads | None:
        """What a layer does for one sample, over all its calls; None where the example does not reach it, or nothing can stand for it."""
        loads = Counter(self._load(found, inputs, outputs) for inputs, outputs in self.calls.get(found.name, []) if found.layer)
        return Workloads(tuple(loads.items())) if loads else None

    def _load(self, found: Found, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Workload:
        """What a call does, divided by the samples: its first axis may be steps, some rows of all samples, or none at all."""
        assert found.layer is not None
        load = found.layer.workload(found.module, inputs, outputs)
        n_sample_axes = 0 if load.is_lookup else 1 if load.positions is None else 1 + len(load.positions.kernel)
        times = (outputs[0] if len(inputs) > n_sample_axes else 1) / self.batch
        return replace(load, n_rows=load.n_rows * times, dense_flops=load.dense_flops * times)


def trace(model: nn.Module, inputs: Any, layers: Sequence[Found]) -> Trace:
    """Runs the model once in eval mode on an example: a tensor, a tuple of arguments or a mapping of keyword arguments.

    Raises:
        RuntimeError: the model does not take it.
    """
    calls: dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}

    def hook(name: str) -> Any:
        def record(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            first = first_argument((*arguments, *keywords.values()))
            if first is not None and isinstance(output, Tensor):
                calls.setdefault(name, []).append((tuple(first.shape), tuple(output.shape)))

        return record

    with probing(model):
        if any(isinstance(module, FactorizedLayer) for module in model.modules()):
            run_on(model, inputs, EXAMPLE)  # these keep what they make of their factors; the second call is what all later ones cost
        handles = [one.module.register_forward_hook(hook(one.name), with_kwargs=True) for one in layers]
        try:
            with flop_counter() as counter:
                run_on(model, inputs, EXAMPLE)
        finally:
            for handle in handles:
                handle.remove()
    batch = max(1, batch_size(inputs))
    return Trace(calls, counter.get_total_flops() // batch, batch)
