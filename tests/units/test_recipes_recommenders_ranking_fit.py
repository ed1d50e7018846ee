"""Smaller tables for the order of items: drawn pairs, the loss and its slopes, the equations of a step, and a better order at the end."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tenfold.recipes.recommenders.models import NcfMlp
from tenfold.recipes.recommenders.ranking_fit import LISTED, TEMPERATURE, Pairs, drawn_pairs, in_order, listed_loss
from tenfold.recipes.recommenders.ranking_step import StepSystem
from tenfold.recipes.recommenders.tower_fit import Tower, as_model, first_order, in_turns

USERS, ITEMS = 60, 200


@pytest.fixture
def model() -> NcfMlp:
    torch.manual_seed(0)
    made = NcfMlp(USERS, ITEMS, (8, 8), (8, 6)).eval()
    with torch.no_grad():
        made.out.weight.mul_(8)
        for layer in made.fc:
            layer.bias.add_(0.5)  # pyright: ignore[reportCallIssue]
    return made


def _scores(model: NcfMlp) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(USERS)[:, None], torch.arange(ITEMS))


def _all_pairs(scores: Tensor) -> Pairs:
    items = torch.arange(ITEMS).expand(len(scores), -1)
    thresholds = scores.kthvalue(int((1 - LISTED) * ITEMS), dim=1, keepdim=True).values
    return Pairs(items, scores, thresholds, 0.5 / ITEMS + 0.5 * (scores / TEMPERATURE).softmax(1))


def _loss(model: NcfMlp, tower: Tower) -> float:
    return listed_loss(_scores(as_model(model, tower)), _all_pairs(_scores(model)), torch.zeros(USERS))[0]


def test_drawn_pairs_stand_for_all() -> None:
    torch.manual_seed(0)
    scores = 2 * torch.randn(20, ITEMS)
    pairs, every = drawn_pairs(scores, 4_000, torch.Generator().manual_seed(0)), _all_pairs(scores)
    assert_close(pairs.wanted, scores.gather(1, pairs.items), rtol=0, atol=0)
    assert_close((scores > pairs.thresholds).float().mean(1), torch.full((20,), LISTED), rtol=0, atol=1e-6)
    assert_close((pairs.weights * pairs.wanted.tanh()).mean(1), (every.weights * scores.tanh()).sum(1), rtol=0, atol=2e-2)
    near = lambda one: ((one.wanted - one.thresholds).abs() < 1).float().mean()  # noqa: E731
    assert near(pairs) > 1.2 * near(every)


def test_a_constant_for_each_user_costs_nothing() -> None:
    torch.manual_seed(0)
    pairs = _all_pairs(torch.randn(5, ITEMS))
    loss, shifts, slopes, curvatures = listed_loss(pairs.wanted + torch.arange(5.0)[:, None] / 4, pairs, torch.zeros(5))
    assert abs(loss) < 1e-6 and float(slopes.abs().max()) < 1e-4 and bool((curvatures > 0).all())
    assert_close(shifts, -torch.arange(5.0) / 4, rtol=0, atol=1e-2)
    assert listed_loss(pairs.wanted.flip(1), pairs, torch.zeros(5))[0] > 0.05


def test_slopes_are_those_of_the_loss() -> None:
    torch.manual_seed(0)
    pairs = _all_pairs(torch.randn(3, ITEMS))
    scores = (pairs.wanted + torch.randn(3, ITEMS)).requires_grad_()
    _, shifts, slopes, _ = listed_loss(scores.detach(), pairs, torch.zeros(3))
    moved, p = scores - pairs.thresholds + shifts[:, None], (pairs.wanted - pairs.thresholds).sigmoid()
    loss = (pairs.weights * torch.nn.functional.binary_cross_entropy_with_logits(moved, p, reduction="none")).sum()
    assert_close(slopes, -torch.autograd.grad(loss, scores)[0], rtol=0, atol=1e-6)


def test_a_step_solves_its_equations(model: NcfMlp) -> None:
    tower, generator = first_order(model, (3, 4)), torch.Generator().manual_seed(0)
    items = torch.randint(ITEMS, (USERS, 30), generator=generator)
    gradients, curvatures = torch.randn(USERS, 30, 8, generator=generator), 0.1 + torch.rand(USERS, 30, generator=generator)
    system = StepSystem(tower, items, gradients.clone(), curvatures, 0.1)
    slopes = torch.randn(USERS, 30, generator=generator)
    step = system.solve(slopes)
    ahead = system.ahead(step)
    of_users = step[0] @ tower.users.basis + tower.users.codes @ step[1]
    of_items = step[2] @ tower.items.basis + tower.items.codes @ step[3] + step[4]
    change = ((of_users[:, None] + of_items[items]) * gradients).sum(-1)
    change = change - (curvatures * change).sum(1, keepdim=True) / curvatures.sum(1, keepdim=True)
    assert_close(ahead, change * curvatures.sqrt(), rtol=1e-4, atol=1e-4)
    right = system.back(slopes / curvatures.sqrt())
    left = [a + d * b for a, d, b in zip(system.back(ahead), system.damping, step, strict=True)]
    wrong = sum(float((a - b).square().sum()) for a, b in zip(left, right, strict=True))
    assert wrong < 0.01 * sum(float(b.square().sum()) for b in right)


def test_the_order_gets_better(model: NcfMlp) -> None:
    start, _ = in_turns(model, first_order(model, (3, 3)), sweeps=6, n_columns=60)
    tower, losses = in_order(model, start, sweeps=6, n_pairs=60)
    assert len(losses) == 6 and tower.users.codes.shape == (USERS, 3) and tower.items.codes.shape == (ITEMS, 3)
    assert _loss(model, tower) < 0.9 * _loss(model, start)
    again, _ = in_order(model, start, sweeps=6, n_pairs=60)
    assert_close(again.users.codes, tower.users.codes, rtol=0, atol=0)
