"""Run: what a rank method knows of the training that it is part of: weights, steps, learning rates, sizes and spectra over time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tenfold.bayes.factorized_weights import check_untied, check_whole, factorized_weights
from tenfold.bayes.guards import COLLAPSED, check_finite, root_mean_square, warn_collapsed
from tenfold.bayes.held_factors import HeldFactors
from tenfold.bayes.report import LayerReport
from tenfold.bayes.surgery import factor_parameter, resize
from tenfold.bayes.watched import Watched, has_own_list, held
from tenfold.weight import FactorizedWeight

RECORDS = 64  # spectra kept for a rank; when there are more, every other one is dropped
EVERY = 50  # steps between two of them at first

Spectra = Mapping[str, Mapping[str, Tensor]]
"""By layer and rank, a value for each slice: its variance, scale or size."""
Values = Callable[[str], Sequence[Tensor]]
"""The factors of a layer that the model computes with in eval."""


class Run:
    """The weights of a model and their history.

    Args:
        layers: names or patterns; all factorised layers that are trained where it is None.

    Raises:
        ValueError: a layer has a method already, is a part of a sharded table, shares a factor, or is named and frozen; or all layers
            are frozen.
    """

    def __init__(self, model: nn.Module, layers: Any = None) -> None:
        found = factorized_weights(model, layers)
        check_whole(model, found)
        frozen = [name for name, one in found.items() if not any(factor.requires_grad for factor in one.factors.parameters())]
        if frozen and (layers is not None or len(frozen) == len(found)):
            raise ValueError(
                f"the layers {', '.join(frozen)} are frozen: no factor requires a gradient; a rank method changes the factors of its "
                "layers: leave these out, or call requires_grad_(True) on them"
            )
        self.weights: dict[str, FactorizedWeight] = {name: one for name, one in found.items() if name not in frozen}
        check_untied(model, self.weights)
        if taken := [name for name, one in self.weights.items() if type(one.factors) is not nn.ParameterList]:
            raise ValueError(
                f"the layers {', '.join(taken)} have a rank method already; a layer takes one at a time: call its finish() first"
            )
        self.is_released = False
        self.steps = 0
        self.every = EVERY
        self.watched = Watched()
        self.start_networks = {name: one.network for name, one in self.weights.items()}
        self.start_sizes = {name: root_mean_square(one.network, list(one.factors)) for name, one in self.weights.items()}
        self.sizes = {name: 1.0 if size else math.nan for name, size in self.start_sizes.items()}
        self.collapsed: set[str] = set()
        self.removed: set[str] = set()
        self.trained: dict[str, set[str]] = {}
        self.history: dict[str, dict[str, list[tuple[int, tuple[float, ...]]]]] = {
            name: {rank: [] for rank in one.network.ranks} for name, one in self.weights.items()
        }

    @property
    def live(self) -> dict[str, FactorizedWeight]:
        """The weights that have not been removed."""
        return {name: one for name, one in self.weights.items() if name not in self.removed}

    def weight(self, name: str) -> FactorizedWeight:
        """The weight of a layer by its name.

        Raises:
            ValueError: the method has no such layer.
        """
        if name not in self.weights:
            raise ValueError(f"there is no layer {name!r}; the method has {', '.join(self.weights)}: give the name of one of these")
        return self.weights[name]

    def hold(self, containers: Mapping[str, nn.ParameterList] | None = None) -> None:
        """Marks the weights as taken: puts containers, made for all of them before, in the place of their lists of factors."""
        for name, weight in self.weights.items():
            container = HeldFactors(weight.factors) if containers is None else containers[name]
            weight.factors = container.train(weight.training)
            self.trained[name] = {key for key, one in weight.factors.named_parameters() if one.requires_grad}

    def freeze_removed(self) -> None:
        """What was removed stays zero: no optimiser moves it, not even where factors of zeros have gradients, as in sums."""
        for name in self.removed:
            self.weights[name].factors.requires_grad_(False)

    def check_held(self) -> None:
        """Raises RuntimeError after `release`: what the model computes with is no longer what a method knows."""
        if self.is_released:
            raise RuntimeError(
                "the rank method is finished, and its model a plain one again; steps, decisions and draws come before finish(): attach a "
                "method anew"
            )

    def release(self) -> None:
        """Gives the weights plain lists of their parameters again."""
        self.is_released = True
        for weight in self.weights.values():
            weight.factors = nn.ParameterList(factor_parameter(weight, number) for number in range(len(weight.factors)))
            weight.train(weight.training)

    def watch(self, optimizer: Optimizer) -> None:
        """Follows the learning rates of an optimiser, and lets decisions change its parameters and state.

        Raises:
            ValueError: it trains factors of a layer, and nothing that is watched trains what the method has added to them; or it
                keeps lists of its own of parameters, in which decisions cannot replace any.
            TypeError: it is no optimiser.
        """
        if not isinstance(optimizer, Optimizer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"a {type(optimizer).__name__} was given to be watched; a torch.optim.Optimizer is needed: give the one that trains the "
                "factors, whatever schedules its rates"
            )
        mine, every = held([optimizer]), held([*self.watched.optimizers, optimizer])
        for name, weight in self.live.items():
            factors = {id(factor_parameter(weight, number)) for number in range(len(weight.factors))}
            added = {key: id(one) for key, one in weight.factors.named_parameters() if one.requires_grad and id(one) not in factors}
            missing = [key for key, one in added.items() if one not in every]
            if missing and factors & mine:
                raise ValueError(
                    f"the optimiser trains factors of layer {name!r} but not {', '.join(missing)}, which the rank method has added; it "
                    "finds no ranks without these: make the optimiser from the model's parameters after the method is attached"
                )
            if has_own_list(optimizer) and not mine.isdisjoint(map(id, weight.factors.parameters())):
                raise ValueError(
                    f"the optimiser that trains layer {name!r} is a {type(optimizer).__name__}, which keeps a list of parameters beside "
                    "its groups; a decision replaces parameters in groups alone, and the new ones would not be trained: watch an optimiser "
                    "such as Adam, or watch none and make this one anew after every shrink()"
                )
        self.watched.add(optimizer)

    def observe(self, spectra: Spectra, values: Values) -> None:
        """Takes note of a step: rates always, sizes and spectra every so many steps. Warns of weights that have collapsed."""
        self.watched.observe()
        if self.steps % self.every:
            return
        for name, ranks in spectra.items():
            check_finite(name, ranks, self.steps)
        self.record(spectra)
        for name in self.measure(values) - self.collapsed:
            self.collapsed.add(name)
            warn_collapsed(name, self.sizes[name], self.steps)

    def measure(self, values: Values) -> set[str]:
        """Measures the weights against their start, or where that is zero their first other size; those that have collapsed."""
        for name, weight in self.live.items():
            now = root_mean_square(weight.network, values(name))
            start = self.start_sizes[name] = self.start_sizes[name] or now
            self.sizes[name] = now / start if start else math.nan
        return {name for name in self.live if self.sizes[name] < COLLAPSED}

    def record(self, spectra: Spectra) -> None:
        """Keeps the spectra of this step."""
        for name, ranks in spectra.items():
            for rank, values in ranks.items():
                entries = self.history[name][rank]
                if not entries or entries[-1][0] < self.steps:
                    entries.append((self.steps, tuple(values.detach().double().sort(descending=True).values.tolist())))
        if any(len(entries) > RECORDS for ranks in self.history.values() for entries in ranks.values()):
            self.every *= 2
            for ranks in self.history.values():
                for rank, entries in ranks.items():
                    ranks[rank] = entries[:1] + entries[2::2]

    def layer_reports(self) -> list[LayerReport]:
        """Every weight over time, with the sizes that were measured last."""
        return [
            LayerReport(
                name,
                one.network.statement,
                dict(self.start_networks[name].ranks),
                dict(one.network.ranks),
                self.start_networks[name].numel,
                0 if name in self.removed else one.network.numel,
                0.0 if name in self.removed else self.sizes[name],
                name in self.removed,
                {rank: list(entries) for rank, entries in self.history[name].items() if entries},
            )
            for name, one in self.weights.items()
        ]

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on: plain values and tensors."""
        return {
            "steps": self.steps,
            "every": self.every,
            "peaks": self.watched.state(),
            "ranks": {name: dict(one.network.ranks) for name, one in self.weights.items()},
            "start_sizes": dict(self.start_sizes),
            "sizes": dict(self.sizes),
            "collapsed": sorted(self.collapsed),
            "removed": sorted(self.removed),
            "history": {name: {rank: list(entries) for rank, entries in ranks.items()} for name, ranks in self.history.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved state back, and gives the weights their saved ranks; their values are those of the model's own state.

        Raises:
            ValueError: the state is that of other layers, or of other ranks by name.
        """
        mine = {name: list(one.network.ranks) for name, one in self.weights.items()}
        saved = {name: list(ranks) for name, ranks in state["ranks"].items()}
        if mine != saved:
            raise ValueError(
                f"the state is for the ranks {saved}, but this model has {mine}; they must have the same names: build the model and "
                "attach as before"
            )
        for name, weight in self.weights.items():
            if name in self.removed:  # it may not have been at the time of the state
                for key, one in weight.factors.named_parameters():
                    one.requires_grad_(key in self.trained[name])
            if dict(weight.network.ranks) != dict(state["ranks"][name]):
                resize(weight, state["ranks"][name])
        self.steps, self.every = state["steps"], state["every"]
        self.watched.load(state["peaks"])
        self.start_sizes, self.sizes = dict(state["start_sizes"]), dict(state["sizes"])
        self.collapsed, self.removed = set(state["collapsed"]), set(state["removed"])
        self.history = {
            name: {rank: [(step, tuple(values)) for step, values in entries] for rank, entries in ranks.items()}
            for name, ranks in state["history"].items()
        }


def agree(value: Any) -> Any:
    """What the first process of a distributed run has computed; the value itself where there is one process."""
    if _n_processes() == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def averaged(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes of a distributed run; itself where there is one."""
    if (n_processes := _n_processes()) == 1:
        return value
    total = value.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total / n_processes


def _n_processes() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
