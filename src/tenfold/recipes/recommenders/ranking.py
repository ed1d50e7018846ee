"""Scores of recommendations: HR@k and NDCG@k of a ranking test, RMSE and AUC of ratings."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.recipes.auc import auc

ROWS = 512  # that are worked on together


@dataclass(frozen=True)
class RankingScores:
    """hit_rate: part of the rows whose right candidate is among the first `top`; ndcg: mean of 1 / log2(1 + its place), 0 below."""

    hit_rate: float
    ndcg: float
    top: int
    n: int


def ranking_scores(scores: Tensor, *, top: int = 10) -> RankingScores:
    """HR and NDCG of scores (rows, candidates), the right candidate first.

    Its place is one more than the number of candidates with a higher score; half of the equal ones count as higher, so that a constant
    is as good as chance.

    Raises:
        ValueError: there is nothing to rank, or a score is not finite.

    >>> ranking_scores(torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.5, 0.1]]), top=1)
    RankingScores(hit_rate=0.5, ndcg=0.5, top=1, n=2)
    """
    if scores.dim() != 2 or not len(scores) or not 1 <= top < scores.shape[1]:
        raise ValueError(
            f"scores of shape {tuple(scores.shape)} were given for the first {top}; (rows, candidates) with more candidates than {top} are "
            "needed: give more candidates, or a smaller top"
        )
    _check_finite(scores)
    right, others = scores[:, :1].double(), scores[:, 1:].double()
    place = 1 + (others > right).sum(1) + ((others == right).sum(1) + 1) // 2
    is_hit = place <= top
    gain = torch.where(is_hit, math.log(2) / (place + 1.0).log(), torch.zeros(()).double())
    return RankingScores(float(is_hit.double().mean()), float(gain.mean()), top, len(scores))


def expected_scores(scores: Tensor, right: Tensor, *, top: int = 10, wrong: int = 99) -> RankingScores:
    """What `ranking_scores` gives on the mean of all tests whose right items are drawn by a distribution, and the wrong ones evenly.

    Args:
        scores: of all items for each row, (rows, items).
        right: probabilities of being the right item, (rows, items).
        wrong: how many others are drawn, each from all items.

    Raises:
        ValueError: the shapes differ, or a score is not finite.

    >>> scores, right = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    >>> expected_scores(scores, right, top=1, wrong=3)  # the best item is above itself in half of the cases, as equal ones are
    RankingScores(hit_rate=0.421875, ndcg=0.421875, top=1, n=1)
    """
    if scores.shape != right.shape or scores.dim() != 2 or not scores.numel():
        raise ValueError(
            f"scores of shape {tuple(scores.shape)} were given with probabilities of shape {tuple(right.shape)}; one shape (rows, items) "
            "is needed: give both for all items"
        )
    _check_finite(scores)
    hits, gains = 0.0, 0.0
    for some, p in zip(scores.split(ROWS), right.split(ROWS), strict=True):
        ordered = some.sort(1).values
        below, upto = (torch.searchsorted(ordered, some.contiguous(), right=is_right) for is_right in (False, True))
        above = 1 - (below + upto).double() / (2 * some.shape[1])  # part of the items with a higher score, half of the equal ones
        for n in range(top):
            likely = p * math.comb(wrong, n) * above**n * (1 - above) ** (wrong - n)  # n of those that are drawn are above
            hits += float(likely.sum())
            gains += float(likely.sum()) * math.log(2) / math.log(n + 2)
    return RankingScores(hits / len(scores), gains / len(scores), top, len(scores))


@dataclass(frozen=True)
class RatingScores:
    """rmse: of predictions cut to the range of ratings; auc: of the liked against the others; liked: part of the ratings that is."""

    rmse: float
    auc: float
    liked: float
    n: int


def rating_scores(predictions: Tensor, ratings: Tensor, *, lowest: float = 1.0, highest: float = 5.0, liked: float = 4.0) -> RatingScores:
    """RMSE of predicted ratings (n), and the AUC of ratings of at least `liked` with the predictions as scores.

    Raises:
        ValueError: the shapes differ or there are no rows, or a prediction is not finite.
    """
    if predictions.shape != ratings.shape or predictions.dim() != 1 or not len(predictions):
        raise ValueError(
            f"predictions of shape {tuple(predictions.shape)} were given with ratings of shape {tuple(ratings.shape)}; two vectors of one "
            "length, at least 1, are needed: flatten them"
        )
    if not bool(torch.isfinite(predictions).all()):
        raise ValueError(
            f"{int((~torch.isfinite(predictions)).sum())} of {len(predictions)} predictions are not finite; finite ones are needed: the "
            "model has diverged, so lower the learning rate"
        )
    labels = (ratings >= liked).double()
    error = (predictions.double().clamp(lowest, highest) - ratings.double()).square().mean().sqrt()
    return RatingScores(float(error), auc(predictions.double(), labels), float(labels.mean()), len(ratings))


def _check_finite(scores: Tensor) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{int((~torch.isfinite(scores)).sum())} scores are not finite; finite ones are needed: the model has diverged")
