"""Splits: every sample on one side, the same for a seed, groups together, classes in proportion."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from tenfold.batches import batches
from tenfold.data import holdout, k_fold


@given(st.integers(2, 60), st.integers(2, 6), st.integers(0, 10))
def test_every_sample_is_tested_once(n: int, k: int, seed: int) -> None:
    k = min(k, n)
    splits = k_fold(n, k, seed=seed)
    assert sorted(sum((split.test for split in splits), ())) == list(range(n))
    assert all(sorted(split.train + split.test) == list(range(n)) for split in splits)
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    assert splits == k_fold(n, k, seed=seed)


def test_a_split_follows_from_its_seed() -> None:
    assert holdout(50, seed=1) == holdout(50, seed=1)
    assert holdout(50, seed=1) != holdout(50, seed=2)
    assert len(holdout(50, seed=1).test) == 10
    assert len(holdout(1600).train) == 1280
    assert len(holdout(7).train) == 5, "5.6 rounded down"


def test_groups_stay_together() -> None:
    groups = [f"g{k % 7}" for k in range(40)]
    for split in (*k_fold(40, 3, groups=groups), holdout(40, 0.3, groups=groups)):
        assert not {groups[p] for p in split.train} & {groups[p] for p in split.test}
        assert split.test
    tested = sum((split.test for split in k_fold(40, 3, groups=groups)), ())
    assert sorted(tested) == list(range(40))


def test_classes_keep_their_shares() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    for split in (*k_fold(100, 5, labels=labels), holdout(100, 0.2, labels=labels)):
        assert torch.bincount(labels[list(split.test)]).tolist() == [12, 6, 2]
    assert holdout(100, labels=labels) == holdout(100, labels=labels.tolist())


def test_a_split_cuts_a_data_set() -> None:
    data = TensorDataset(torch.arange(10), torch.arange(10))
    split = holdout(10, 0.3, seed=5)
    train, test = split.of(data)
    assert [int(value) for value in next(iter(batches(test, 9)))[0]] == list(split.test)
    assert (len(train), len(test)) == (7, 3)


def test_what_cannot_be_split_raises() -> None:
    with pytest.raises(ValueError, match=r"k is 5 for 3 samples; it needs at least 2 and at most one fold for each of them: change k"):
        k_fold(3, 5)
    with pytest.raises(ValueError, match=r"k is 3 for 2 groups; it needs at least 2"):
        k_fold(9, 3, groups=list("aaabbbbbb"))
    with pytest.raises(ValueError, match=r"test_ratio is 1.5; it needs a share between 0 and 1, e\.g\. test_ratio=0.2"):
        holdout(9, 1.5)
    with pytest.raises(
        ValueError, match=r"test_ratio is 0\.9 for 2 samples or groups, which leaves 0 for training; both parts need at least one"
    ):
        holdout(2, 0.9)
    with pytest.raises(ValueError, match=r"groups has 3 values for 4 samples; one for each sample is needed: give those of this data set"):
        k_fold(4, 2, groups=list("abc"))
    with pytest.raises(ValueError, match=r"groups and labels are both given; .* one of them is needed: leave one out"):
        holdout(2, groups=["a", "b"], labels=np.array([0, 1]).tolist())
    with pytest.raises(
        ValueError, match=r"labels have the shape \(4, 1\); one axis with a class for each of 4 samples is needed: flatten them"
    ):
        k_fold(4, 2, labels=torch.zeros(4, 1))
    with pytest.raises(ValueError, match="the seed is -1; a whole number from 0 to 4,294,967,295 is needed"):
        holdout(4, seed=-1)


def test_the_training_part_is_rounded_down_from_the_exact_product() -> None:
    for n in (10, 100):
        assert [len(holdout(n, k / n).train) for k in range(1, n)] == [n - k for k in range(1, n)]
    assert len(holdout(7, 0.2).train) == 5
