"""What a layer's error costs the model: measured, by running the model with one layer approximated at a time.

The loss is the divergence between the outputs with and without the approximation. It grows with the squared error of the
layer's outputs, so one run for each layer gives the factor; equal factors for all layers put errors where they hurt most.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.decompose import decompose
from tenfold.loss import first_tensor, logits_of, predictions, tensors_of
from tenfold.progress import Progress, silent
from tenfold.ranks.candidates import Candidate, grouped, joint_error
from tenfold.running import call, probing
from tenfold.solvers.whitening import Whitening, output_mean
from tenfold.survey import Found

PROBE_ERROR = 0.05  # squared relative error of the probe: large enough to be seen in the outputs, small enough to stay in proportion
FAR_ERROR = 0.3  # of a second probe: what hardly matters while it is small may cost far more than in proportion when it is not
POWERS = (0.7, 3.0)  # of the squared error beyond the first probe, at least and at most
PROBE_SWEEPS = 40
LEAST = 1e-12  # squared relative errors and divergences below are those of rounding
PROBE_STEPS = 8  # of the exact fit: its gain differs between layers by a factor of several, and most of it comes early


@dataclass(frozen=True)
class Effect:
    """What one layer's error costs, from two probes.

    loss: divergence of the model's outputs for each unit of the layer's squared relative error, up to `knee`.
    scale: that error for each unit of what candidates name, who know it for a Kronecker approximation only.
    knee, power: beyond this squared error the loss grows with this power of it.
    """

    loss: float
    scale: float = 1.0
    knee: float = math.inf
    power: float = 1.0

    def loss_of(self, error: float) -> float:
        """The divergence that a squared relative error costs.

        >>> round(Effect(2.0, knee=0.1, power=2.0).loss_of(0.3), 6)
        1.8
        """
        if error <= self.knee:
            return self.loss * error
        return self.loss * self.knee * (error / self.knee) ** self.power


def effects(
    model: nn.Module,
    layers: Sequence[tuple[Found, Sequence[Candidate], Whitening | None]],
    batch: tuple[Any, Any],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Effect]:
    """What the error of each layer costs the model, which is as before afterwards.

    Args:
        batch: inputs, as the model takes them, and targets, None where there are none: they tell classes from values, see `divergence`.

    Raises:
        ValueError: an output is not finite.
    """
    result = []
    with probing(model):
        reference = call(model, batch[0])
        if math.isnan(divergence(reference, reference, batch[1])):
            raise ValueError(
                f"{type(model).__name__} has outputs that are NaN or infinite for the calibration data; what a layer's error costs is seen "
                "in finite ones: check the weights, and that the data are normalised as the model expects"
            )
        for number, (layer, offers, metric) in enumerate(layers):
            progress("probing layers", number, len(layers))
            result.append(_effect(model, layer, offers, metric, batch, reference, seed) if offers else Effect(0.0))
    progress("probing layers", len(layers), len(layers))
    # a layer that this batch did not reach is taken for an average one, not for one that does not matter
    average = statistics.median([effect.loss for effect in result if effect.loss > 0] or [1.0])
    return [effect if effect.loss > 0 else replace(effect, loss=average) for effect in result]


def _effect(
    model: nn.Module, layer: Found, offers: Sequence[Candidate], metric: Whitening | None, batch: tuple[Any, Any], reference: Any, seed: int
) -> Effect:
    near, far = (min(offers, key=lambda one: abs(one.error - error)) for error in (PROBE_ERROR, FAR_ERROR))
    planned, real, loss = _probe(model, layer, near, metric, batch, reference, seed)
    effect = Effect(loss / real if loss > LEAST else 0.0, min(max(real / planned, 1e-3), 1e3))
    if far.error < 2 * near.error or loss <= LEAST:
        return effect
    _, real_far, loss_far = _probe(model, layer, far, metric, batch, reference, seed)
    if real_far <= real or loss_far <= 0:
        return effect
    power = math.log(loss_far / loss) / math.log(real_far / real)
    return replace(effect, knee=real, power=min(max(power, POWERS[0]), POWERS[1]))


def _probe(
    model: nn.Module, layer: Found, offer: Candidate, metric: Whitening | None, batch: tuple[Any, Any], reference: Any, seed: int
) -> tuple[float, float, float]:
    """The squared relative error of a layer as a candidate names it, that of its outputs, and the divergence with it in the model."""
    assert offer.format is not None and offer.fold is not None
    if offer.fold.axis("i").padding:
        metric = None
    weight: Any = layer.module.weight
    network = offer.format.network(offer.fold)
    made = decompose(
        [weight], offer.fold, network, offer.format, names=[layer.name], whitenings=[metric],
        sweeps=PROBE_SWEEPS, seed=seed, warn=False, fit_steps=PROBE_STEPS, correct=False,
    )[0]  # fmt: skip
    kept, other = weight.detach().clone(), made.weight.dense()
    handle = layer.module.register_forward_hook(_without_shift(metric, other - kept))
    try:
        weight.copy_(other)
        output = call(model, batch[0])
    finally:
        weight.copy_(kept)
        handle.remove()
    planned = joint_error(made.solution.errors.square(), grouped(layer, offer.fold, network, metric))
    real = made.error_of(metric, kept) ** 2
    return max(planned, LEAST), max(real, LEAST), divergence(reference, output, batch[1])


def _without_shift(metric: Whitening | None, change: Tensor) -> Any:
    """A hook that takes the mean that a change of the weight adds from a layer's outputs, where `compress` will correct it too."""

    def correct(_: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        if metric is None or metric.mean is None or not metric.is_mean_free:
            return None
        shift = output_mean(change, metric.mean).to(output)
        return output - shift.reshape(-1, *[1] * (change.dim() - 2))

    return correct


def divergence(reference: Any, output: Any, targets: Any = None) -> float:
    """What a model's outputs lose, from outputs as the model gives them; of several tensors the sum.

    Where they have classes the Kullback-Leibler divergence of the probabilities, in nats for each prediction; else the squared error
    relative to the reference's square, as a softmax of values means nothing. They have classes where the targets are classes that fit
    the first tensor, and where the model calls them "logits".

    Raises:
        TypeError: there is no tensor of predictions.
        ValueError: the shape of an output depends on the weights, as that of detections does.
    """
    first_tensor(reference)  # says what is needed where there is none
    wanted, got = predictions(reference, targets), tensors_of(output)
    if (shapes := [tuple(one.tensor.shape) for one in wanted]) != (found := [tuple(one.shape) for one in got]):
        raise ValueError(
            f"the outputs have the shapes {found} with a layer approximated, and {shapes} without; what an error costs is seen in outputs "
            "of the same shape: wrap the model in a module that returns its predictions before they are selected"
        )
    total = 0.0
    for one, after in zip(wanted, got, strict=True):
        before, after = one.tensor.double(), after.double()
        if one.kind == "classes":
            p, q = (F.log_softmax(logits_of(scores, one.labels), -1) for scores in (before, after))
            total += float(torch.where(p.exp() > 0, p.exp() * (p - q), 0.0).sum(-1).mean().clamp_min(0))
        else:
            total += float((before - after).square().sum() / before.square().sum().clamp_min(1e-300))
    return total
