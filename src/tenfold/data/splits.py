"""Splits: which samples a model learns from and which it is tested on. They follow from a seed and are the same on every machine.

The shuffle is numpy's RandomState, whose numbers are frozen for all versions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset, Subset


@dataclass(frozen=True)
class Split:
    """Positions of the training samples and of the test samples, both ascending."""

    train: tuple[int, ...]
    test: tuple[int, ...]

    def of(self, data: Dataset) -> tuple[Subset, Subset]:
        """The two parts of a data set."""
        return Subset(data, self.train), Subset(data, self.test)


def k_fold(
    n: int, k: int = 5, *, seed: int = 0, groups: Sequence[object] | None = None, labels: Sequence[int] | torch.Tensor | None = None
) -> tuple[Split, ...]:
    """The k splits of k-fold cross-validation: every sample is tested exactly once.

    Args:
        n: number of samples.
        groups: one value a sample; samples of one group stay together, for instance clips cut from one video.
        labels: one class a sample; every fold then has its share of every class.

    Raises:
        ValueError: fewer than k samples or groups, groups and labels together, labels of several axes, or a seed out of range.

    >>> [split.test for split in k_fold(5, 2, seed=1)]
    [(1, 2, 4), (0, 3)]
    """
    order = _order(n, seed, groups, labels)
    if not 2 <= k <= len(order):
        what = "samples" if groups is None else "groups"
        raise ValueError(f"k is {k} for {len(order)} {what}; it needs at least 2 and at most one fold for each of them: change k")
    if labels is None:
        parts = [np.concatenate([order[p] for p in places]) for places in np.array_split(np.arange(len(order)), k)]
    else:
        parts = [np.concatenate(order[fold::k]) for fold in range(k)]
    return tuple(_split(n, part) for part in parts)


def holdout(
    n: int,
    test_ratio: float = 0.2,
    *,
    seed: int = 0,
    groups: Sequence[object] | None = None,
    labels: Sequence[int] | torch.Tensor | None = None,
) -> Split:
    """One split with `test_ratio` of the samples (of the groups; of every class) for testing; the training part is rounded down.

    Args:
        groups, labels: see `k_fold`.

    Raises:
        ValueError: a part would be empty, or as for `k_fold`.

    >>> holdout(5, 0.4, seed=1)
    Split(train=(1, 2, 4), test=(0, 3))
    """
    order = _order(n, seed, groups, labels)
    if not 0 < test_ratio < 1:
        raise ValueError(f"test_ratio is {test_ratio}; it needs a share between 0 and 1, e.g. test_ratio=0.2")
    if labels is None:
        test = order[_n_train(len(order), test_ratio) :]
    else:
        classes = np.asarray(labels)[[int(one[0]) for one in order]]
        of_class = [[order[p] for p in np.flatnonzero(classes == one)] for one in np.unique(classes)]
        test = [one for members in of_class for one in members[_n_train(len(members), test_ratio) :]]
    if not 0 < len(test) < len(order):
        raise ValueError(
            f"test_ratio is {test_ratio} for {len(order)} samples or groups, which leaves {len(order) - len(test)} for training; both "
            "parts need at least one: change test_ratio"
        )
    return _split(n, np.concatenate(test))


def _n_train(n: int, test_ratio: float) -> int:
    return int(round(n * (1 - test_ratio), 9))  # 10 * (1 - 0.8) is 1.9999999999999996


def _order(n: int, seed: int, groups: Sequence[object] | None, labels: Sequence[int] | torch.Tensor | None) -> list[np.ndarray]:
    """What is dealt out, shuffled: the positions of every group, or single positions (sorted by class where there are labels)."""
    for name, given in {"groups": groups, "labels": labels}.items():
        if given is not None and len(given) != n:
            raise ValueError(f"{name} has {len(given)} values for {n} samples; one for each sample is needed: give those of this data set")
    if labels is not None and np.ndim(labels) != 1:
        raise ValueError(
            f"labels have the shape {tuple(np.shape(labels))}; one axis with a class for each of {n} samples is needed: flatten them, "
            "or take the class that is 1"
        )
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"the seed is {seed}; a whole number from 0 to {(1 << 32) - 1:,} is needed: give for instance seed=0")
    if groups is not None and labels is not None:
        raise ValueError("groups and labels are both given; a group may hold several classes, so one of them is needed: leave one out")
    random = np.random.RandomState(seed)
    if groups is None:
        order = random.permutation(n)
        if labels is not None:
            order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
        return list(order[:, None])
    names = sorted({str(group) for group in groups})
    members: dict[str, list[int]] = {name: [] for name in names}
    for position, group in enumerate(groups):
        members[str(group)].append(position)
    return [np.asarray(members[names[p]]) for p in random.permutation(len(names))]


def _split(n: int, test: np.ndarray) -> Split:
    is_test = np.zeros(n, dtype=bool)
    is_test[test] = True
    return Split(tuple(np.flatnonzero(~is_test).tolist()), tuple(np.flatnonzero(is_test).tolist()))
