"""Validation data that were trained on are found, as far as that can be seen, and parts are held out."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from tenfold.ranks.held_out import check_apart, hold_out

X, Y = torch.arange(3200.0).reshape(100, 32), torch.arange(100) % 4
WHOLE = TensorDataset(X, Y)


@pytest.mark.parametrize(
    ("training", "validation", "what"),
    [
        (WHOLE, WHOLE, "100 rows of the same data set"),
        (DataLoader(WHOLE, 10), Subset(WHOLE, [3, 4]), "2 rows of the same data set"),
        (Subset(Subset(WHOLE, range(50, 90)), [0, 1]), Subset(WHOLE, [51]), "1 rows of the same data set"),
        ((X, Y), WHOLE, "the memory of their tensors"),
        (WHOLE, (X[95:].clone(), Y[95:]), "5 equal samples among the first 512"),
        ([(X[:10], Y[:10])], [(X[9:11].clone(), Y[9:11])], "1 equal samples among the first 512"),
    ],
)
def test_shared_samples_are_seen(training: Any, validation: Any, what: str):
    with pytest.raises(ValueError, match=f"the validation data share {what} with the data of the fine-tuning; .*: hold a part"):
        check_apart(training, validation)


def test_samples_that_are_equal_by_chance_are_not_shared():
    """Of 20 sparse features a quarter of the samples are there twice; a copy of the training data is still seen."""
    x = (torch.rand(1000, 20, generator=torch.Generator().manual_seed(0)) < 0.15).float()
    check_apart(x[:500], x[500:].clone())
    with pytest.raises(ValueError, match="500 equal samples"):
        check_apart(x[:500], x[:500].clone())


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        (Subset(WHOLE, range(50)), Subset(WHOLE, range(50, 100))),
        ((X[:50], Y[:50]), (X[50:].clone(), Y[50:])),
        (torch.zeros(5, 3), torch.zeros(5, 3)),  # of few values, which may be equal by chance
        (iter([(X, Y)]), WHOLE),  # cannot be seen
    ],
)
def test_other_samples_pass(training: Any, validation: Any):
    check_apart(training, validation)


@pytest.mark.parametrize("data", [WHOLE, (X, Y), DataLoader(WHOLE, 7)], ids=["data set", "tensors", "loader"])
def test_a_part_is_held_out_at_random_and_always_the_same(data: Any):
    training, held = hold_out(data, 0.2, seed=1)
    assert (len(training), len(held)) == (80, 20)
    rows = [int(x[0]) // 32 for x, _ in held]
    assert rows == [int(x[0]) // 32 for x, _ in hold_out(data, 0.2, seed=1)[1]] != list(range(20))
    assert sorted(rows + [int(x[0]) // 32 for x, _ in training]) == list(range(100))
    check_apart(training, held)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(WHOLE)


def test_what_cannot_be_held_out():
    with pytest.raises(TypeError, match="the data are a Stream, of which no part can be held out; a Dataset with a length is needed"):
        hold_out(Stream(), 0.1)
    for fraction in (0, 1, 0.001):
        with pytest.raises(ValueError, match=f"a part of {fraction:g} of 100 samples is to be held out; .*: give for instance 0.1"):
            hold_out(WHOLE, fraction)
