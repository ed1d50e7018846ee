"""Guards of training with automatic ranks: against wrong settings, losses that are not numbers, collapsed weights and early decisions."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import SupportsFloat

import torch
from torch import Tensor
from torch.optim import Optimizer

from tenfold.bayes.refit import squared_norm
from tenfold.network import Network

COLLAPSED = 1e-3  # of its root mean square at the start: a weight below is switched off
DECAYED = 0.05  # of its peak: a learning rate above is too high for a decision


class RanksWarning(UserWarning):
    """A weight has collapsed, or all its ranks were removed."""


def check_number(method: str, name: str, value: float, example: float) -> None:
    """Raises TypeError where a setting is no number."""
    if not isinstance(value, SupportsFloat) or (isinstance(value, Tensor) and value.numel() != 1):  # pyright: ignore
        raise TypeError(f"{method} got {name}={value!r}, a {type(value).__name__}; it needs a number: give one like {example:g}")


def check_positive(method: str, name: str, value: float, example: float) -> None:
    """Raises ValueError where a setting is not a finite number above 0, TypeError where it is no number."""
    check_number(method, name, value, example)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{method} got {name}={value}; it needs a finite number above 0: give one like {example:g}")


def check_count(method: str, name: str, value: int, example: int) -> None:
    """Raises ValueError where a setting is not a whole number above 0, TypeError where it is no number."""
    check_positive(method, name, value, example)
    check_whole_number(method, name, value, example)


def check_whole_number(method: str, name: str, value: int, example: int) -> None:
    """Raises ValueError where a setting is not a whole number, TypeError where it is no number."""
    check_number(method, name, value, example)
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{method} got {name}={value}; it needs a whole number: give one like {example}")


def check_loss(loss: Tensor, steps: int) -> None:
    """Raises ValueError where a loss is not one finite number, TypeError where it is no tensor."""
    if not isinstance(loss, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"the loss is {loss!r}, a {type(loss).__name__}; a tensor with a gradient is needed: give what backward() starts from"
        )
    if loss.numel() != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}; one number is needed, the mean over all examples: give loss.mean()")
    if not math.isfinite(loss.detach()):
        raise ValueError(
            f"the loss is {float(loss.detach())} after {steps} steps; a finite one is needed, for a single NaN spoils every "
            "variance: lower the learning rate or the temperature, and go on from the last good state"
        )


def check_finite(name: str, values: Mapping[str, Tensor], steps: int) -> None:
    """Raises ValueError where a rank's variances or scales are not finite."""
    for rank, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"the factors of layer {name!r} hold values that are not finite (rank {rank!r}, after {steps} steps); finite ones are "
                "needed: lower the learning rate, and go on from the last good state"
            )


def check_rates(peaks: Mapping[Optimizer, Sequence[float]]) -> None:
    """Raises RuntimeError where a learning rate is still near its peak, of which each group of an optimiser has one.

    An optimiser keeps slices that should be zero at a floor that is set by its rate: what is read there is noise. Without an optimiser
    nothing is known, and nothing checked.
    """
    for peak, now in (pair for optimizer, highest in peaks.items() for pair in zip(highest, rates(optimizer), strict=False)):
        if peak > 0 and now > DECAYED * peak:
            raise RuntimeError(
                f"the learning rate is {now:.3g}, {now / peak:.0%} of its peak {peak:.3g}; ranks are decided at {DECAYED:.0%} or less, "
                "for above that an optimiser's noise hides which slices are gone: let the rate decay first, or give force=True"
            )


def rates(optimizer: Optimizer) -> list[float]:
    """The learning rate of every group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def root_mean_square(network: Network, factors: Sequence[Tensor]) -> float:
    """Of the dense weight, without building it."""
    squared = squared_norm(network, [one.detach() for one in factors])
    return math.sqrt(max(0.0, squared) / math.prod(network.shape))


def warn_collapsed(name: str, ratio: float, steps: int) -> None:
    """Warns that a weight has shrunk away, with the usual causes."""
    warnings.warn(
        f"layer {name!r} has collapsed: after {steps} steps its weight is {ratio:.1e} of what it was at the start; "
        "either the data do not need it, or the prior is too strong for them: compare with a run without this layer, or lower the "
        "temperature or lengthen the warm-up",
        RanksWarning,
        stacklevel=4,
    )


def warn_removed(names: Sequence[str]) -> None:
    """Warns that nothing is left of some weights."""
    warnings.warn(
        f"all ranks of {', '.join(names)} were removed: these weights are now zero; the model computes without them: if that is not "
        "wanted, lower the temperature or the strength and train again, or count errors where inputs are (Rounding(moments=..))",
        RanksWarning,
        stacklevel=4,
    )
