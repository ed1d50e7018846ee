"""Factors with normal entries: a mean and a log variance for each, read as means plus noise that was drawn before."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST = 1e-30  # mean square of a factor of zeros, so that its log variance is finite


class GaussianFactors(nn.ParameterList):
    """Stands for the parameters of a weight: reading an entry gives mean + deviation x noise in training, else the mean.

    The means are the old parameters under their old names, "0", "1", ..; log variances are "log_variances.0", .., and those of a frozen
    factor are frozen. The noise is set from outside, once for each step, and is no part of the state: a forward pass draws nothing and
    changes nothing.

    Args:
        means: the parameters.
        relative_variance: the variances at the start, relative to the mean square of each factor.
    """

    def __init__(self, means: Sequence[nn.Parameter], relative_variance: float) -> None:
        super().__init__(means)
        start = [math.log(relative_variance * max(float(mean.detach().square().mean()), SMALLEST)) for mean in means]
        self.log_variances = nn.ParameterList(
            nn.Parameter(torch.full_like(mean, s), mean.requires_grad) for mean, s in zip(means, start, strict=True)
        )
        self.has_noise = False
        self.is_forced = False
        for number, mean in enumerate(means):
            self.register_buffer(f"noise_{number}", torch.zeros_like(mean), persistent=False)

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return [self[number] for number in range(*idx.indices(len(self)))]
        number = range(len(self))[idx]
        mean = getattr(self, str(number))
        if not (self.has_noise and (self.training or self.is_forced)):
            return mean
        return mean + (self.log_variances[number] / 2).exp() * getattr(self, f"noise_{number}")

    def draw(self, generator: torch.Generator, *, is_forced: bool = False) -> None:
        """Sets new noise from a CPU generator; it is read in training, or everywhere if `is_forced`."""
        self.has_noise, self.is_forced = True, is_forced
        for number in range(len(self)):
            mean = getattr(self, str(number))
            noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32)
            setattr(self, f"noise_{number}", noise.to(mean))

    def clear(self) -> None:
        """Takes the noise away: reading gives the means."""
        self.has_noise = self.is_forced = False

    @property
    def means(self) -> list[nn.Parameter]:
        """The parameters."""
        return [getattr(self, str(number)) for number in range(len(self))]

    @property
    def variances(self) -> list[Tensor]:
        """Of the entries."""
        return [one.exp() for one in self.log_variances]
