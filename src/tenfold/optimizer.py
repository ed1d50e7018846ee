"""The optimiser of fine-tuning and its learning rates."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from tenfold.messages import check_kind

MakeOptimizer: TypeAlias = Callable[..., Optimizer]

# Chosen on a CP ResNet-20 (CIFAR-10, half the FLOP, distillation, clipped gradients), 100 steps: AdamW agrees with the dense model on
# 95.0 % of held-out images at 3e-4 and 95.1 % at 1e-3, then falls (93.1 % at 3e-3, 86.8 % at 1e-2); before training it is 92.1 %. SGD with
# Nesterov momentum is as good there at 0.01 to 0.03 (95.6, 95.1 %; at 0.1 93.7 %) and after 350 steps a little better (96.0 against
# 95.8 %), but its rate would have to be found anew for every network: AdamW's step does not depend on the scale of a factor.
LR = 1e-3
# Adam moves every value by about the rate in each step, so few steps at a high rate only add noise: 3 steps on a compressed Tiny Darknet at
# 1e-3 took its accuracy from 55.9 to 42.2 %, at 1e-4 to 58.0 %. Shorter runs than this peak at a rate in proportion to their steps.
FULL_RATE_STEPS = 100
WEIGHT_DECAY = 1e-4
LAST_LR = 0.01  # of the peak: what the cosine ends at


def make_optimizer(
    model: nn.Module,
    optimizer: Optimizer | MakeOptimizer | None,
    lr: float | None,
    weight_decay: float | None,
    steps: int = FULL_RATE_STEPS,
    scales: Mapping[nn.Parameter, float] | None = None,
) -> Optimizer:
    """The optimiser itself where one is given, else one made for the parameters that require gradients.

    Parameters with one axis (biases, norms) get no weight decay. `steps` is the length of the run, for which a rate is chosen; `scales`
    are parts of the rate that the parameters of single modules get (see `stable_scales`): each of these is a group of its own, behind
    all other parameters and in the order of the model.

    Raises:
        ValueError: nothing in the model requires gradients, an optimiser is for other parameters, or `lr` or `scales` come with a made
            optimiser.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(
            f"no parameter of this {type(model).__name__} requires gradients; at least one is needed: call requires_grad_(True)"
        )
    if isinstance(optimizer, Optimizer):
        _check_made(model, optimizer, lr, weight_decay)
        if scales is not None:
            raise ValueError(
                f"bound_lr comes with an {type(optimizer).__name__} that has its groups and rates; a group for each factorised weight is "
                "needed: give the optimiser's class, or a functools.partial of it, or leave bound_lr out"
            )
        return optimizer
    if lr is not None and not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr is {lr}; a learning rate is above 0 and finite: leave it out, or give one like {LR:g}")
    if optimizer is None:
        optimizer, lr = AdamW, lr or LR * min(1.0, steps / FULL_RATE_STEPS)
        weight_decay = WEIGHT_DECAY if weight_decay is None else weight_decay
    check_kind("optimizer", optimizer, Callable | None, "an optimiser or its class is needed: give for instance torch.optim.SGD")
    groups: list[dict[str, Any]] = []
    # not by the values of the scales: a resumed run finds others in a model that is half trained, and must find the same groups
    owners = {p: k for k, module in enumerate(model.modules()) for p in module.parameters(recurse=False) if p in (scales or {})}
    for owner in dict.fromkeys([None, *(owners.get(p) for p in trainable)]):
        same = [p for p in trainable if owners.get(p) == owner]
        scale = 1.0 if owner is None or scales is None else scales[same[0]]
        matrices: dict[str, Any] = {"params": [p for p in same if p.dim() > 1]}
        vectors: dict[str, Any] = {"params": [p for p in same if p.dim() <= 1], "weight_decay": 0.0}
        if weight_decay is not None:
            matrices["weight_decay"] = weight_decay
        groups += [{**group, "scale": scale} if scales else group for group in (matrices, vectors) if group["params"]]
    made = optimizer(groups) if lr is None else optimizer(groups, lr=lr)
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"optimizer made a {type(made).__name__}; a torch.optim.Optimizer is needed: give its class, a functools.partial of it, "
            "or an instance"
        )
    for group in made.param_groups:
        group["lr"] = group["lr"] * group.pop("scale", 1.0)
    return made


def _check_made(model: nn.Module, optimizer: Optimizer, lr: float | None, weight_decay: float | None) -> None:
    if lr is not None or weight_decay is not None:
        raise ValueError(
            f"lr={lr} and weight_decay={weight_decay} come with an {type(optimizer).__name__} that has its own; only one can hold: "
            "leave them out, or give the optimiser's class"
        )
    known = {id(p) for p in model.parameters()}
    mine = [id(p) in known for group in optimizer.param_groups for p in group["params"]]
    if not any(mine):
        raise ValueError(
            f"the {type(optimizer).__name__} has {len(mine)} parameters, none of them of this {type(model).__name__}; compression makes "
            "new parameters: build the optimiser after it"
        )


class Schedule:
    """Sets the learning rates of every step: a linear warm-up, then a cosine down to 1 % of the optimiser's own rates.

    A function of the step alone, so it has no state to keep.
    """

    def __init__(self, optimizer: Optimizer, steps: int, warmup: int) -> None:
        self.optimizer, self.steps, self.warmup = optimizer, steps, warmup
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]

    def scale(self, step: int) -> float:
        """The part of the peak rate at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return LAST_LR + (1 - LAST_LR) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    def set(self, step: int) -> float:
        """Sets the rates of a step and returns that of the first group."""
        self._write([peak * self.scale(step) for peak in self.peaks])
        return self.peaks[0] * self.scale(step)

    def reset(self) -> None:
        """Gives the optimiser its own rates back."""
        self._write(self.peaks)

    def _write(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
