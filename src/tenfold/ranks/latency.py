"""Latency: what a plan picks is timed beside the dense layers, and what is slower is not used.

A budget of FLOP says nothing of time: a depthwise convolution runs at a fraction of the rate of a dense one. So the picks of a plan are
raced against the dense layers, on the inputs that these get inside the model, in turns within one run. What is slower is left out
together with all ranks of that format that need at least as many FLOP, and the plan is made again from what is left, until nothing
that it picks is slower.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tenfold.budget import Budget
from tenfold.progress import Progress
from tenfold.ranks.candidates import Candidate
from tenfold.ranks.offers import Offers
from tenfold.survey import Found, batch_size
from tenfold.weight import FactorizedWeight

ROUNDS = 40  # at most; each takes choices away, 2 to 8 are usual


def not_slower(offers: Offers, goal: Budget | None, inputs: Any, progress: Progress) -> Offers:
    """The offers without what ran slower than dense, as far as plans for this budget would pick it; with the measured speed-ups.

    Raises:
        ValueError: what is left cannot meet the budget; the message names the smallest that can be reached.
    """
    for number in range(ROUNDS):
        progress("timing layers", number, ROUNDS)
        picked = _pick(offers, goal)
        fresh = {name: one for name, one in picked.items() if (name, one) not in offers.speeds}
        speeds = {**offers.speeds, **measured_speedups(offers, fresh, inputs)}
        slow = {name: one for name, one in fresh.items() if speeds.get((name, one), 1.0) < 1}
        offers = offers.without(lambda layer, one, slow=slow: _is_no_better(slow.get(layer.name), one), speeds)
        if not slow:
            break
    progress("timing layers", ROUNDS, ROUNDS)
    return offers


def _is_no_better(slow: Candidate | None, one: Candidate) -> bool:
    """Whether a candidate is of the format of a slow one and needs at least as many FLOP."""
    return slow is not None and type(one.format) is type(slow.format) and one.flops >= slow.flops


def _pick(offers: Offers, goal: Budget | None) -> dict[str, Candidate]:
    try:
        return offers.pick(goal)
    except ValueError as error:
        if not offers.speeds:
            raise
        raise ValueError(f"{error} (what ran slower than dense here is left out; without latency= it may be used)") from error


def measured_speedups(offers: Offers, picked: Mapping[str, Candidate], inputs: Any) -> dict[tuple[str, Candidate], float]:
    """Speed-ups by (layer, candidate): the smaller one of the ratio of medians and that of minima, dense / factorised.

    Layers of the same kind, shape and calls are timed once. One that the inputs do not reach has none.
    """
    from tenfold.report.costs import run_layers  # the report imports plans

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
