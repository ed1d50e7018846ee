"""What stays between calls: results of factors, until one of them changes, and results that tracing may bake in."""

from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

_is_any_autocast_enabled: Any = torch._C._is_any_autocast_enabled
_dispatch_mode: Any = torch._C._get_dispatch_mode
_FAKE: Any = torch._C._TorchDispatchModeKey.FAKE
# a factor, its version and where its values lie; and the values as they lay there: memory that is held is not taken for other values
_State: TypeAlias = list[tuple[Tensor, int, int, Tensor]]
MOST_CALLS = 16  # of different inputs, that it is known of how they are done


def constant_result(function: Any) -> Any:
    """The function, marked as torch.compiler.assume_constant_result marks it; that would import all of Dynamo, which takes seconds."""
    function._dynamo_marked_constant = True
    return function


class Kept(dict[Any, tuple[Any, Any]]):
    """Results by their keys, each with the state that the factors had before it was made; and how calls were done.

    A change is seen by a tensor's version, which writing through `factor.data` and fused optimisers do not raise. To look at values
    costs too much: the sum of each factor adds 30 % to the call of a small layer, and 32 bytes read from the memory of each 10 %.

    A call that is like an earlier one is done as that was, without a decision: to find plan and tensors takes as long as a small product.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[Any, tuple[_State, Callable[..., Tensor]]] = {}

    def clear(self) -> None:
        super().clear()
        self._calls.clear()

    def remember(self, verb: str, x: Tensor, factors: Any, key: Any, run_of: Callable[..., Callable[..., Tensor]]) -> None:
        """A call with x, and all others like it, is the sum of `run_of` of each part of what is kept for `key`.

        Factors that something else makes are not known.
        """
        found, values = self.get(key), factors._parameters.values()
        is_made = type(factors) is not nn.ParameterList or factors._forward_pre_hooks
        if found is None or is_made or type(x) is not Tensor or _is_any_autocast_enabled() or _is_passing():
            return
        known = {id(one[0]): one for one in found[0]}
        state = [known[id(value)] for value in values if id(value) in known]  # pruning leaves them in another order
        if not _is_current(state, values):
            return
        if len(self._calls) >= MOST_CALLS:
            self._calls.clear()
        runs = [run_of(*one) for one in found[1]]
        run = runs[0] if len(runs) == 1 else lambda *given: reduce(torch.add, [run(*given) for run in runs])
        self._calls[verb, x.shape, x.dtype] = (state, run)

    def recall(self, verb: str, x: Tensor, factors: Any) -> Callable[..., Tensor] | None:
        """How an earlier call was done, where x is like its input and no factor has changed."""
        try:
            found = self._calls.get((verb, x.shape, x.dtype)) if type(x) is Tensor else None
        except TypeError:  # sizes that a tracer leaves open have no hash
            return None
        if found is None or factors._forward_pre_hooks or _is_any_autocast_enabled():
            return None
        return found[1] if _is_current(found[0], factors._parameters.values()) else None

    @staticmethod
    def is_possible(factors: Sequence[Tensor]) -> bool:
        """Whether factors have a state: what torch.func puts in the place of parameters comes and goes, inference tensors have none."""
        # the type is looked at first: torch's isinstance of parameters takes longer than a small product
        return all((type(one) is nn.Parameter or isinstance(one, nn.Parameter)) and not one.is_inference() for one in factors)

    def find(self, key: Any, factors: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        """`make()`, or what it gave before where no factor has changed since."""
        if not self.is_possible(factors):
            return make()
        found = self.get(key)
        if found is not None and _is_current(found[0], factors):
            return found[1]
        if found is not None:
            self.clear()  # a factor changed: everything that was built from it is stale
        # the state comes first, and with its result: another thread may change a factor or clear all of this meanwhile
        found = (_state(factors), make())
        if not _is_passing():
            self[key] = found
        return found[1]

    def forget_where_trained(self) -> None:
        """Drops everything where gradients may be asked for: fused optimisers change factors and leave their versions as they are."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling() and self:
            self.clear()


def _state(factors: Sequence[Tensor]) -> _State:
    return [(factor, factor._version, factor.data_ptr(), factor.detach()) for factor in factors]


def _is_current(state: _State, factors: Collection[Tensor]) -> bool:
    if len(factors) != len(state):
        return False
    for factor, (known, version, pointer, _) in zip(factors, state, strict=True):
        # the version comes last: inference tensors, which may be swapped in, have none
        if factor is not known or factor.data_ptr() != pointer or factor._version != version:
            return False
    return True


def _is_passing() -> bool:
    """Whether tensors that are made now are of no use later: those of torch.func's transforms, and fake ones."""
    return torch._C._are_functorch_transforms_active() or _dispatch_mode(_FAKE) is not None
