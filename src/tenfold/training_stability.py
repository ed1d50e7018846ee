"""Stability in training: a penalty that keeps factors from growing against each other, and learning rates that they stand.

Gradient descent is free to make factors degenerate again: terms that cancel each other leave the loss as it is. The penalty is the
sensitivity of each weight relative to what it was at the start. The step that a weight W(factors) takes for a gradient is that of a
dense weight times J J' of the map from factors to W, so a rate that suits the dense model is divided by the largest eigenvalue.

Source: arXiv 2008.05441 (sensitivity); the bound follows from W(f - rate J'g) = W - rate J J'g to first order.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tenfold.decompose import batched_factors
from tenfold.solvers.sensitivity import largest_eigenvalue, sensitivity
from tenfold.weight import FactorizedWeight

ITERATIONS = 25  # of the power iteration


class SensitivityPenalty:
    """The mean over the factorised weights of their sensitivity / that at the start; 1 at the start, and differentiable.

    Raises:
        ValueError: the model has no factorised weight.
    """

    def __init__(self, model: nn.Module) -> None:
        self._weights = [weight for weight in _weights(model).values() if sum(p.requires_grad for p in weight.factors)]
        if not self._weights:
            raise ValueError(
                f"{type(model).__name__} has no factorised weight to train, so there is no sensitivity; "
                "compress the model first, or leave sensitivity_weight at 0"
            )
        with torch.no_grad():
            self._start = [_sensitivity(weight).clamp_min(1e-30) for weight in self._weights]

    def __call__(self) -> Tensor:
        return torch.stack([_sensitivity(weight) / one for weight, one in zip(self._weights, self._start, strict=True)]).mean()

    @property
    def start(self) -> list[float]:
        """The sensitivities at the start, which a resumed run needs."""
        return [float(one) for one in self._start]

    @start.setter
    def start(self, values: list[float]) -> None:
        self._start = [torch.as_tensor(value).to(one) for value, one in zip(values, self._start, strict=True)]


def stable_scales(model: nn.Module) -> Mapping[nn.Parameter, float]:
    """For every factor the part, at most 1, of a dense model's learning rate that its weight stands: 1 / the largest eigenvalue of J'J."""
    scales: dict[nn.Parameter, float] = {}
    for weight in _weights(model).values():
        network, factors = batched_factors(weight, torch.float64)
        with torch.no_grad():
            value = float(largest_eigenvalue(network, [one.detach() for one in factors], iterations=ITERATIONS, tolerance=1e-2).amax())
        scales |= dict.fromkeys(weight.factors.parameters(), min(1.0, 1.0 / value) if value > 0 else 1.0)
    return scales


def _sensitivity(weight: FactorizedWeight) -> Tensor:
    return sensitivity(*batched_factors(weight)).sum()


def _weights(model: nn.Module) -> dict[str, FactorizedWeight]:
    return {name: module for name, module in model.named_modules() if isinstance(module, FactorizedWeight)}
