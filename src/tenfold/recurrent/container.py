"""MapContainer: the matrices of a recurrent layer or cell of torch as maps, child modules that are dense or factorised."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn
from typing_extensions import Self

from tenfold.format import Format
from tenfold.layers.linear import Linear
from tenfold.recurrent.maps import MapOptions, copied_map, decomposed_map
from tenfold.weight import FactorizedWeight

Dense = TypeVar("Dense", bound=nn.Module)


class MapContainer(nn.Module, abc.ABC, Generic[Dense]):
    """What recurrent layers and their cells have in common: the way from and to torch's, matrix by matrix.

    dense_type: torch's layer or cell. n_gates: of its inputs. n_states: how many tensors its state has.
    """

    dense_type: ClassVar[type[Any]]
    n_gates: ClassVar[int]
    n_states: ClassVar[int] = 1

    @property
    def factorized(self) -> Mapping[str, FactorizedWeight]:
        """The factorised weights by torch's names, e.g. ``factorized["weight_ih_l0"]``, or ``["weight_ih"]`` of a cell."""
        return {f"weight_{name}": one.factorized for name, one in self.named_children() if isinstance(one, Linear)}

    @classmethod
    @abc.abstractmethod
    def opened(cls, dense: Dense) -> Self:
        """The same with a dense map for each matrix. Parameters are shared with torch's, not copied."""

    def _take_more(self, dense: Any) -> None:
        """Options that only this kind has."""

    @abc.abstractmethod
    def _dense_twin(self, device: Any, dtype: torch.dtype) -> Dense:
        """torch's, with the same options and values that are still to be set."""

    def _map_options(self, name: str, inputs: MapOptions, recurrent: MapOptions) -> MapOptions:
        """Those of a map by its name."""
        return inputs if name.startswith("ih") else recurrent

    @classmethod
    def from_dense(
        cls,
        dense: Dense,
        format: Format | None = None,
        *,
        recurrent_format: Format | None = None,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
        gate_mode: int | None = None,
        recurrent_modes: Sequence[int] | None = None,
        sweeps: int = 200,
        seed: int = 0,
    ) -> Self:
        """The one closest to what was trained, in Frobenius norm of each weight; what has no format stays as it is, in a copy.

        Raises:
            TypeError: `dense` is of another type.
            ValueError: ranks or modes do not fit, or a weight is not finite.
        """
        if not isinstance(dense, cls.dense_type):
            raise TypeError(
                f"{cls.__name__}.from_dense got a {type(dense).__name__}; it needs a torch.nn.{cls.dense_type.__name__}: give one"
            )
        made = cls.opened(dense)
        inputs = MapOptions(format, in_modes, out_modes, gate_mode)
        recurrent = MapOptions(recurrent_format, recurrent_modes, recurrent_modes)
        for name, one in list(made.named_children()):
            options = made._map_options(name, inputs, recurrent)
            made._modules[name] = decomposed_map(copied_map(one), cls.n_gates, options, f"{cls.__name__}.{name}", sweeps, seed)
        return made.train(dense.training)

    def to_dense(self) -> Dense:
        """torch's, with the dense weights."""
        like = next(self.parameters())
        dense = self._dense_twin(like.device, like.dtype)
        with torch.no_grad():
            for name, parameter in dense.named_parameters():
                parameter.copy_(getattr(self, name))
        return dense.train(self.training)

    def closed(self) -> Dense:
        """torch's, around the parameters of dense maps, which are shared, not copied; the way back from `opened`."""
        dense = self._dense_twin("meta", next(self.parameters()).dtype)
        for name, _ in list(dense.named_parameters()):
            setattr(dense, name, getattr(self, name))
        return dense.train(self.training)
