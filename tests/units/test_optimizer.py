"""Which parameters an optimiser gets, with which decay, and the learning rate of every step."""

import math
from functools import partial

import pytest
import torch
from torch import nn

import tenfold.nn
from tenfold.formats import CP
from tenfold.optimizer import FULL_RATE_STEPS, LR, WEIGHT_DECAY, Schedule, make_optimizer
from tenfold.training_stability import stable_scales


def network() -> nn.Module:
    return nn.Sequential(tenfold.nn.Conv2d(3, 4, 3, format=CP(rank=2)), nn.BatchNorm2d(4), nn.Linear(4, 2))


def test_only_parameters_with_two_axes_decay():
    made = make_optimizer(network(), None, None, None)
    assert isinstance(made, torch.optim.AdamW)
    assert [group["weight_decay"] for group in made.param_groups] == [WEIGHT_DECAY, 0.0]
    assert [group["lr"] for group in made.param_groups] == [LR, LR]
    assert {p.dim() for p in made.param_groups[0]["params"]} == {2, 3}
    assert [p.dim() for p in made.param_groups[1]["params"]] == [1] * 4
    assert sum(len(group["params"]) for group in made.param_groups) == len(list(network().parameters()))


def test_frozen_parameters_are_left_out():
    model = network()
    model[1].requires_grad_(False)
    made = make_optimizer(model, None, None, None)
    assert [len(group["params"]) for group in made.param_groups] == [4, 2]


def test_an_optimiser_of_the_users_keeps_its_own_settings():
    made = make_optimizer(network(), partial(torch.optim.SGD, lr=0.3, momentum=0.9, weight_decay=0.2), None, None)
    assert [group["weight_decay"] for group in made.param_groups] == [0.2, 0.0]
    assert [group["lr"] for group in made.param_groups] == [0.3, 0.3]
    made = make_optimizer(network(), partial(torch.optim.SGD, weight_decay=0.2), 0.1, 0.5)
    assert [group["weight_decay"] for group in made.param_groups] == [0.5, 0.0]
    assert [group["lr"] for group in made.param_groups] == [0.1, 0.1]
    model = network()
    given = torch.optim.SGD(model[2].parameters(), lr=0.1)
    assert make_optimizer(model, given, None, None) is given


def test_the_schedule_rises_linearly_and_falls_along_a_cosine():
    made = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.5, torch.tensor(2.0))])
    schedule = Schedule(made, steps=104, warmup=4)
    rates = [schedule.set(step) for step in range(104)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[54] == pytest.approx(0.5 * 0.505)
    assert rates[-1] == pytest.approx(0.5 * (0.01 + 0.99 * (1 + math.cos(math.pi * 0.99)) / 2))
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert float(made.param_groups[1]["lr"]) == pytest.approx(4 * rates[-1])
    schedule.reset()
    assert [float(group["lr"]) for group in made.param_groups] == [0.5, 2.0]


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (3, 5)])
def test_short_schedules_stay_within_the_peak(steps, warmup):
    schedule = Schedule(torch.optim.SGD(network().parameters(), lr=1.0), steps, warmup)
    assert all(0 < schedule.set(step) <= 1 for step in range(steps))


def test_nothing_to_train():
    with pytest.raises(
        ValueError, match=r"no parameter of this Sequential requires gradients; at least one is needed: call requires_grad_"
    ):
        make_optimizer(network().requires_grad_(False), None, None, None)


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_learning_rate_out_of_range(lr):
    with pytest.raises(ValueError, match=r"lr is -?[\w.]+; a learning rate is above 0 and finite: leave it out, or give one like"):
        make_optimizer(network(), None, lr, None)


def test_an_optimiser_that_does_not_fit():
    model = network()
    given = torch.optim.SGD(network().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"the SGD has 8 parameters, none of them of this Sequential; compression makes new .*: build the"):
        make_optimizer(model, given, None, None)
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"lr=0.2 and weight_decay=None come with an SGD that has its own; only one can hold: leave them out"
    ):
        make_optimizer(model, mine, 0.2, None)
    with pytest.raises(
        ValueError, match=r"bound_lr comes with an SGD that has its groups and rates; a group for each .* is needed: give the"
    ):
        make_optimizer(model, mine, None, None, scales=stable_scales(model))
    with pytest.raises(TypeError, match=r"optimizer made a list; a torch.optim.Optimizer is needed: give its class, a functools.partial"):
        make_optimizer(model, list, None, None)


def test_a_short_run_has_a_low_rate() -> None:
    for steps, share in ((3, 3 / FULL_RATE_STEPS), (FULL_RATE_STEPS, 1), (9999, 1)):
        made = make_optimizer(network(), None, None, None, steps)
        assert made.param_groups[0]["lr"] == pytest.approx(LR * share)
