"""AUC: how well scores tell two classes apart."""

import torch
from torch import Tensor


def auc(scores: Tensor, labels: Tensor) -> float:
    """The area under the ROC curve: how often a row of label 1 has the higher score of two rows, ties counted as half; nan for one class.

    Computed from ranks (Mann and Whitney 1947), where equal scores share the mean of their ranks.

    >>> auc(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
    0.875
    """
    positive = labels > 0.5
    n_positive = int(positive.sum())
    n_negative = len(labels) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, group, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    ranks = (ends - counts + 1 + ends).double() / 2
    total = float(ranks[group][positive].sum())
    return (total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
