"""FactorizedWeight: a network with its parameters, and the four verbs that every layer is made of.

dense     the weight in torch's shape and axis order
apply     (*batch, in) -> (*batch, out)
rows      ids -> rows of an embedding
convolve  (N, in, *positions) -> (N, out, *positions)
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from tenfold import contract
from tenfold.buckets import bucket
from tenfold.contract import ContractionPlan, Machine, Positions
from tenfold.contract.kept import Kept, constant_result
from tenfold.contract.run import cast, full_precision, pad_channels
from tenfold.contract.steps import PairPlan, RowsPlan
from tenfold.fold import Fold
from tenfold.network import Network


class FactorizedWeight(nn.Module):
    """A weight stored as the factors of a network.

    Args:
        network: the statement and the sizes.
        fold: how the dense weight's axes are the network's modes.
        factors: values, one tensor of shape `network.shapes[k]` each; left out, they are uninitialised.

    Raises:
        ValueError: the network's modes are not those of the fold, or a factor has another shape.
    """

    def __init__(
        self,
        network: Network,
        fold: Fold,
        factors: Sequence[Tensor] | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if {mode: network.sizes[mode] for mode in network.modes} != fold.sizes or network.modes != fold.modes:
            raise ValueError(
                f"the network {network.statement!r} has the modes {dict(zip(network.modes, network.shape, strict=True))}, "
                f"but the weight of shape {fold.shape} is folded to {fold.sizes}; build the network from this fold"
            )
        factors = [torch.empty(shape, device=device, dtype=dtype) for shape in network.shapes] if factors is None else factors
        if len(factors) != len(network.factors):
            raise ValueError(f"{len(factors)} factors are given; {network.statement!r} has {len(network.factors)}: give one for each")
        for number, (factor, shape) in enumerate(zip(factors, network.shapes, strict=True)):
            if tuple(factor.shape) != shape:
                raise ValueError(f"factor {number} of {network.statement!r} has shape {tuple(factor.shape)}; it needs {shape}")
        self.network = network
        _ = network.terms, network.term_slices  # Dynamo cannot enter the lock of a cached property that was never read
        self.fold, self._is_padded = fold.plain, any(axis.padding for axis in fold.axes)
        self.factors = nn.ParameterList(nn.Parameter(factor.to(device=device, dtype=dtype).contiguous()) for factor in factors)
        self._prepared, self._factor_names = Kept(), [str(number) for number in range(len(factors))]
        self.is_rebuilt = False  # in training: multiply with `dense()`, built anew in every call, instead of with the factors

    def init_normal_(self, std: float, *, generator: torch.Generator | None = None) -> None:
        """Fills the factors so that every entry of `dense()` has mean 0 and standard deviation `std`.

        An entry is a sum of T products of C independent factor entries, so each entry of a factor gets the variance
        (std^2 / T)^(1/C). Source: a sum of T uncorrelated terms has T times the variance of one, and independent factors multiply theirs.
        The terms of a sum of networks have equal parts in the variance.
        """
        check_std(std)
        for term, part in zip(self.network.terms, self.network.term_slices, strict=True):
            n_products = math.prod(term.ranks.values()) * len(self.network.terms)
            std_factor = (std / math.sqrt(n_products)) ** (1 / len(term.factors))
            with torch.no_grad():
                for factor in self.factors[part]:
                    factor.normal_(0.0, std_factor, generator=generator)

    # -- the four verbs ---------------------------------------------------------------------------------------------

    def dense(self) -> Tensor:
        """The dense weight of shape `fold.shape`, in torch's axis order."""
        return self.kept("dense", self._dense)

    def _dense(self) -> Tensor:
        with full_precision(self.factors[0]):
            return self.fold.unfold(self._sum(lambda term, factors: contract.dense(self.plan_dense(term), factors)))

    def _sum(self, make: Callable[[int, list[Tensor]], Tensor]) -> Tensor:
        """`make(number of the term, its factors)`, summed over the terms."""
        self._prepared.forget_where_trained()
        factors = self._values()
        return reduce(torch.add, [make(number, factors[part]) for number, part in enumerate(self.network.term_slices)])

    def apply(self, x: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(*batch, out) from (*batch, in): x times the transposed dense weight. RuntimeError where features or dtype do not fit, as torch.

        A callable argument is torch's own `Module.apply(fn)`, with which models initialise themselves.
        """
        if not isinstance(x, Tensor):
            return super().apply(x)
        size_in = self.fold.axis("i")
        if not x.dim() or x.shape[-1] != size_in.size:
            given = x.shape[-1] if x.dim() else "no"
            raise RuntimeError(f"the input has {given} features, but this weight of shape {self.fold.shape} needs {size_in.size}")
        x, is_kept = cast(x, self._values()[0].dtype), self.is_kept()
        if self.is_rebuilt and not is_kept:
            return F.linear(x, self.dense().to(x.dtype))
        x = F.pad(x, (0, size_in.padding)) if size_in.padding else x
        batch = bucket(math.prod(x.shape[:-1]))
        ready = self._ready(key := ("apply", batch, x.dtype), lambda term: self.plan_apply(batch, is_kept, term))
        if is_kept and not self._is_padded:
            self._prepared.remember("apply", x, self.factors, key, partial(partial, contract.linear))
        return self._cut(reduce(torch.add, [contract.linear(plan, tensors, x) for plan, tensors in ready]))

    def _cut(self, y: Tensor) -> Tensor:
        """Outputs without those that padding added."""
        size_out = self.fold.axis("o")
        return y.narrow(-1, 0, size_out.size) if size_out.padding else y

    def bound(self, batch: int) -> Callable[[Tensor], Tensor]:
        """`apply` for many inputs of about `batch` rows: what depends on the factors alone is computed now, once, with gradients."""
        size_in = self.fold.axis("i")
        ready = self._ready(("apply", bucket(batch), self.factors[0].dtype), lambda term: self.plan_apply(bucket(batch), True, term))

        def apply(x: Tensor) -> Tensor:
            x = cast(x, self._values()[0].dtype)
            x = F.pad(x, (0, size_in.padding)) if size_in.padding else x
            return self._cut(reduce(torch.add, [contract.linear(plan, [one.to(x.dtype) for one in tensors], x) for plan, tensors in ready]))

        return apply

    def rows(self, ids: Tensor) -> Tensor:
        """(*ids, out): the rows `ids` of an embedding whose rows are the input axis, in the dtype of the factors."""
        flat = ids.reshape(-1)
        if contract.is_reusing(self.network, flat, self.factors[0]):
            y = self._looked_up(contract.each(self.network, flat))
        else:
            digits = contract.digits_of(flat, self.fold.axis("i").modes)
            with full_precision(self.factors[0]):
                y = self._sum(lambda term, factors: contract.rows(self.plan_rows(term), factors, digits))
        return self._cut(y).reshape(*ids.shape, self.fold.axis("o").size)

    def bags(self, ids: Tensor, bags: Tensor, n_bags: int, weights: Tensor | None = None) -> Tensor:
        """(n_bags, out): sums of the rows `ids` (n,), times weights (n,), which get no gradient; `bags` (n,) says where each row goes."""
        if contract.is_reusing(self.network, ids, self.factors[0]):
            return self._cut(self._looked_up(contract.summed(self.network, ids, bags, n_bags, weights)))
        y = self.rows(ids) if weights is None else self.rows(ids) * weights.detach()[:, None]
        return y.new_zeros(n_bags, y.shape[1]).index_add(0, bags.to(torch.int64), y)

    def _looked_up(self, request: contract.Request) -> Tensor:
        terms, keep = self.network.terms, self.kept if self.is_kept() and Kept.is_possible(list(self.factors)) else None
        with full_precision(self.factors[0]):
            return self._sum(lambda term, factors: contract.look_up(terms[term], factors, request, keep))

    def convolve(self, x: Tensor, spatial: Callable[[Tensor, Tensor, int], Tensor], positions: Positions) -> Tensor:
        """(N, out, *positions) from (N, in, *positions).

        `spatial(x, weight, groups)` is the layer's own convolution with its stride, padding and dilation and without bias;
        `positions` are the numbers of places that it reads and writes, from which the plan's cost is computed.
        """
        x, is_kept, p, fold = cast(x, self._values()[0].dtype), self.is_kept(), positions, self.fold
        if self.is_rebuilt and not is_kept:
            return spatial(x, self.dense().to(x.dtype), fold.groups)
        if self._is_padded and fold.axis("i").padding:
            x = pad_channels(x, fold.groups, fold.axis("i").padding)
        sizes = (bucket(x.shape[0]), is_kept, p.n_in, p.n_out, p.kernel, p.is_transposed, p.stride)
        ready = self._ready(key := ("convolve", sizes[0], p, x.dtype), lambda term: self.plan_convolve(*sizes, term))
        if is_kept and not self._is_padded:
            self._prepared.remember("convolve", x, self.factors, key, lambda plan, one: contract.convolution(plan, one, x, p.is_pointwise))
        y = reduce(torch.add, [contract.convolve(plan, tensors, x, None if p.is_pointwise else spatial) for plan, tensors in ready])
        if self._is_padded and (axis := fold.axis("o")).padding:
            y = y.unflatten(1, (fold.groups, -1)).narrow(2, 0, axis.size // axis.groups).flatten(1, 2)
        return y

    # -- ranks ------------------------------------------------------------------------------------------------------

    def truncated(self, rank: str, keep: Sequence[int]) -> "FactorizedWeight":
        """A new weight with the slices `keep` of a rank; `dense()` is the same where all others are zero.

        Raises:
            ValueError: there is no such rank or slice, or nothing is kept.
        """
        if rank not in self.network.ranks:
            raise ValueError(
                f"{rank!r} is no rank of {self.network.statement!r}; its ranks are {list(self.network.ranks)}: name one of them"
            )
        factors, size = [factor.detach() for factor in self.factors], self.network.sizes[rank]
        if not keep or not set(keep) <= set(range(size)) or len(set(keep)) < len(keep):
            raise ValueError(f"the slices {list(keep)} are to be kept of rank {rank!r}, which has {size}; give different ones below that")
        for k, axis in self.network.carriers(rank):
            factors[k] = factors[k].index_select(axis, torch.tensor(keep, device=factors[k].device))
        smaller = FactorizedWeight(self.network.resized({rank: len(keep)}), self.fold, factors).train(self.training)
        for mine, other in zip(smaller.factors, self.factors, strict=True):
            mine.requires_grad_(other.requires_grad)
        return smaller

    # -- plans, made once from sizes --------------------------------------------------------------------------------
    # Dynamo calls these while tracing and bakes their results in: no search is ever part of a graph.

    @constant_result
    def plan_dense(self, term: int = 0) -> PairPlan:
        """How `dense` contracts the factors of a term."""
        return contract.plan_dense(self.network.terms[term])

    @constant_result
    def plan_rows(self, term: int = 0) -> RowsPlan:
        """How `rows` contracts gathered slices of a term."""
        return contract.plan_rows(self.network.terms[term])

    @constant_result
    def plan_apply(self, batch: int, is_cached: bool = True, term: int = 0) -> ContractionPlan:
        """How `apply` contracts an input of `batch` rows with a term; `print` it to see steps, FLOP and bytes."""
        return contract.plan_linear(self.network.terms[term], batch, is_cached, Machine.of(self.factors[0].device.type))

    @constant_result
    def plan_convolve(
        self,
        batch: int,
        is_cached: bool,
        n_in: int,
        n_out: int,
        kernel: tuple[int, ...],
        is_transposed: bool = False,
        stride: int = 1,
        term: int = 0,
    ) -> ContractionPlan:
        """How `convolve` contracts an input of `batch` samples; numbers only, because Dynamo hands over no objects made while tracing."""
        positions = Positions(n_in, n_out, kernel, is_transposed, stride)
        return contract.plan_convolution(self.network.terms[term], batch, is_cached, Machine.of(self.factors[0].device.type), positions)

    # -- results kept in eval ---------------------------------------------------------------------------------------

    def is_kept(self) -> bool:
        """Whether contractions of factors alone are kept between calls: in eval, without gradients, outside of tracing."""
        return not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._is_tracing())

    def _ready(self, key: tuple[Any, ...], plan_of: Callable[[int], ContractionPlan]) -> list[tuple[ContractionPlan, list[Tensor]]]:
        """For each term its plan, and the tensors that the steps of that need; the key ends with their dtype."""

        def make():  # Dynamo cannot trace an annotation here
            factors, plans = self._values(), [plan_of(number) for number in range(len(self.network.term_slices))]
            tensors = [contract.prepare(plan, factors[part]) for plan, part in zip(plans, self.network.term_slices, strict=True)]
            return [(plan, [one.to(key[-1]) for one in ones]) for plan, ones in zip(plans, tensors, strict=True)]

        return self.kept(key, make)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()`, or what it gave before, where `is_kept()` and no factor has changed since; `train()` and `eval()` forget all."""
        self._prepared.forget_where_trained()
        return self._prepared.find(key, self._values(), make) if self.is_kept() else make()

    def recall(self, verb: str, x: Tensor) -> Callable[..., Tensor] | None:
        """How `apply` or `convolve` was done for an input like x; None: call it. `self.factors` would take torch as long as a product."""
        return self._prepared.recall(verb, x, self._modules["factors"]) if self.is_kept() else None

    def _values(self) -> list[Tensor]:
        """The factors; a plain `ParameterList` is slow to iterate over, and its dictionary lacks those that are parametrised."""
        values: Any = self.factors._parameters
        if type(self.factors) is nn.ParameterList and [*values] == self._factor_names:  # pruning renames what it masks
            return list(values.values())
        for hook in self.factors._forward_pre_hooks.values():  # of pruning and the like, which make the values when a module is called
            hook(self.factors, ())
        return list(self.factors)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._prepared.clear()  # it would hold the memory of what `to()` and all like it replace
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Self:
        """torch's; what was kept is dropped, so that training does not hold memory for it."""
        self._prepared.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": Kept()}

    def extra_repr(self) -> str:
        """The statement, the ranks and the number of parameters."""
        return f"{self.network.statement!r}, ranks={self.network.ranks}, numel={self.network.numel:,}"


def check_std(std: float) -> None:
    """Raises ValueError where a standard deviation is none."""
    if not 0 <= std < math.inf:
        raise ValueError(f"the standard deviation is {std}; a finite number of at least 0 is needed: give the one that entries shall have")
