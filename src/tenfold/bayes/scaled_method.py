"""What the methods share that put a scale on every slice of every rank."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfold.bayes.method import RankMethod
from tenfold.bayes.reduction import Reduction
from tenfold.bayes.run import Spectra
from tenfold.bayes.scaled_factors import Read, ScaledFactors
from tenfold.bayes.surgery import factor_parameter, replaced


def _product(scale: Tensor, outside: Tensor) -> Tensor:
    return scale * outside


class ScaledMethod(RankMethod, abc.ABC):
    """A method whose scales are trained; slices whose scale is gone are dropped."""

    quantity = "the scale of each slice"
    read: ClassVar[Read] = staticmethod(_product)
    start: ClassVar[float] = 1.0  # the parameter behind a scale at first; the factors make up for a scale that is not 1
    neutral: ClassVar[float] = 1.0  # the parameter behind a scale of 1
    outside: ClassVar[float] = 1.0
    is_noise: ClassVar[bool] = False

    settings: str
    factors: dict[str, ScaledFactors]

    def _insert(self) -> None:
        """Puts scales between the factors of every weight, which stays what it is."""
        plain = {name: [factor_parameter(one, number) for number in range(len(one.factors))] for name, one in self.run.weights.items()}
        self.factors = {name: self._container(name, factors, self.start) for name, factors in plain.items()}
        self.run.hold(self.factors)
        with torch.no_grad():
            for name, weight in self.run.weights.items():
                for rank, scale in self.scales(name).items():
                    number, _ = weight.network.carriers(rank)[0]
                    plain[name][number].div_(float(scale[0]))
        self.run.record(self.spectra())

    def _container(self, name: str, plain: list[nn.Parameter], value: float) -> ScaledFactors:
        weight = self.run.weights[name]
        start = {rank: plain[0].new_full((size,), value).detach() for rank, size in weight.network.ranks.items()}
        kind = type(self)
        return ScaledFactors(weight.network, plain, start, kind.read, self.outside, self.is_noise).train(weight.training)

    def scales(self, name: str) -> dict[str, Tensor]:
        """The scales of a layer in eval, by rank, (size of the rank,) each."""
        container = self.factors[name]
        return {rank: container.scale(rank, self.is_noise) for rank in container.network.ranks}

    def spectra(self) -> Spectra:
        return {name: {rank: scale.detach().abs() for rank, scale in self.scales(name).items()} for name in self.run.live}

    def _values(self, name: str) -> list[Tensor]:
        return self.factors[name].settled()

    def _follow(self, name: str, reduction: Reduction) -> None:
        """Scales are in the factors now, and start from 1 again."""
        container = self.factors[name]
        container.network = self.run.weights[name].network
        for rank, size in container.network.ranks.items():
            old = container.scales[rank]
            container.scales[rank] = replaced(self.run.watched.optimizers, old, old.new_full((size,), self.neutral).detach())
            container.set_outside(rank, torch.full((size,), self.outside))

    def _settle(self) -> None:
        for name in self.run.weights:
            for parameter, value in zip(self.factors[name].parameters_alone, self.factors[name].settled(), strict=True):
                parameter.copy_(value)

    def _extra_state(self) -> dict[str, Any]:
        return {"settings": self.settings, "outside": {name: self._outside(name) for name in self.factors}}

    def _outside(self, name: str) -> dict[str, Tensor]:
        return {rank: getattr(self.factors[name], f"outside_{rank}").clone() for rank in self.factors[name].network.ranks}

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        for name, weight in self.run.weights.items():
            if weight.network != self.factors[name].network:
                self.factors[name] = self._container(name, self.factors[name].parameters_alone, self.neutral)
                weight.factors = self.factors[name]
            for rank, value in state["outside"][name].items():
                self.factors[name].set_outside(rank, value)
