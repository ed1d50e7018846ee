"""Identities: the same where a run goes on, another where something else was given."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from tenfold.identity import data_identity, model_identity, option_identity


class Cropped(Dataset):
    """Samples that are drawn anew at every reading, with labels that stay."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        return torch.rand(3), self.labels[k]


X, Y = torch.randn(40, 3), torch.arange(40)
SAME = {
    "tensors": lambda: (X, Y),
    "data set": lambda: TensorDataset(X, Y),
    "part": lambda: Subset(TensorDataset(X, Y), range(5, 40)),
    "loader": lambda: DataLoader(TensorDataset(X, Y), 8, shuffle=True),
    "random crops": lambda: Cropped(Y),
    "batches": lambda: [(X[:20], Y[:20]), (X[20:], Y[20:])],
    "nothing": lambda: None,
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_data_have_the_same_identity(kind: str):
    before = torch.random.get_rng_state()
    assert data_identity(SAME[kind]()) == data_identity(SAME[kind]())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "one, other",
    [
        ((X, Y), (X, Y.roll(1))),
        (TensorDataset(X, Y), TensorDataset(X + 1, Y)),
        (DataLoader(TensorDataset(X, Y), 8, shuffle=True), DataLoader(TensorDataset(X, Y.flip(0)), 8, shuffle=True)),
        (Cropped(Y), Cropped(Y.flip(0))),
        ([(X, Y)], [(X, Y + 1)]),
        (X, X[:39]),
        (X, None),
    ],
    ids=["labels", "inputs", "loader", "labels of crops", "batches", "size", "nothing"],
)
def test_other_data_have_another_identity(one: Any, other: Any):
    assert data_identity(one) != data_identity(other)


def test_options():
    slow, fast = (functools.partial(torch.optim.SGD, lr=lr) for lr in (1e-9, 0.1))
    assert option_identity(slow) == "SGD(lr=1e-09)" != option_identity(fast)
    assert option_identity({"epochs": 3, "teacher": nn.Linear(2, 2)}) != option_identity({"epochs": 3, "teacher": nn.Linear(2, 2)})
    assert option_identity([nn.Linear, "*.conv", None]) == "['Linear', '*.conv', 'None']"


def test_models():
    model = nn.Linear(2, 2)
    before = model_identity(model)
    assert before.startswith("Linear with 6 values of norm ")
    with torch.no_grad():
        model.weight.add_(1)
    assert model_identity(model) != before
