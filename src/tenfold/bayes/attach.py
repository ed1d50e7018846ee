"""Attach: puts priors and a posterior into a model, from settings as they are given."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from tenfold.bayes.posterior import Posterior
from tenfold.bayes.priors import Hyperprior, LogUniform, Prior
from tenfold.bayes.warmup import Warmup, as_warmup


def attach(
    model: nn.Module,
    layers: str | Sequence[str] | None = None,
    *,
    n_examples: int,
    prior: Prior | Hyperprior | None = None,
    kind: Literal["variational", "map"] = "variational",
    temperature: float = 1.0,
    warmup: Warmup | tuple[int, int] = (0, 0),
    damping: float = 1.0,
    relative_variance: float = 1e-3,
    cut: float = 1e-5,
    seed: int = 0,
) -> Posterior:
    """Priors on every rank of every factorised layer of a model, and a posterior over its factors.

    Call `step()` once for each step of the optimiser, train on `loss(mean loss of an example)`, `shrink()` when the learning rate has
    decayed, and `finish()`. In eval the model computes with the means of its factors.

    Args:
        layers: names or patterns such as "encoder.*"; all factorised layers that are not frozen where it is left out.
        n_examples: N, the number of training examples.
        prior: a hyperprior, or a `Prior`; left out, log-uniform variances that all factors of a rank share.
        kind: "variational" trains a variance for each entry, and runs with sampled factors; "map" has point factors.
        temperature: T of the weight T / N of the KL: 1 is Bayes' rule, more compresses more. 10 to 100 found planted ranks sooner.
        warmup: (start, end) in steps, between which the weight grows from 0.
        damping: the part of the way to their best values that the variances go in a step.
        relative_variance: of the entries at the start, relative to the mean square of their factor.
        cut: of `Selection`: slices with a smaller variance are dropped.
        seed: of the noise.

    Raises:
        ValueError: there is no factorised layer, a layer is dense, frozen or has a method already, or a setting is out of its range.
        TypeError: a setting is no number, or the prior none. Nothing has changed then.
    """
    if isinstance(prior, Hyperprior) or prior is None:
        prior = Prior(prior or LogUniform())
    if not isinstance(prior, Prior):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"attach got prior={prior!r}; it is an object of a hyperprior or of Prior: make one, for instance HalfCauchy() or "
            "Prior(Gamma(), is_symmetric=False)"
        )
    return Posterior(model, layers, prior, kind, n_examples, temperature, as_warmup(warmup), damping, relative_variance, cut, seed)
