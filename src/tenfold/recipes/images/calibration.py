"""Calibration: whether probabilities mean what they say."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.recipes.auc import auc

N_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Of predictions on n examples.

    accuracy: ratio of right predictions.
    loss: mean negative log probability of the right class, in nats.
    ece: expected calibration error: mean over examples of |confidence - accuracy|, each averaged within its bin of confidence.
    error_auc: how well low confidence tells wrong predictions from right ones: the probability that a wrong one is less confident than a
        right one, ties counted half; None where all are right or all are wrong.
    """

    accuracy: float
    loss: float
    ece: float
    error_auc: float | None
    n: int


def calibration(probabilities: Tensor, labels: Tensor) -> Calibration:
    """Of probabilities (n, classes) and labels (n,); `N_BINS` bins of equal width.

    Source of the ECE: Guo et al. 2017, arXiv 1706.04599.

    >>> found = calibration(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]), torch.tensor([0, 0, 1, 0]))
    >>> found.accuracy, round(found.ece, 3), found.error_auc
    (0.75, 0.2, 0.8333333333333334)
    """
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"the probabilities have shape {tuple(probabilities.shape)} and the labels {tuple(labels.shape)}; (n, classes) and (n,) with "
            "at least one example are needed: give one label for each row"
        )
    probabilities = probabilities.double()
    confidence, guess = probabilities.max(1)
    is_right = guess == labels
    bins = (confidence * N_BINS).ceil().clamp(1, N_BINS).long() - 1
    gaps = torch.zeros(N_BINS, dtype=torch.float64).index_add_(0, bins, confidence - is_right.double())
    loss = -probabilities.gather(1, labels[:, None]).clamp_min(1e-300).log().mean()
    error_auc = auc(confidence, is_right)
    return Calibration(
        float(is_right.double().mean()),
        float(loss),
        float(gaps.abs().sum()) / len(labels),
        None if math.isnan(error_auc) else error_auc,
        len(labels),
    )
