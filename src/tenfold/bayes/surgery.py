"""Surgery: puts a reduction into a weight that is being trained: new parameters, new ranks, and an optimiser that goes on.

Running means of gradients follow by the chain rule through the maps of the reduction, running means of squared gradients through the
squared maps. State of another shape than its parameter cannot be mapped and starts anew.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tenfold.bayes.reduction import Reduction
from tenfold.network import Network
from tenfold.weight import FactorizedWeight

SQUARED = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta"}  # Adam, RMSprop, Adagrad, Adadelta
VALUES = {"ax"}  # running means of the parameter itself: ASGD

StateMap = Callable[[str, Tensor], Tensor]


def apply(weight: FactorizedWeight, reduction: Reduction, optimizers: Sequence[Optimizer] = ()) -> None:
    """Gives a weight the factors and ranks of a reduction, in place. Factors that keep shape and value keep their parameter."""
    for number in range(len(weight.factors)):
        old = factor_parameter(weight, number)
        value = reduction.factors[number].to(old)
        if value.shape == old.shape and torch.equal(value, old.detach()):
            continue

        def mapped(name: str, state: Tensor, number: int = number) -> Tensor:
            wide = state.double()
            if name in SQUARED:
                return reduction.squared_gradients(number, wide)
            return reduction.values(number, wide) if name in VALUES else reduction.gradients(number, wide)

        setattr(weight.factors, str(number), replaced(optimizers, old, value, mapped))
    set_network(weight, weight.network.resized(reduction.sizes))


def resize(weight: FactorizedWeight, sizes: Mapping[str, int]) -> None:
    """Gives a weight other ranks and factors of zeros in place, which a state dictionary can then be loaded into."""
    network = weight.network.resized(sizes)
    for number, shape in enumerate(network.shapes):
        old = factor_parameter(weight, number)
        if tuple(old.shape) != shape:
            setattr(weight.factors, str(number), nn.Parameter(old.new_zeros(shape), requires_grad=old.requires_grad))
    set_network(weight, network)


def set_network(weight: FactorizedWeight, network: Network) -> None:
    """Gives a weight whose factors were replaced the network that they belong to."""
    weight.network = network
    assert network.term_slices  # computed here: Dynamo does not enter the lock of an empty cached property (Python < 3.12)
    weight.train(weight.training)  # forgets what was contracted from the old factors


def factor_parameter(weight: FactorizedWeight, number: int) -> nn.Parameter:
    """The parameter itself, whatever the container of the factors makes of it when it is read."""
    return getattr(weight.factors, str(number))


def replaced(optimizers: Sequence[Optimizer], old: nn.Parameter, value: Tensor, mapped: StateMap | None = None) -> nn.Parameter:
    """A new parameter with a value, in the old one's place in the optimisers; its state is mapped, or starts anew without `mapped`."""
    new = nn.Parameter(value.detach().clone().contiguous(), requires_grad=old.requires_grad)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"] = [new if one is old else one for one in group["params"]]
        state: dict[str, Any] | None = optimizer.state.pop(old, None)
        if (
            state
            and mapped is not None
            and all(not isinstance(one, Tensor) or one.dim() == 0 or one.shape == old.shape for one in state.values())
        ):
            optimizer.state[new] = {
                name: mapped(name, one).to(one).contiguous() if isinstance(one, Tensor) and one.dim() else one
                for name, one in state.items()
            }
    return new
