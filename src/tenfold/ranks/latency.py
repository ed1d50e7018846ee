"""Latency: what a plan picks is timed beside the dense layers, and what is slower is not used.

A budget of FLOP says nothing of time: a depthwise convolution runs at a fraction of the rate of a dense one. So the picks of a plan are
raced against the dense layers, on the inputs that these get inside the model, in turns within one run. What is slower is left out
together with all ranks of that format that need at least as many FLOP, and the plan is made again from what is left, until nothing
that it picks is slower.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn

from tenfold.budget import Budget
from tenfold.plan_data import Plan
from tenfold.progress import Progress
from tenfold.ranks.candidates import Candidate
from tenfold.ranks.offers import Offers
from tenfold.ranks.reached import Picks, settled
from tenfold.running import batch_size
from tenfold.survey import Found
from tenfold.timing import run_layers
from tenfold.weight import FactorizedWeight

Latency: TypeAlias = Literal["auto", "measured", "ignored"]
LATENCIES: tuple[Latency, ...] = get_args(Latency)
ROUNDS = 40  # at most; each takes choices away, 2 to 8 are usual
LOSS_RATIO, LOSS_MORE = 2.0, 0.1  # what speed may cost unasked: this times the loss, or so much more, in `Offers.loss_unit`
NAMED = 3  # layers in a message


def timed_plan(offers: Offers, goal: Budget | None, latency: Latency, inputs: Any, progress: Progress) -> tuple[Offers, Plan]:
    """The plan for a budget, and the offers with what was measured for it.

    Args:
        latency: "measured": what is slower than dense is never used; "auto": it is, with a warning, where a budget of FLOP cannot be met
            without it or only at a much larger loss.

    Raises:
        ValueError: the budget is impossible, or with what is not slower; the message names the smallest that can be reached.
    """
    offers, free = settled(offers, lambda one: (one, one.pick(goal)), progress)
    if latency == "ignored" or (latency == "auto" and not (goal is not None and goal.counts_flops)):
        return offers, offers.plan_of(free, goal)
    progress("timing layers", 0, ROUNDS)
    offers = _timed(offers, free, inputs)
    if not (slow := _slow(offers, free)):
        progress("timing layers", ROUNDS, ROUNDS)
        return offers, offers.plan_of(free, goal)

    def pick(one: Offers) -> tuple[Offers, Picks]:
        one = _measured(one, goal, inputs, progress)
        return one, _fast(one).pick(goal)

    try:
        fast, picked = settled(offers, pick, progress)
    except ValueError as error:
        if latency == "measured":
            raise ValueError(f'{error} (what ran slower than dense here is left out; with latency="ignored" it may be used)') from error
        problem = f"{goal} cannot be kept by layers that all run as fast as dense here"
    else:
        loss, least = fast.loss(picked), offers.loss(free)
        if latency == "measured" or loss <= max(LOSS_RATIO * least, LOSS_MORE + least):
            return fast, fast.plan_of(picked, goal)
        problem = (
            f"{goal} with layers that all run as fast as dense here has a loss of {loss:.2g} in place of {least:.2g} ({offers.loss_unit})"
        )
    warnings.warn(
        f"{problem}; the plan is made without regard to times, and {', '.join(slow[:NAMED])}{' and others' if len(slow) > NAMED else ''} "
        'may be slower: keep more FLOP for a faster model, or ask for latency="measured"',
        stacklevel=3,
    )
    return offers, offers.plan_of(free, goal)


def _measured(offers: Offers, goal: Budget | None, inputs: Any, progress: Progress) -> Offers:
    """The offers with the speed-ups of all that plans for this budget would pick."""
    for number in range(ROUNDS):
        progress("timing layers", number, ROUNDS)
        try:
            picked = _fast(offers).pick(goal)
        except ValueError:
            break
        offers = _timed(offers, picked, inputs)
        if not _slow(offers, picked):
            break
    progress("timing layers", ROUNDS, ROUNDS)
    return offers


def _timed(offers: Offers, picked: Picks, inputs: Any) -> Offers:
    """The offers with the speed-ups of these candidates too."""
    fresh = {name: one for name, one in picked.items() if (name, one) not in offers.speeds}
    if not fresh:
        return offers
    speeds = measured_speedups(offers, fresh, inputs)
    slow = {name: one for name, one in fresh.items() if speeds.get((name, one), 1.0) < 1}
    if slow:  # a machine that is busy with other work for a moment is no reason to leave something out
        again = measured_speedups(offers, slow, inputs)
        speeds |= {key: max(speed, speeds[key]) for key, speed in again.items()}
    return replace(offers, speeds={**offers.speeds, **speeds})


def _slow(offers: Offers, picked: Picks) -> list[str]:
    """The layers of which these candidates ran slower than dense."""
    return [name for name, one in picked.items() if offers.speeds.get((name, one), 1.0) < 1]


def _fast(offers: Offers) -> Offers:
    """The offers without those that ran slower than dense, and without others of their format that need at least as many FLOP."""
    limits: dict[tuple[str, type], int] = {}
    for (name, one), speed in offers.speeds.items():
        if speed < 1:
            limits[name, type(one.format)] = min(one.flops, limits.get((name, type(one.format)), one.flops))
    return offers.without(lambda layer, one: one.flops >= limits.get((layer.name, type(one.format)), float("inf")))


def measured_speedups(offers: Offers, picked: Mapping[str, Candidate], inputs: Any) -> dict[tuple[str, Candidate], float]:
    """Speed-ups by (layer, candidate): the smaller one of the ratio of medians and that of minima, dense / factorised.

    Layers of the same kind, shape and calls are timed once. One that the inputs do not reach has none.
    """
    layers = {one.name: one for one in offers.layers}
    same: dict[Any, list[str]] = {}
    for name, candidate in picked.items():
        same.setdefault(_kind(offers, layers[name], candidate), []).append(name)
    firsts = [names[0] for names in same.values()]
    pairs = {name: (layers[name].module, _stand_in(layers[name], picked[name])) for name in firsts}
    device = next((p.device for p in offers.model.parameters()), torch.device("cpu"))
    made = nn.ModuleList(layer for _, layer in pairs.values())
    runs = run_layers(offers.model, made, pairs, set(firsts), inputs, (max(1, batch_size(inputs)),), device, lambda *_: None)
    result = {}
    for names in same.values():
        for race in runs[names[0]].races if names[0] in runs else ():
            speedup = min(race.speedup, race.dense_min_ms / race.small_min_ms)
            result |= {(name, picked[name]): speedup for name in names}
    return result


def _kind(offers: Offers, layer: Found, candidate: Candidate) -> Any:
    """What layers that take the same time have in common."""
    calls = offers.steps.calls.get(layer.name, []) if offers.steps else []
    module = layer.module
    return type(module), module.extra_repr(), layer.weight.dtype, tuple(calls), candidate.format, candidate.fold


def _stand_in(layer: Found, candidate: Candidate) -> nn.Module:
    """A factorised layer with random factors: times do not depend on values."""
    assert layer.layer is not None and candidate.format is not None and candidate.fold is not None
    like = layer.weight
    weight = FactorizedWeight(candidate.format.network(candidate.fold), candidate.fold, device=like.device, dtype=like.dtype)
    made: Any = layer.layer.around(layer.module, weight)
    with torch.random.fork_rng(devices=[like.device] if like.device.type == "cuda" else []):
        made.reset_parameters()
    return made
