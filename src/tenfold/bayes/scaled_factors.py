"""Factors with a scale on every slice of every rank: a diagonal matrix on each bond, which can be driven to zero."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tenfold.network import Network

Read: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(parameters of the scales of a rank, what was set from outside) -> scales."""


class ScaledFactors(nn.ParameterList):
    """Stands for the parameters of a weight: reading an entry gives the parameter times the scales of the ranks that it carries first.

    The parameters keep their names, "0", "1", ..; those behind the scales are "scales.r1", .., frozen where they scale a frozen factor.

    Args:
        network: of the weight.
        factors: the parameters.
        scales: the values of the parameters behind the scales, for each rank.
        read: the scales from them and from what is set by `set_outside`.
        outside: what is set at first, for every slice.
        is_noise: what is set counts in training only; elsewhere it is `outside`.
    """

    def __init__(
        self, network: Network, factors: Sequence[nn.Parameter], scales: Mapping[str, Tensor], read: Read, outside: float, is_noise: bool
    ) -> None:
        super().__init__(factors)
        self.network, self.read, self.outside, self.is_noise = network, read, outside, is_noise
        self.scales = nn.ParameterDict(
            {rank: nn.Parameter(value, factors[network.carriers(rank)[0][0]].requires_grad) for rank, value in scales.items()}
        )
        for rank, value in scales.items():
            self.register_buffer(f"outside_{rank}", torch.full_like(value, outside), persistent=False)

    def __getitem__(self, idx: Any) -> Any:
        if isinstance(idx, slice):
            return [self[number] for number in range(*idx.indices(len(self)))]
        return self._scaled(range(len(self))[idx], self.is_noise and not self.training)

    def _scaled(self, number: int, is_plain: bool) -> Tensor:
        factor = getattr(self, str(number))
        for rank in self.network.ranks:
            carrier, axis = self.network.carriers(rank)[0]
            if carrier == number:
                shape = [1] * factor.dim()
                shape[axis] = -1
                factor = factor * self.scale(rank, is_plain).reshape(shape)
        return factor

    def scale(self, rank: str, is_plain: bool) -> Tensor:
        """What the slices of a rank are multiplied by, without what was set from outside if `is_plain`."""
        given = getattr(self, f"outside_{rank}")
        return self.read(self.scales[rank], torch.full_like(given, self.outside) if is_plain else given)

    def settled(self) -> list[Tensor]:
        """The factors as they are read in eval."""
        return [self._scaled(number, self.is_noise) for number in range(len(self))]

    @property
    def parameters_alone(self) -> list[nn.Parameter]:
        """The parameters without scales."""
        return [getattr(self, str(number)) for number in range(len(self))]

    def set_outside(self, rank: str, value: Tensor) -> None:
        """Sets what the scales of a rank depend on and is not trained: a mask, or noise."""
        setattr(self, f"outside_{rank}", value.to(self.scales[rank]))
