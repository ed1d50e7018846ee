"""What real inputs tell: second moments of the inputs of every layer, and BatchNorm statistics of a changed model."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.batches import as_batch, batches
from tenfold.progress import Progress, silent
from tenfold.solvers.whitening import Whitening
from tenfold.survey import Found, batch_size, call, first_tensor, probing

MOMENT_SAMPLES = 2048  # second moments of inputs settle early
NORM_SAMPLES = 4096
BATCH_SIZE = 64
ROWS_LIMIT = 4096  # patches of a layer that one batch contributes; more add cost and hardly information
SIZE_LIMIT = 4608  # values in a patch above which no moment is kept: 4608^2 doubles are 170 MB


class InputMoments:
    """Forward hooks that accumulate the second moment of each layer's inputs in float64, streaming over any number of samples.

    Use as a context; `moments` are then a mapping from layer names to `Whitening`. For a convolution the inputs are its patches.
    """

    def __init__(self, layers: Sequence[Found]) -> None:
        self._layers = [one for one in layers if one.layer is not None and _patch_size(one.module) is not None]
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "InputMoments":
        for one in self._layers:
            self._handles.append(one.module.register_forward_pre_hook(self._hook(one.name), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Any:
        def accumulate(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if (first := first_tensor((*arguments, *keywords.values()))) is None or not first.numel():
                return
            rows = _patches(module, first.detach())
            if not bool(torch.isfinite(rows).all()):
                raise ValueError(
                    f"the inputs of {name} have values that are NaN or infinite; calibration needs finite ones: "
                    "check that the data are normalised as the model expects"
                )
            moment = (rows.mT @ rows).double()
            self._sums[name] = self._sums[name] + moment if name in self._sums else moment
            self._counts[name] = self._counts.get(name, 0) + rows.shape[1]

        return accumulate

    @property
    def moments(self) -> dict[str, Whitening]:
        """The second moments by layer name; a layer that no input reached has none."""
        return {name: Whitening(total / self._counts[name]) for name, total in self._sums.items()}


def input_moments(
    model: nn.Module, layers: Sequence[Found], data: Any, *, samples: int = MOMENT_SAMPLES, progress: Progress = silent
) -> dict[str, Whitening]:
    """Second moments of the inputs of every layer, from at most `samples` samples of the data.

    Raises:
        ValueError: the data are empty, or an input is not finite.
    """
    with InputMoments(layers) as moments, probing(model):
        for inputs in _inputs(data, samples, "reading inputs", progress):
            call(model, inputs)
    return moments.moments


def reestimate_norms(model: nn.Module, data: Any, *, samples: int = NORM_SAMPLES, progress: Progress = silent) -> int:
    """Recomputes the running statistics of every BatchNorm from at most `samples` samples; returns how many there are.

    The statistics belong to the activations of the model as it was; those of a compressed model have moved.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    try:
        with probing(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative average: every batch counts the same
                norm.training = True
            largest = 0
            for inputs in _inputs(data, samples, "re-estimating BatchNorm", progress):
                largest = max(largest, batch_size(inputs))
                if batch_size(inputs) > largest // 2:  # a small last batch would count as much as the others; one sample has no variance
                    call(model, inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)


def rereadable(data: Any) -> Any:
    """The data, or a list of their first batches where they can be read only once, as a generator."""
    if not isinstance(data, Iterator):
        return data
    kept, seen = [], 0
    for batch in data:
        kept.append(batch)
        seen += batch_size(as_batch(batch)[0])
        if seen >= NORM_SAMPLES:
            break
    return kept


def _inputs(data: Any, samples: int, what: str, progress: Progress) -> Iterable[Any]:
    """The inputs of batches, up to a number of samples; spread over a data set whose order may be sorted."""
    seen = 0
    generator = torch.Generator().manual_seed(0)
    for inputs, _ in batches(data, BATCH_SIZE, shuffle=True, generator=generator):
        yield inputs
        seen += batch_size(inputs)
        progress(what, min(seen, samples), samples)
        if seen >= samples:
            return
    progress(what, samples, samples)


def _patch_size(module: nn.Module) -> int | None:
    """The number of values that one row of the weight meets, or None where a second moment makes no sense or is too large."""
    if isinstance(module, nn.Linear):
        size = module.in_features
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        size = module.weight[0].numel()
    else:
        return None
    return size if size <= SIZE_LIMIT else None


def _patches(module: nn.Module, x: Tensor) -> Tensor:
    """(groups, rows, in x kernel): what the weight is multiplied with, a spread of at most ROWS_LIMIT rows."""
    x = x if x.dtype == torch.float64 else x.float()
    if isinstance(module, nn.Linear):
        rows = x.reshape(-1, x.shape[-1])
        return rows[:: max(1, len(rows) // ROWS_LIMIT)][None]
    layer: Any = module
    n_spatial = len(layer.kernel_size)
    if x.dim() == n_spatial + 1:
        x = x[None]
    if layer.padding_mode != "zeros":
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
    elif any(layer._reversed_padding_repeated_twice):
        x = F.pad(x, layer._reversed_padding_repeated_twice)
    for axis, (kernel, stride, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), 2):
        x = x.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    places = x.shape[2 : 2 + n_spatial].numel() * x.shape[0]
    # (N, C, *places, *kernel) -> (*places, N, C, *kernel), thinned before it is copied
    x = x.permute(0, *range(2, 2 + n_spatial), 1, *range(2 + n_spatial, 2 + 2 * n_spatial))
    sizes = x.shape[1 : 1 + n_spatial]
    step = max(1, places // ROWS_LIMIT)
    while math.gcd(step, sizes[-1]) > 1:  # every column is met, borders as often as they are there
        step += 1
    if step > 1:
        x = x[(slice(None), *torch.unravel_index(torch.arange(0, sizes.numel(), step, device=x.device), sizes))]
    channels = layer.in_channels // layer.groups
    return x.reshape(-1, layer.groups, channels * layer.weight[0, 0].numel()).movedim(1, 0)


def calibration_batch(data: Any, size: int = BATCH_SIZE) -> Any:
    """The inputs of one batch of at most `size` samples, drawn from all over the data."""
    inputs, _ = next(iter(batches(data, size, shuffle=True, generator=torch.Generator().manual_seed(0))))
    if isinstance(inputs, Mapping):
        return {name: _first(value, size) for name, value in inputs.items()}
    return tuple(_first(value, size) for value in inputs) if isinstance(inputs, tuple | list) else _first(inputs, size)


def _first(value: Any, size: int) -> Any:
    return value[:size] if isinstance(value, Tensor) and value.dim() else value
