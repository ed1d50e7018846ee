"""Posterior: factors as random variables, with priors on every rank that switch off what the data do not support.

The evidence lower bound for one example is  mean loss + temperature / N x KL(q(factors) || prior(factors | variances)),  where q has
independent normal entries and each variance of a rank slice is a point, updated in closed form.

Source: Hawkins and Zhang 2020, arXiv 2010.08689. Deviations: real variational inference with trained variances (`kind="map"` is what the
published code does), noise drawn once for each step and not in `forward`, live ranks in the updates, priors that all factors of a rank
share, weight 1 / N, and decisions by rounding (shrink.py).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tenfold.bayes.factorized_weights import check_rows, padding_row
from tenfold.bayes.gaussian_factors import GaussianFactors
from tenfold.bayes.guards import check_count, check_number, check_positive, check_whole_number
from tenfold.bayes.method import RankMethod
from tenfold.bayes.priors import Prior
from tenfold.bayes.reduction import Reduction
from tenfold.bayes.run import Run, Spectra
from tenfold.bayes.surgery import factor_parameter, replaced
from tenfold.bayes.trust import capped
from tenfold.bayes.variances import RankVariances
from tenfold.bayes.warmup import Warmup
from tenfold.bayes.weight_moments import row_moments, sampled_rows, weight_moments


class Posterior(RankMethod):
    """Means and variances of the factors' entries and the variances of the ranks; made by `attach`, which says what its arguments are."""

    quantity = "the variance of each slice"

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None,
        prior: Prior,
        kind: Literal["variational", "map"],
        n_examples: int,
        temperature: float,
        warmup: Warmup,
        damping: float,
        relative_variance: float,
        cut: float,
        seed: int,
    ) -> None:
        if kind not in ("variational", "map"):
            raise ValueError(f"attach got kind={kind!r}; it is 'variational' or 'map': choose one of them")
        check_positive("attach", "n_examples", n_examples, 60000)
        check_positive("attach", "temperature", temperature, 1.0)
        check_positive("attach", "relative_variance", relative_variance, 1e-3)
        check_positive("attach", "cut", cut, 1e-5)
        check_whole_number("attach", "seed", seed, 0)
        check_number("attach", "damping", damping, 1.0)
        if not 0 < damping <= 1:
            raise ValueError(
                f"attach got damping={damping}; it is the part of a step to the best variances, above 0 and at most 1: give 1.0"
            )
        self.run = Run(model, layers)
        self.prior, self.kind, self.n_examples, self.temperature = prior, kind, n_examples, temperature
        self.padding = {name: padding_row(model, weight) for name, weight in self.run.weights.items()}
        self.warmup, self.damping, self.relative_variance, self.cut, self.seed = warmup, damping, relative_variance, cut, int(seed)
        containers = None
        if kind == "variational":
            containers = {name: GaussianFactors(self._means(name), relative_variance) for name in self.run.weights}
        self.variances = {name: self._fitted(name, containers[name].variances if containers else None) for name in self.run.weights}
        self.run.hold(containers)
        self.run.record(self.spectra())
        self._draw(0)

    # -- what is added to the loss ----------------------------------------------------------------------------------

    def kl(self) -> Tensor:
        """KL(q || prior) over all factors in nats; for `kind="map"` the negative log density of the factors. It has a gradient."""
        self.run.check_held()
        parts = [self.variances[name].divergence(self._means(name), self._log_variances(name)).to(self._device()) for name in self.run.live]
        return torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64)

    def weight(self) -> float:
        """What the KL is multiplied by at this step: warm-up x temperature / N."""
        return self.warmup.factor(self.run.steps) * self.temperature / self.n_examples

    def penalty(self) -> Tensor:
        """`weight()` x `kl()`."""
        return self.weight() * self.kl()

    # -- steps ------------------------------------------------------------------------------------------------------

    def _update(self) -> None:
        for name in self.run.live:
            self.variances[name].update(self._means(name), self._spread(name), self.damping)
        self._draw(self.run.steps)

    def _draw(self, step: int) -> None:
        """The noise of a step is a function of the seed and the step: equal in all processes, and after a restart."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
        for weight in self.run.live.values():
            if isinstance(weight.factors, GaussianFactors):
                weight.factors.draw(generator)

    def spectra(self) -> Spectra:
        return {name: dict(self.variances[name].values) for name in self.run.live}

    def marks(self, name: str) -> Mapping[str, Tensor]:
        """Slices whose variance is above `cut`, as the published code keeps them."""
        return self.variances[name].above(self.cut)

    def cap_gradients(self, trust: float = 10.0) -> None:
        """Scales the prior's part of the gradients of the means down to `trust` times that of the data, in every rank slice.

        For priors that might switch off what is needed: temperatures far above 1, or no warm-up. Call it after `backward` of `loss` and
        before gradients are clipped; under a gradient scaler after `unscale_`.

        Raises:
            ValueError: `trust` is not above 0, or there are no gradients.
        """
        check_positive("cap_gradients", "trust", trust, 10.0)
        for name, weight in self.run.live.items():
            means = self._means(name)
            total = [mean.grad for mean in means if mean.grad is not None]
            if len(total) < len(means):
                raise ValueError(
                    f"layer {name!r} has factors without a gradient; all need one here: call it after loss(..).backward(), with factors "
                    "that are trained"
                )
            prior = [(self.weight() * mean.detach() * self.variances[name].precision(k)).to(mean) for k, mean in enumerate(means)]
            for mean, gradient in zip(means, capped(weight.network, total, prior, trust), strict=True):
                mean.grad = gradient

    # -- uncertainty ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def moments(self, name: str) -> tuple[Tensor, Tensor]:
        """Exact mean and variance of every entry of the dense weight of a layer, in torch's shape; small layers only.

        Raises:
            ValueError: there is no such layer.
        """
        weight = self.run.weight(name)
        return weight_moments(weight.network, weight.fold, *self._entries(name))

    @torch.no_grad()
    def row_moments(self, name: str, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Exact mean and variance (*ids, out) of rows of an embedding; both are 0 at its padding row.

        Raises:
            ValueError: there is no such layer.
            IndexError: an id is none of the rows.
            TypeError: the ids are no whole numbers.
        """
        weight = self.run.weight(name)
        check_rows("row_moments", name, weight.fold.axis("i").size, ids)
        mean, variance = row_moments(weight.network, weight.fold, *self._entries(name), ids)
        return self._without_padding(name, ids, mean), self._without_padding(name, ids, variance)

    def sampled_rows(self, name: str, ids: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(*ids, out): rows of an embedding, each drawn on its own with its exact mean and variance; 0 at its padding row.

        In place of the table in training its gradient varies less than that of factors drawn once for a batch; how the entries of rows
        vary together is not kept.

        Raises:
            ValueError: there is no such layer.
            IndexError: an id is none of the rows.
            TypeError: the ids are no whole numbers.
        """
        weight = self.run.weight(name)
        check_rows("sampled_rows", name, weight.fold.axis("i").size, ids)
        return self._without_padding(name, ids, sampled_rows(weight.network, weight.fold, *self._entries(name), ids, generator))

    @contextlib.contextmanager
    def sample(self, number: int) -> Iterator[None]:
        """Within it the model computes with one draw of the factors, also in eval; the same draw for the same number."""
        self.run.check_held()
        containers = [weight.factors for weight in self.run.live.values() if isinstance(weight.factors, GaussianFactors)]
        generator = torch.Generator().manual_seed((self.seed * 7_368_787 + number) % 2**63)
        for container in containers:
            container.draw(generator, is_forced=True)
        try:
            yield
        finally:
            for container in containers:
                container.clear()
            self._draw(self.run.steps)

    def predictions(self, compute: Callable[[], Tensor], samples: int = 8) -> Tensor:
        """(samples, ..): `compute()`, such as ``lambda: model(x).softmax(-1)``, for several draws of the factors.

        Their mean is the prediction that takes the uncertainty of the factors into account, their spread is that uncertainty.
        """
        check_count("predictions", "samples", samples, 8)
        found = []
        for number in range(int(samples)):
            with torch.no_grad(), self.sample(number):
                found.append(compute())
        return torch.stack(found)

    # -- ranks ------------------------------------------------------------------------------------------------------

    def _values(self, name: str) -> list[Tensor]:
        return list(self._means(name))

    def _follow(self, name: str, reduction: Reduction) -> None:
        weight = self.run.weights[name]
        container = weight.factors
        if isinstance(container, GaussianFactors):
            for number, old in enumerate(container.log_variances):
                spread = reduction.variances(number, old.detach().double().exp()).clamp_min(1e-30)
                if spread.shape != old.shape or not torch.allclose(spread.log(), old.detach().double()):
                    container.log_variances[number] = replaced(self.run.watched.optimizers, old, spread.log().to(old))
            if reduction.is_removed:
                container.clear()  # a draw for every step is for layers that are left
        if not reduction.is_removed:
            self.variances[name] = self._fitted(name, self._spread(name))
        self._draw(self.run.steps)

    # -- state ------------------------------------------------------------------------------------------------------

    def _extra_state(self) -> dict[str, Any]:
        options = f"damping={self.damping}, relative_variance={self.relative_variance}, cut={self.cut}, seed={self.seed}"
        settings = f"Posterior({self.prior}, {self.kind}, N={self.n_examples}, T={self.temperature}, {self.warmup}, {options})"
        values = {name: {rank: value.clone() for rank, value in one.values.items()} for name, one in self.variances.items()}
        return {"settings": settings, "variances": values}

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        for name, weight in self.run.weights.items():
            if isinstance(weight.factors, GaussianFactors):
                means = weight.factors.means
                if [one.shape for one in means] != [one.shape for one in weight.factors.log_variances]:
                    weight.factors = GaussianFactors(means, self.relative_variance).train(weight.training)
                if name in self.run.removed:
                    weight.factors.clear()
            self.variances[name] = RankVariances(weight.network, self.prior, self._device())
            self.variances[name].values = {rank: value.to(self._device()) for rank, value in state["variances"][name].items()}
        self._draw(self.run.steps)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _fitted(self, name: str, spread: Sequence[Tensor] | None) -> RankVariances:
        """The variances of a weight's ranks that suit its means and the variances of their entries best."""
        made = RankVariances(self.run.weights[name].network, self.prior, self._device())
        made.fit(self._means(name), spread)
        return made

    def _means(self, name: str) -> list[nn.Parameter]:
        weight = self.run.weights[name]
        return [factor_parameter(weight, number) for number in range(len(weight.factors))]

    def _log_variances(self, name: str) -> list[Tensor] | None:
        container = self.run.weights[name].factors
        return list(container.log_variances) if isinstance(container, GaussianFactors) else None

    def _spread(self, name: str) -> list[Tensor] | None:
        logs = self._log_variances(name)
        return None if logs is None else [one.detach().exp() for one in logs]

    def _entries(self, name: str) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Means and variances of the factors' entries, with gradients; point factors and those of a removed layer do not vary."""
        self.run.check_held()
        means, logs = self._means(name), self._log_variances(name)
        if logs is None or name in self.run.removed:
            return means, [torch.zeros_like(one) for one in means]
        return means, [one.exp() for one in logs]

    def _without_padding(self, name: str, ids: Tensor, rows: Tensor) -> Tensor:
        return rows if self.padding[name] is None else rows.masked_fill((ids == self.padding[name])[..., None], 0.0)

    def _device(self) -> torch.device:
        return factor_parameter(next(iter(self.run.weights.values())), 0).device
