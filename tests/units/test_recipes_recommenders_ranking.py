"""Scores of recommendations, against their definitions in loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from tenfold.recipes.recommenders.ranking import expected_scores, ranking_scores, rating_scores


def test_hits_and_gains_by_sorting() -> None:
    scores = torch.randn(200, 30)
    places = [sorted(row.tolist(), reverse=True).index(row[0].item()) + 1 for row in scores]
    found = ranking_scores(scores, top=10)
    assert found.hit_rate == sum(place <= 10 for place in places) / 200
    want = sum(1 / math.log2(1 + place) for place in places if place <= 10) / 200
    assert_close(torch.tensor(found.ndcg), torch.tensor(want), rtol=1e-6, atol=0)
    assert (found.top, found.n) == (10, 200)


def test_a_constant_is_in_the_middle() -> None:
    assert ranking_scores(torch.zeros(5, 100)).hit_rate == 0
    assert ranking_scores(torch.zeros(5, 11), top=6).hit_rate == 1
    assert ranking_scores(torch.zeros(5, 11), top=5).hit_rate == 0


def test_expected_scores_are_the_mean_of_drawn_tests() -> None:
    torch.manual_seed(0)
    scores, right = torch.randn(4, 60), torch.randn(4, 60).softmax(1)
    scores[:, 30:] = scores[:, 30:].relu()  # many equal ones
    found, n = expected_scores(scores, right, top=5, wrong=20), 40_000
    drawn = [torch.cat([torch.multinomial(p, n, replacement=True)[:, None], torch.randint(60, (n, 20))], 1) for p in right]
    tests = torch.cat([row[one] for row, one in zip(scores, drawn, strict=True)])
    tests = tests + 1e-6 * torch.rand_like(tests)  # half of the equal ones are above, at random
    wanted = ranking_scores(tests, top=5)
    assert (found.hit_rate, found.ndcg, found.n) == (pytest.approx(wanted.hit_rate, abs=5e-3), pytest.approx(wanted.ndcg, abs=5e-3), 4)


def test_ratings() -> None:
    predictions, ratings = torch.tensor([9.0, 3.0, 2.0, 0.0]), torch.tensor([5.0, 4.0, 3.0, 1.0])
    found = rating_scores(predictions, ratings)
    assert_close(found.rmse, math.sqrt((0 + 1 + 1 + 0) / 4))
    assert (found.auc, found.liked, found.n) == (1.0, 0.5, 4)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5\) were given with probabilities of shape \(2, 4\); one shape .* give both for all"):
        expected_scores(torch.zeros(2, 5), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="1 scores are not finite; finite ones are needed: the model has diverged"):
        expected_scores(torch.tensor([[0.0, math.nan]]), torch.ones(1, 2))
    with pytest.raises(
        ValueError, match=r"scores of shape \(3, 10\) were given for the first 10; .* needed: give more candidates, or a smaller"
    ):
        ranking_scores(torch.randn(3, 10))
    with pytest.raises(ValueError, match="1 scores are not finite; finite ones are needed: the model has diverged"):
        ranking_scores(torch.tensor([[1.0, math.nan]]), top=1)
    with pytest.raises(
        ValueError, match=r"predictions of shape \(2,\) were given with ratings of shape \(3,\); two vectors .* flatten them"
    ):
        rating_scores(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="1 of 1 predictions are not finite; finite ones are needed: .* lower the learning rate"):
        rating_scores(torch.tensor([math.inf]), torch.ones(1))
