"""Scores of click predictions: AUC, log loss and accuracy, computed together, for no one of them is enough.

Where a quarter of the labels is 1, accuracy is 75 % for a constant: models differ by tenths of a point. AUC is 50 % for a constant, and
log loss the entropy of the labels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.recipes.auc import auc


@dataclass(frozen=True)
class ClickScores:
    """auc, accuracy: 0 to 1; log_loss: mean, in nats; n: rows; rate: part of the labels that is 1; nan where not defined."""

    auc: float
    log_loss: float
    accuracy: float
    n: int
    rate: float


def click_scores(logits: Tensor, labels: Tensor) -> ClickScores:
    """The scores of logits (n) for labels (n) of 0 and 1.

    Raises:
        ValueError: the shapes differ or there are no rows, or a logit is not finite.
    """
    if logits.shape != labels.shape or logits.dim() != 1 or not len(logits):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} were given with labels of shape {tuple(labels.shape)}; two vectors of one length, at "
            "least 1, are needed: flatten them"
        )
    logits, labels = logits.double(), labels.double()
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(
            f"{int((~torch.isfinite(logits)).sum())} of {len(logits)} predictions are not finite; finite ones are needed: the model has "
            "diverged, so lower the learning rate"
        )
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    right = ((logits > 0) == (labels > 0.5)).double().mean()
    return ClickScores(auc(logits, labels), float(loss), float(right), len(labels), float(labels.mean()))
