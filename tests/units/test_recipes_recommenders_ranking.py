"""Scores of recommendations, against their definitions in loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from tenfold.recipes.recommenders.ranking import ranking_scores, rating_scores


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


def test_ratings() -> None:
    predictions, ratings = torch.tensor([9.0, 3.0, 2.0, 0.0]), torch.tensor([5.0, 4.0, 3.0, 1.0])
    found = rating_scores(predictions, ratings)
    assert_close(found.rmse, math.sqrt((0 + 1 + 1 + 0) / 4))
    assert (found.auc, found.liked, found.n) == (1.0, 0.5, 4)


def test_refusals() -> None:
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
