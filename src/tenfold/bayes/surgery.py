"""Surgery: puts a reduction into a weight that is being trained: new parameters, new ranks, and an optimiser that goes on.

Running means of gradients follow by the chain rule through the maps of the reduction, running means of squared gradients through the
squared maps, and running maxima of their sizes through the absolute ones. State that is none of these, or of another shape than its
parameter, cannot be mapped: that of the parameter starts anew.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tenfold.bayes.reduction import Reduction
from tenfold.network import Network
from tenfold.weight import FactorizedWeight

LINEAR = {"exp_avg", "momentum_buffer", "grad_avg", "prev"}  # in the gradient: Adam, SGD, RMSprop, Rprop
SQUARED = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta"}  # Adam, RMSprop, Adagrad, Adadelta
ABSOLUTE = {"exp_inf"}  # Adamax
VALUES = {"ax"}  # running means of the parameter itself: ASGD
STEPS = {"step_size"}  # of each entry: Rprop

StateMap = Callable[[Mapping[str, Tensor]], dict[str, Tensor] | None]
"""State tensors of a parameter's shape by name -> those of the new one; None where one of them is not known."""


def apply(weight: FactorizedWeight, reduction: Reduction, optimizers: Sequence[Optimizer] = ()) -> None:
    """Gives a weight the factors and ranks of a reduction, in place. Factors that keep shape and value keep their parameter.

    What is removed keeps no parameter and no state: momentum would move its zeros.
    """
    for number in range(len(weight.factors)):
        old = factor_parameter(weight, number)
        value = reduction.factors[number].to(old)
        if not reduction.is_removed and value.shape == old.shape and torch.equal(value, old.detach()):
            continue

        mapped = None if reduction.is_removed else partial(_mapped, reduction, number)
        setattr(weight.factors, str(number), replaced(optimizers, old, value, mapped))
    set_network(weight, weight.network.resized(reduction.sizes))


def _mapped(reduction: Reduction, number: int, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """What a reduction makes of the state of factor `number`; a `StateMap`."""
    made: dict[str, Tensor] = {}
    for name, one in state.items():
        wide = one.double()
        if name in LINEAR:
            made[name] = reduction.gradients(number, wide)
        elif name in SQUARED:
            made[name] = reduction.squared_gradients(number, wide)
        elif name in ABSOLUTE:
            made[name] = reduction.gradient_sizes(number, wide)
        elif name in VALUES:
            made[name] = reduction.values(number, wide)
        elif name in STEPS:  # the smallest one everywhere: steps that are too small grow by a fifth each time
            made[name] = torch.full_like(reduction.factors[number], float(wide.min()), dtype=wide.dtype)
        else:
            return None
    if "grad_avg" in state:  # RMSprop takes the root of square_avg - grad_avg^2, which is mapped for that reason and stays positive
        spread = (state["square_avg"].double() - state["grad_avg"].double().square()).clamp_min(0)
        made["square_avg"] = reduction.squared_gradients(number, spread) + made["grad_avg"].square()
    return made


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
        tensors = {name: one for name, one in (state or {}).items() if isinstance(one, Tensor) and one.dim()}
        if state and mapped is not None and all(one.shape == old.shape for one in tensors.values()):
            made = mapped(tensors)
            if made is not None:
                optimizer.state[new] = {**state, **{name: one.to(tensors[name]).contiguous() for name, one in made.items()}}
    return new
