"""FactorizedLayer: what the planner and the user may ask of every layer with a factorised weight."""

import abc
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import Self

from tenfold.buckets import bucket
from tenfold.contract import ContractionPlan, Machine, Positions, dense_plan, plan_convolution, plan_linear, plan_rows, recount
from tenfold.contract.steps import RowsPlan
from tenfold.decompose import SWEEPS, decompose
from tenfold.fold import Fold
from tenfold.format import Format
from tenfold.network import Network
from tenfold.weight import FactorizedWeight

CALL_SECONDS = 1.5e-5  # of Python for a call, beyond those of torch's own layer; measured, of the same order for all layers
NOMINAL_BATCHES = (16, 256)  # FLOP are counted at these: the plan, and so the count, may differ between batch sizes


@dataclass(frozen=True)
class Workload:
    """What a layer does for one sample: rows that it maps, or positions that it convolves, and the FLOP of its dense twin.

    n_rows: a fraction where a call has fewer rows than there are samples, as in one expert of a mixture.
    """

    n_rows: float
    dense_flops: float
    positions: Positions | None = None
    is_lookup: bool = False

    def flops(self, network: Network) -> float:
        """FLOP for each sample in matrix products and convolutions, in eval (contractions of factors alone are kept)."""
        if self.is_lookup:
            return sum(plan_rows(term).flops for term in network.terms) * self.n_rows
        return sum(max(self.plan(term, batch).flops for batch in NOMINAL_BATCHES) for term in network.terms) * self.n_rows

    def plan(self, network: Network, batch: int, is_cached: bool = True) -> ContractionPlan:
        """The plan that a layer runs for a batch of samples and one term on a CPU, in eval or (`is_cached=False`) in training.

        It is chosen as the layer chooses it, for a class of sizes; its FLOP are those of the sizes themselves.
        """
        if self.positions is None:
            return plan_linear(network, bucket(self._rows(batch)), is_cached, Machine())
        chosen = plan_convolution(network, bucket(batch), is_cached, Machine(), self.positions.nominal)
        return recount(chosen, network, batch, is_cached, Machine(), self.positions)

    def seconds(self, network: Network, batch: int) -> float:
        """Predicted seconds of the factorised layer for a batch of samples, in eval on a CPU."""
        return CALL_SECONDS + sum(self.plan(term, batch).seconds for term in network.terms)

    def dense_seconds(self, network: Network, batch: int) -> float:
        """The same for the dense layer, whose weight is that of the network."""
        size = batch if self.positions is not None else self._rows(batch)
        return dense_plan(network.terms[0], size, True, Machine(), self.positions).seconds

    def _rows(self, batch: int) -> int:
        return max(1, round(batch * self.n_rows))


class FactorizedLayer(nn.Module, abc.ABC):
    """A layer of torch.nn with a `FactorizedWeight` in place of its weight.

    A subclass is one file in this folder: the torch layer that it stands for, how that layer's weight is folded, how to build it
    around a factorised weight, and `forward`.
    """

    dense_type: ClassVar[type[nn.Module]]
    factorized: FactorizedWeight
    bias: nn.Parameter | None

    @classmethod
    @abc.abstractmethod
    def fold_of(cls, dense: nn.Module, n_modes: int, in_modes: Sequence[int] | None = None, out_modes: Sequence[int] | None = None) -> Fold:
        """How the weight of a dense layer is folded, with `n_modes` input and output modes where none are given."""

    @classmethod
    def unsupported(cls, dense: nn.Module) -> str:
        """Which option of a dense layer a factorised one cannot honour, with the reason; "" where there is none."""
        return ""

    @classmethod
    def lost(cls, dense: nn.Module) -> str:
        """What a dense layer has that is lost with its weight, and what to do, as the rest of a sentence; "" where there is nothing."""
        return ""

    @classmethod
    @abc.abstractmethod
    def around(cls, dense: nn.Module, factorized: FactorizedWeight) -> Self:
        """The layer with the options and the bias of a dense layer, around a factorised weight. `dense` may be on "meta"."""

    @classmethod
    @abc.abstractmethod
    def workload(cls, dense: nn.Module, inputs: Sequence[int], outputs: Sequence[int]) -> Workload:
        """What the dense layer does for one sample, from the shapes of its first input and its output in one call."""

    @abc.abstractmethod
    def to_dense(self) -> nn.Module:
        """The torch layer with the dense weight."""

    @abc.abstractmethod
    def forward(self, input: Tensor) -> Tensor:
        """What the dense layer computes."""

    @classmethod
    def from_dense(
        cls,
        dense: nn.Module,
        format: Format,
        *,
        in_modes: Sequence[int] | None = None,
        out_modes: Sequence[int] | None = None,
        sweeps: int = SWEEPS,
        seed: int = 0,
    ) -> Self:
        """The factorised layer closest to a dense one, in Frobenius norm of the weight.

        Raises:
            TypeError: the layer is of another type, or its weight is not real floating-point.
            ValueError: the rank or the modes do not fit, an option cannot be honoured, or the weight has values that are not finite.
        """
        if not isinstance(dense, cls.dense_type):
            raise TypeError(f"{cls.__name__}.from_dense got a {type(dense).__name__}; it needs a torch.nn.{cls.dense_type.__name__}")
        check_format(f"{cls.__name__}.from_dense", format)
        if reason := cls.unsupported(dense):
            raise ValueError(f"{cls.__name__}.from_dense got a layer with {reason}; leave the option out, or keep the torch layer")
        fold = format.fold(cls.fold_of(dense, cls.modes_of(format), in_modes, out_modes))
        weight: Any = dense.weight
        result = decompose([weight], fold, format.network(fold), format, names=[type(dense).__name__], sweeps=sweeps, seed=seed)
        if lost := cls.lost(dense):
            warnings.warn(f"the layer of {cls.__name__}.from_dense {lost}", stacklevel=2)
        return cls.around(dense, result[0].weight).train(dense.training)

    @classmethod
    def modes_of(cls, format: Format) -> int:
        """The number of modes that the format splits an axis of this layer into where the user gives none."""
        return format.n_modes

    @property
    def weight(self) -> Tensor:
        """The dense weight, rebuilt on demand (kept between calls in eval without gradients); read-only."""
        return self.factorized.dense()

    def plan(self, batch: int = 16) -> ContractionPlan | RowsPlan:
        """How the weight is contracted with a batch in eval; `print` it."""
        return self.factorized.plan_apply(batch, True)

    def extra_repr(self) -> str:
        """The torch layer's, which reads options that are here too."""
        return self.dense_type.extra_repr(self)  # pyright: ignore[reportArgumentType]

    def _recall(self, verb: str, x: Tensor) -> Callable[..., Tensor] | None:
        factorized: Any = self._modules["factorized"]  # torch takes as long to find `self.factorized` as for a small product
        # a subclass, or what stands in its place, may do more than the call that is known
        return factorized.recall(verb, x) if type(factorized) is FactorizedWeight else None

    def _bias_like(self, dense: nn.Module) -> nn.Parameter | None:
        bias: Any = getattr(dense, "bias", None)
        if bias is None:
            return None
        like = self.factorized.factors[0]
        value = bias.detach().clone() if not bias.is_meta else bias.new_empty(bias.shape, device=like.device)
        return nn.Parameter(value, requires_grad=bias.requires_grad)


def check_format(layer: str, value: Any) -> None:
    """Raises TypeError where the format of a layer is none."""
    if not isinstance(value, Format):
        raise TypeError(
            f"{layer} got the format {value!r}; an object of a format is needed: give for instance tenfold.TTM(rank=4), or for a text "
            "tenfold.formats.parse_format(text)[0]"
        )


def uniform_std(fan_in: int) -> float:
    """The standard deviation of torch's default start for linear layers and convolutions: uniform within 1 / sqrt(fan_in)."""
    return 1 / math.sqrt(3 * fan_in)


def check_tensor(layer: str, value: Any) -> None:
    """Raises TypeError where the input of a layer is no tensor."""
    if isinstance(value, Tensor):
        return
    advice = "convert it with torch.as_tensor"
    if type(value).__module__.startswith("torch.fx"):
        advice = (
            "trace with a torch.fx.Tracer whose is_leaf_module is true of tenfold's layers, as torch's own are leaves, or use torch.export"
        )
    raise TypeError(f"{layer} got a {type(value).__name__}; it needs a tensor: {advice}")
