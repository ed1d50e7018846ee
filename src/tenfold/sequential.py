"""Layers that are calibrated in the order in which the model calls them, on the inputs that they get from layers already compressed.

The target of a layer is what its dense twin computes from dense inputs. With x the dense inputs and y those of the compressed model,
the best weight is V = W E[x y'] E[y y']^-1; it is V that is approximated, in the metric E[y y']. So a layer also corrects what went wrong
before it. Layers are taken in a few groups, each with one run of both models over the data: what two layers of one group do to each
other is not corrected.

Source: arXiv 2604.02119 (outputs of the original model as the target on shifted inputs) and arXiv 2403.07378 (layer after layer), there for
matrices of language models. Deviations: any format and convolutions, a pull towards W, and groups of layers.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.calibrate import CALIBRATION, MatchedNorms, Reached, inputs_of
from tenfold.patches import is_transposed
from tenfold.progress import Progress
from tenfold.running import probing, run_on
from tenfold.second_moments import Sums, finite_rows, has_whole_moment
from tenfold.solvers.whitening import Whitening, output_mean
from tenfold.survey import Found

STAGES = 8  # groups of layers; each costs a run of both models
SAMPLES = 1024  # of the data for each group
PULL = 1e-2  # towards the dense weight, relative to the mean eigenvalue of E[y y']: directions that few inputs show stay as they are


@dataclass(frozen=True)
class Goal:
    """What a layer is fitted to: a weight in torch's shape, the metric of its inputs, and the mean of the dense outputs (out,).

    mean_output is without the bias, None where no mean is known.
    """

    weight: Tensor
    metric: Whitening | None = None
    mean_output: Tensor | None = None

    @classmethod
    def of_dense(cls, found: Found, metric: Whitening | None) -> "Goal":
        """The dense layer on dense inputs."""
        weight: Any = found.module.weight
        if metric is None or metric.mean is None:
            return cls(weight.detach(), metric)
        return cls(weight.detach(), metric, output_mean(weight.detach(), metric.mean))


def call_order(model: nn.Module, layers: Sequence[Found], inputs: Any) -> list[str]:
    """The names of layers in the order of their calls in one run; once for each call."""
    order: list[str] = []
    handles = [one.module.register_forward_pre_hook(lambda *_, name=one.name: order.append(name)) for one in layers]
    try:
        with probing(model):
            run_on(model, inputs, CALIBRATION)
    finally:
        for handle in handles:
            handle.remove()
    return order


def stages(order: Sequence[str], layers: Sequence[Found], count: int = STAGES) -> list[list[Found]]:
    """The layers in groups of about equal size, by first call; those that are never called come with the last group."""
    first = {name: number for number, name in reversed(list(enumerate(order)))}
    ordered = sorted(layers, key=lambda one: first.get(one.name, len(order)))
    count = min(count, len(ordered))
    return [ordered[k * len(ordered) // count : (k + 1) * len(ordered) // count] for k in range(count)]


class PairedInputs:
    """A context in which `run` gives inputs to a dense model and to one that is compressed in part, and sums up what layers get in both."""

    def __init__(self, dense: Mapping[str, nn.Module], partly: Mapping[str, nn.Module], order: Sequence[str], norms: MatchedNorms) -> None:
        self._modules = {name: (dense[name], partly[name]) for name in dense}
        self._norms = norms
        self._calls = sum(name in self._modules for name in order)
        self._left = 0
        self._rows: dict[str, list[Tensor]] = {}
        self.products: dict[str, tuple[Sums, Sums]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "PairedInputs":
        for name, pair in self._modules.items():
            for module, is_dense in zip(pair, (True, False), strict=True):
                self._handles.append(module.register_forward_pre_hook(self._hook(name, is_dense), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def run(self, inputs: Any) -> None:
        """Runs both models on one batch, no further than the last of the layers."""
        self._rows.clear()
        self._norms.begin()
        for model in self._norms.models:
            self._left = self._calls
            with contextlib.suppress(Reached):
                run_on(model, inputs, CALIBRATION)

    def _hook(self, name: str, is_dense: bool) -> Any:
        def see(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            found = finite_rows(name, module, (*arguments, *keywords.values()))
            waiting = self._rows.setdefault(name, [])
            if is_dense and found is not None:
                waiting.append(found[0])
            elif found is not None and waiting and waiting[0].shape == found[0].shape:
                rows, count = found
                own, cross = self.products.setdefault(name, (Sums(), Sums()))
                own.add(rows, rows, count)
                cross.add(waiting.pop(0), rows, count)
            self._left -= 1
            if self._left == 0:
                raise Reached

        return see

    def goal(self, found: Found, is_mean_free: bool) -> Goal:
        """What a layer is fitted to; the dense weight without a metric where no input reached it."""
        weight: Any = found.module.weight
        if found.name not in self.products:
            return Goal(weight.detach())
        own, cross = self.products[found.name]
        dense_mean, mean = cross.means
        metric = Whitening(own.moment, mean, is_mean_free)
        crossed = cross.moment
        if is_mean_free:
            crossed = crossed - dense_mean[..., :, None] * mean[..., None, :]
        w = weight.detach().double().reshape(len(mean), -1, mean.shape[-1])
        pull = PULL * metric.metric.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        is_seen = pull > 0  # inputs that never vary tell nothing, and what is left of their products is rounding
        crossed, pull = torch.where(is_seen, crossed, 0.0), torch.where(is_seen, pull, 1.0)
        matrix = metric.metric + pull * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        best = torch.linalg.solve(matrix, (w @ crossed + pull * w).mT).mT
        metric = replace(metric, rows=own.rows)
        return Goal(best.reshape(weight.shape).to(weight.dtype), metric, output_mean(weight.detach(), dense_mean))


def paired_goals(
    stage: Sequence[Found], dense: nn.Module, partly: nn.Module, modules: Mapping[str, nn.Module], order: Sequence[str], data: Any,
    moments: Mapping[str, Whitening], progress: Progress,
) -> dict[str, Goal]:  # fmt: skip
    """What the layers of a stage are fitted to, by name.

    Args:
        modules: those of the model that is compressed in part, by name.
        moments: of the inputs in the dense model; they know whether the mean of a layer's outputs is free.
    """
    usable = [one for one in stage if has_whole_moment(one) and not is_transposed(one.module) and one.name in order]
    goals = {one.name: Goal.of_dense(one, moments.get(one.name)) for one in stage}
    if not usable:
        return goals
    twins = {one.name: one.module for one in usable}
    with (
        MatchedNorms(partly, dense) as norms,
        PairedInputs(twins, {name: modules[name] for name in twins}, order, norms) as paired,
        probing(dense),
        probing(partly),
    ):
        for inputs in inputs_of(data, SAMPLES, "reading inputs", progress):
            paired.run(inputs)
    return goals | {one.name: paired.goal(one, one.name in moments and moments[one.name].is_mean_free) for one in usable}
