"""What real inputs tell: second moments of the inputs of every layer, and BatchNorm statistics of a changed model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.batches import as_batch, batches
from tenfold.progress import Progress, silent
from tenfold.running import batch_size, first_samples, probing, run_on
from tenfold.second_moments import InputMoments as InputMoments
from tenfold.second_moments import batch_norms
from tenfold.solvers.whitening import Whitening
from tenfold.survey import Found

MOMENT_SAMPLES = 2048  # second moments of inputs settle early
NORM_SAMPLES = 4096
MATCHED_SAMPLES = 1024  # fewer do where both models see the same ones
BATCH_SIZE = 64
CALIBRATION = "calibration data"  # as errors call them
LEAST_VARIANCE = 1e-4  # of the running variance, added to both variances of a ratio
FEW_ROWS = 8  # the variances of fewer may be anything: so many rows give the ratio as much weight as no change


def input_moments(model: nn.Module, layers: Sequence[Found], data: Any, *, progress: Progress = silent) -> dict[str, Whitening]:
    """Second moments of the inputs of every layer, from at most MOMENT_SAMPLES samples of the data.

    Raises:
        ValueError: the data are empty, or an input is not finite.
    """
    with InputMoments(model, layers) as moments, probing(model):
        for inputs in inputs_of(data, MOMENT_SAMPLES, "reading inputs", progress):
            run_on(model, inputs, CALIBRATION)
    return moments.moments


def reestimate_norms(model: nn.Module, data: Any, *, reference: nn.Module | None = None, progress: Progress = silent) -> int:
    """Recomputes the running statistics of every BatchNorm from the data; returns how many there are.

    The statistics belong to the activations of the model as it was; those of a compressed model have moved. Where an error ends the runs,
    the model keeps those that it had.

    Args:
        reference: the model before compression. Its statistics, which may come from other data or from augmented ones, are then moved by
            as much as the activations moved, instead of being replaced by those of `data`: a model that has not changed keeps its own.
            At most MATCHED_SAMPLES are read then, else NORM_SAMPLES.
    """
    norms = batch_norms(model)
    if not norms:
        return 0
    if reference is not None:
        with MatchedNorms(model, reference) as matched, probing(reference), probing(model):
            for inputs in inputs_of(data, MATCHED_SAMPLES, "re-estimating BatchNorm", progress):
                matched.run(inputs)
        return len(norms)
    momenta = {name: norm.momentum for name, norm in norms.items()}
    saved = [(buffer, buffer.detach().clone()) for norm in norms.values() for buffer in norm.buffers()]
    try:
        with probing(model, learning=norms.values()):
            for norm in norms.values():
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative average: every batch counts the same
                norm.training = True
            largest = 0
            for inputs in inputs_of(data, NORM_SAMPLES, "re-estimating BatchNorm", progress):
                largest = max(largest, batch_size(inputs))
                if batch_size(inputs) > largest // 2:  # a small last batch would count as much as the others; one sample has no variance
                    run_on(model, inputs, CALIBRATION)
    except BaseException:
        with torch.no_grad():
            for buffer, values in saved:
                buffer.copy_(values)
        raise
    finally:
        for name, norm in norms.items():
            norm.momentum = momenta[name]
    return len(norms)


class Reached(Exception):
    """Raised by a hook where the rest of a model need not run."""


class MatchedNorms:
    """A context in which the BatchNorms of a model correct for what changed since a reference model; they keep the average at its end.

    `run` gives the same inputs to both. Each BatchNorm's statistics are then those of its twin, scaled and moved as the variances and
    means of their inputs are, over all batches so far: a layer before it that only scales and shifts its outputs changes nothing after
    it, whatever the size of the batches. A BatchNorm that no input reached keeps what it has, and so do all where the context ends with
    an error.
    """

    def __init__(self, model: nn.Module, reference: nn.Module) -> None:
        theirs = batch_norms(reference)
        self.models = (reference, model)
        self._pairs = {
            name: (norm, theirs[name])
            for name, norm in batch_norms(model).items()
            if name in theirs and theirs[name].num_features == norm.num_features
        }
        self._own = {name: (norm.running_mean, norm.running_var) for name, (norm, _) in self._pairs.items()}
        self._seen: dict[str, list[_Rows]] = {}
        self._sums: dict[str, tuple[_Rows, _Rows]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "MatchedNorms":
        for name, (norm, other) in self._pairs.items():
            self._handles.append(other.register_forward_pre_hook(self._see(name)))
            self._handles.append(norm.register_forward_pre_hook(self._match(name)))
        return self

    def begin(self) -> None:
        """Forgets the last batch."""
        self._seen.clear()

    def run(self, inputs: Any) -> None:
        """Runs both models on one batch."""
        self.begin()
        for model in self.models:
            run_on(model, inputs, CALIBRATION)

    def _see(self, name: str) -> Any:
        def see(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            self._seen.setdefault(name, []).append(_Rows.of(arguments[0]))

        return see

    def _match(self, name: str) -> Any:
        def match(norm: Any, arguments: tuple[Any, ...]) -> None:
            if not self._seen.get(name):
                return
            rows = (_Rows.of(arguments[0]), self._seen[name].pop(0))
            if name in self._sums:
                rows = (self._sums[name][0].joined(rows[0]), self._sums[name][1].joined(rows[1]))
            self._sums[name] = rows
            norm.running_mean, norm.running_var = self._matched(name, (FEW_ROWS / rows[1].count) ** 2)

        return match

    def _matched(self, name: str, share: float = 0.0) -> tuple[Tensor, Tensor]:
        """The running mean and variance of a norm from the rows so far, drawn towards no change by a share of the twin's variance."""
        (own, old), (_, other) = self._sums[name], self._pairs[name]
        # a channel that hardly varies in these data tells nothing of the ratio
        least = ((LEAST_VARIANCE + share) * other.running_var.double()).clamp_min(1e-300)
        ratio = (own.variance + least) / (old.variance + least)
        mean = own.mean + (other.running_mean.double() - old.mean) * ratio.sqrt()
        return mean.to(other.running_mean), (other.running_var.double() * ratio).to(other.running_var)

    def __exit__(self, error: object, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        with torch.no_grad():
            for name, (norm, _) in self._pairs.items():
                norm.running_mean, norm.running_var = self._own[name]
                if error is None and name in self._sums:
                    mean, variance = self._matched(name)
                    norm.running_mean.copy_(mean)
                    norm.running_var.copy_(variance)


@dataclass(frozen=True)
class _Rows:
    """How many rows of channels there are, and their means and variances (channels,) in float64."""

    count: int
    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "_Rows":
        """Those of (N, channels, ..)."""
        rows = x.detach().double().movedim(1, 0).flatten(1)
        return cls(rows.shape[1], rows.mean(1), rows.var(1, unbiased=False))

    def joined(self, other: "_Rows") -> "_Rows":
        """Those of both. Source: Chan, Golub, LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances."""
        count = self.count + other.count
        share = other.count / count
        moved = other.mean - self.mean
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * moved.square()
        return _Rows(count, self.mean + share * moved, variance)


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


def inputs_of(data: Any, samples: int, what: str, progress: Progress) -> Iterable[Any]:
    """The inputs of batches, up to a number of samples; spread over a data set whose order may be sorted.

    Raises:
        TypeError: samples are not tensors yet.
    """
    seen = 0
    generator = torch.Generator().manual_seed(0)
    for inputs, _ in batches(data, BATCH_SIZE, shuffle=True, generator=generator, what=CALIBRATION):
        yield inputs
        seen += batch_size(inputs)
        progress(what, min(seen, samples), samples)
        if seen >= samples:
            return
    progress(what, samples, samples)


def calibration_batch(data: Any, size: int = BATCH_SIZE) -> Any:
    """The inputs of one batch of at most `size` samples, drawn from all over the data."""
    return calibration_pair(data, size)[0]


def calibration_pair(data: Any, size: int = BATCH_SIZE, what: str = CALIBRATION) -> tuple[Any, Any]:
    """(inputs, targets) of that batch; targets are None where the data have none. `what` is what an error calls the data."""
    inputs, targets = next(batches(data, size, shuffle=True, generator=torch.Generator().manual_seed(0), what=what))
    return first_samples(inputs, size), first_samples(targets, size)
