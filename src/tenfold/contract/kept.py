"""What stays between calls: results of factors, until one of them changes, and results that tracing may bake in."""

from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

_is_any_autocast_enabled: Any = torch._C._is_any_autocast_enabled
MOST_CALLS = 16  # of different inputs, that it is known of how they are done


def constant_result(function: Any) -> Any:
    """The function, marked as torch.compiler.assume_constant_result marks it; that would import all of Dynamo, which takes seconds."""
    function._dynamo_marked_constant = True
    return function


class Kept(dict[Any, tuple[Any, Any]]):
    """Results by their keys, each with the state that the factors had when it was made; and how calls were done.

    A change is seen by a tensor's version, which writing through `factor.data` and fused optimisers do not raise. To look at values
    costs too much: the sum of each factor adds 30 % to the call of a small layer, and 32 bytes read from the memory of each 10 %.

    A call that is like an earlier one is done as that was, without a decision: to find plan and tensors takes as long as a small product.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[Any, Callable[..., Tensor]] = {}
        self._state: list[tuple[Tensor, int, int]] = []  # of the factors, for all calls

    def clear(self) -> None:
        super().clear()
        self._calls.clear()
        self._state = []

    def remember(self, verb: str, x: Tensor, factors: Any, runs: Sequence[Callable[..., Tensor]]) -> None:
        """A call with x is the sum of `runs`, and so are all others like it; factors that something else makes are not known."""
        values = factors._parameters.values()
        is_made = type(factors) is not nn.ParameterList or factors._forward_pre_hooks
        if is_made or _is_any_autocast_enabled() or not self.is_possible(list(values)):
            return
        if len(self._calls) == MOST_CALLS or not self._is_current(values):
            self._calls.clear()
        self._calls[verb, x.shape, x.dtype] = runs[0] if len(runs) == 1 else lambda *given: reduce(torch.add, [run(*given) for run in runs])
        self._state = [(factor, factor._version, factor.data_ptr()) for factor in values]

    def recall(self, verb: str, x: Tensor, factors: Any) -> Callable[..., Tensor] | None:
        """How an earlier call was done, where x is like its input and no factor has changed."""
        run = self._calls.get((verb, x.shape, x.dtype)) if type(x) is Tensor else None
        if run is None or factors._forward_pre_hooks or _is_any_autocast_enabled():
            return None
        return run if self._is_current(factors._parameters.values()) else None

    def _is_current(self, factors: Collection[Any]) -> bool:
        if len(factors) != len(self._state):
            return False
        for factor, (known, version, pointer) in zip(factors, self._state, strict=True):
            if factor is not known or factor._version != version or factor.data_ptr() != pointer:
                return False
        return True

    @staticmethod
    def is_possible(factors: Sequence[Tensor]) -> bool:
        """Whether factors have a state: what torch.func puts in the place of parameters comes and goes, inference tensors have none."""
        # the type is looked at first: torch's isinstance of parameters takes longer than a small product
        return all((type(one) is nn.Parameter or isinstance(one, nn.Parameter)) and not one.is_inference() for one in factors)

    def find(self, key: Any, factors: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        """`make()`, or what it gave before where no factor has changed since."""
        if not self.is_possible(factors):
            return make()
        state = [(id(factor), factor._version, factor.data_ptr()) for factor in factors]
        if (found := self.get(key)) is None or found[0] != state:
            if found is not None:
                self.clear()  # a factor changed: everything that was built from it is stale
            self[key] = (state, make())
        return self[key][1]

    def forget_where_trained(self) -> None:
        """Drops everything where gradients may be asked for: fused optimisers change factors and leave their versions as they are."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling() and self:
            self.clear()
