"""Diagnosis: how far the factors of a layer are from degenerate, and what to do about it.

A degenerate weight has a small error but huge terms that cancel each other: rounding or one step of training changes it far more than
its size suggests. The numbers are those of `solvers.sensitivity`, in float64, from contractions of factors alone.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from tenfold.decompose import batched_factors
from tenfold.solvers.quadratic import inner
from tenfold.solvers.sensitivity import (
    condition_numbers,
    intensity_ratio,
    largest_eigenvalue,
    normalised_sensitivity,
    rebalance,
    sensitivity,
    worst_congruence,
)
from tenfold.solvers.solution import INTENSITY_LIMIT
from tenfold.weight import FactorizedWeight
from tenfold.wrappers import clean_name, unwrapped

UNBALANCED = 2.0  # times the least sensitivity that scaling can reach
ITERATIONS = 25  # of the power iteration: within some per cent, and a degenerate layer converges much faster


@dataclass(frozen=True)
class Diagnosis:
    """What the factors of one layer are like.

    name: of the layer; "" for a weight by itself.
    sensitivity: expected squared change of the weight for each unit of variance of noise on the factors; smaller is better.
    normalised_sensitivity: the least that scaling can reach, relative to that of a rank-one weight of the same norm and shape.
    imbalance: the sensitivity relative to the least that scaling can reach; 1 at best.
    intensity_ratio: sum of the squared norms of the terms / squared norm of the weight, at its worst rank; up to about 3 is healthy.
    worst_congruence: the smallest cosine between two terms; near -1 they cancel each other.
    condition_numbers: for each factor, of its least-squares problem. Infinite where it is singular, None where it is not known.
    largest_eigenvalue: of J'J for the Jacobian of the weight by its factors.
    stable_step: what the function of this name gives: gradient descent on ||W - W~||^2 diverges above.
    is_flagged, advice: whether something is wrong, and what to do; "" where nothing is.
    """

    name: str
    statement: str
    sensitivity: float
    normalised_sensitivity: float
    imbalance: float
    intensity_ratio: float
    worst_congruence: float
    condition_numbers: tuple[float | None, ...]
    largest_eigenvalue: float
    stable_step: float
    is_flagged: bool
    advice: str

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values: infinite ones become None."""
        return {key: _finite(value) for key, value in asdict(self).items() if key not in ("name", "statement")}

    def __str__(self) -> str:
        state = f"flagged: {self.advice}" if self.is_flagged else "healthy"
        return (
            f"{self.name or self.statement}: sensitivity {self.sensitivity:.3g} (normalised {self.normalised_sensitivity:.3g}), "
            f"intensity ratio {self.intensity_ratio:.3g}, worst congruence {self.worst_congruence:.2f}, "
            f"stable step {self.stable_step:.2g}; {state}"
        )


def diagnose(model: nn.Module) -> list[Diagnosis]:
    """One diagnosis for every factorised weight of a model, or of one `FactorizedWeight`, in the order of its modules.

    Raises:
        ValueError: the model has no factorised weight.
    """
    return [_diagnosis(name, weight) for name, weight in weights_of(model).items()]


def weights_of(model: nn.Module) -> dict[str, FactorizedWeight]:
    """The factorised weights of a model by the names of their layers, "" for a weight or a layer by itself.

    Raises:
        ValueError: there is none.
    """
    found = {_layer_name(name): one for name, one in unwrapped(model).named_modules() if isinstance(one, FactorizedWeight)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no factorised weight, and diagnosis is of factors; give a model that "
            "tenfold.compress or tenfold.factorize returned"
        )
    return found


def stable_step(largest_eigenvalue: float) -> float:
    """The step above which gradient descent on ||W - W~||^2 diverges near its minimum, from the largest eigenvalue of J'J.

    The Hessian there is 2 J'J, so this is 1 / the eigenvalue; of half of the square it would be twice as much.
    """
    return 1 / largest_eigenvalue if largest_eigenvalue > 0 else math.inf


def _layer_name(name: str) -> str:
    """The name of the layer from that of its weight: encoder.0 from encoder.0.factorized."""
    return ".".join(part for part in clean_name(name).split(".") if part != "factorized")


def _diagnosis(name: str, weight: FactorizedWeight) -> Diagnosis:
    network, factors = batched_factors(weight, torch.float64)
    factors = [factor.detach() for factor in factors]
    statement = weight.network.statement
    if not all(bool(factor.isfinite().all()) for factor in factors):
        count = sum(int((~factor.isfinite()).sum()) for factor in factors)
        advice = f"{count} values are NaN or infinite; load an earlier checkpoint"
        nan = math.nan
        return Diagnosis(name, statement, nan, nan, nan, nan, nan, (None,) * len(factors), nan, nan, True, advice)
    with torch.no_grad():
        total = sensitivity(network, factors)
        least = sensitivity(network, rebalance(network, factors))
        numbers = {
            "sensitivity": float(total.sum()),
            "normalised_sensitivity": float(normalised_sensitivity(network, factors).amax()),
            "imbalance": float(total.sum() / least.sum()) if float(least.sum()) > 0 else 1.0,
            "intensity_ratio": float(intensity_ratio(network, factors).amax()),
            "worst_congruence": float(worst_congruence(network, factors).amin()),
        }
        conditions = condition_numbers(network, factors).amax(0).tolist()
        eigenvalue = float(largest_eigenvalue(network, factors, iterations=ITERATIONS, tolerance=1e-2).amax())
        is_zero = float(inner(network, factors, factors).sum()) == 0
    advice = _advice(numbers, is_zero)
    return Diagnosis(
        name,
        statement,
        **numbers,
        condition_numbers=tuple(None if math.isnan(value) else value for value in conditions),
        largest_eigenvalue=eigenvalue,
        stable_step=stable_step(eigenvalue),
        is_flagged=bool(advice),
        advice=advice,
    )


def _advice(numbers: Mapping[str, float], is_zero: bool) -> str:
    if is_zero:
        return "all of it is zero and gradients vanish; initialise it, or leave the layer out"
    if numbers["intensity_ratio"] > INTENSITY_LIMIT:
        return (
            f"its terms cancel: {numbers['intensity_ratio']:.3g} times the weight's squared norm, up to 3 is healthy; correct it with "
            "tenfold.correction.correct, or fit it again with a lower rank"
        )
    if numbers["imbalance"] > UNBALANCED:
        return (
            f"its factors are {numbers['imbalance']:.3g} times as sensitive as after scaling alone, up to {UNBALANCED:g} is healthy; "
            "scale them with tenfold.correction.correct"
        )
    return ""


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
