"""Sequences: batches that are padded or packed, moments, and what is refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.data import Subset

from tenfold import evaluate, finetune
from tenfold.data import Sequences, pack_batch, pad_batch, sequence_loader


class Classifier(nn.Module):
    """An LSTM and a linear map of its state after the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


@pytest.fixture
def data() -> Sequences:
    """Thirty sequences of 1 to 5 steps whose class is the sign of their first feature."""
    random = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1 + k % 5, 3, generator=random) + (3 if k % 2 else -3) for k in range(30)]
    return Sequences(tuple(inputs), torch.arange(30) % 2, ("low", "high"), tuple(f"g{k % 4}" for k in range(30)))


def test_batches_are_padded_with_zeros_behind(data: Sequences) -> None:
    (inputs, lengths), targets = pad_batch([data[1], data[4], data[0]])
    assert inputs.shape == (3, 5, 3)
    assert (lengths.tolist(), targets.tolist()) == ([2, 5, 1], [1, 0, 0])
    for row, k in enumerate((1, 4, 0)):
        torch.testing.assert_close(inputs[row, : lengths[row]], data.inputs[k], rtol=0, atol=0)
        assert not inputs[row, lengths[row] :].any()


def test_packed_batches_hold_the_same(data: Sequences) -> None:
    packed, targets = pack_batch([data[1], data[4], data[0]])
    assert isinstance(packed, PackedSequence)
    inputs, lengths = pad_packed_sequence(packed, batch_first=True)
    (wanted, wanted_lengths), wanted_targets = pad_batch([data[1], data[4], data[0]])
    torch.testing.assert_close(inputs, wanted, rtol=0, atol=0)
    assert (lengths.tolist(), targets.tolist()) == (wanted_lengths.tolist(), wanted_targets.tolist())


def test_a_loader_has_one_order_for_a_seed(data: Sequences) -> None:
    def order(seed: int) -> list[float]:
        return [float(inputs[0, 0, 0]) for (inputs, _), _ in sequence_loader(data, 1, shuffle=True, seed=seed)]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(float(one[0, 0]) for one in data.inputs)
    sizes = [len(targets) for _, targets in sequence_loader(data, 7, drop_last=True)]
    assert sizes == [7] * (len(data) // 7) and len(data) % 7
    packed, targets = next(iter(sequence_loader(Subset(data, [3, 9]), 8, collate=pack_batch)))
    assert (packed.batch_sizes.tolist(), targets.tolist()) == ([2, 2, 2, 2, 1], [1, 1])


def test_models_are_trained_on_tensors_and_on_loaders(data: Sequences) -> None:
    model = Classifier()
    finetune(model, data.tensors(), epochs=30, lr=0.05, batch_size=10)
    assert evaluate(model, data.tensors(), 7).accuracy == 1
    assert evaluate(model, sequence_loader(data, 7)).accuracy == 1


def test_subsets_keep_what_belongs_together(data: Sequences) -> None:
    part = data.subset([5, 2])
    assert (part.lengths.tolist(), part.targets.tolist(), part.groups, part.classes) == ([1, 3], [1, 0], ("g1", "g2"), ("low", "high"))
    torch.testing.assert_close(part[1][0], data.inputs[2], rtol=0, atol=0)


def test_standardised_sequences_have_mean_0_and_deviation_1(data: Sequences) -> None:
    flat = Sequences(tuple(torch.cat([one, torch.full((len(one), 1), 7.0)], 1) for one in data.inputs), data.targets)
    mean, std = flat.standardized(*flat.moments()).moments()
    torch.testing.assert_close(mean, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(std, torch.tensor([1, 1, 1, 0], dtype=torch.float64), rtol=0, atol=1e-6)
    steps = torch.cat(flat.inputs).double()
    torch.testing.assert_close(flat.moments()[0], steps.mean(0))
    torch.testing.assert_close(flat.moments()[1], steps.std(0, correction=0))


def test_whole_numbers_are_standardised_as_floating_point_ones() -> None:
    data = Sequences((torch.arange(6).view(3, 2),), torch.tensor([0]))
    (found,) = data.standardized(*data.moments()).inputs
    torch.testing.assert_close(found, torch.tensor([[-1.0], [0.0], [1.0]]).expand(3, 2) * 1.5**0.5)


def test_moments_of_other_features_are_refused() -> None:
    narrow = Sequences((torch.zeros(3, 1),), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"shapes \(5,\) and \(5,\), the sequences 1 features; one mean .*: take the moments of data"):
        narrow.standardized(torch.zeros(5), torch.ones(5))


def test_a_subset_takes_positions_as_a_tensor(data: Sequences) -> None:
    pairs = Sequences(data.inputs, torch.arange(60).view(30, 2))
    assert pairs.subset(torch.tensor([4, 1])).targets.tolist() == [[8, 9], [2, 3]]


def test_what_is_no_set_of_sequences_raises() -> None:
    with pytest.raises(ValueError, match=r"there are 0 sequences; at least one is needed: check the file or the filter"):
        Sequences((), torch.zeros(0))
    with pytest.raises(
        ValueError, match=r"sequence 1 has shape \(0, 2\); \(steps, features\) with at least one of each is needed: leave it out"
    ):
        Sequences((torch.zeros(3, 2), torch.zeros(0, 2)), torch.zeros(2))
    with pytest.raises(ValueError, match=r"sequence 0 has shape \(3,\); \(steps, features\)"):
        Sequences((torch.zeros(3),), torch.zeros(1))
    with pytest.raises(ValueError, match=r"sequence 1 has 3 features and sequence 0 has 2; all need the same: check them"):
        Sequences((torch.zeros(3, 2), torch.zeros(3, 3)), torch.zeros(2))
    with pytest.raises(ValueError, match=r"there are 1 sequences and 2 targets; each needs one: give as many"):
        Sequences((torch.zeros(3, 2),), torch.zeros(2))
    with pytest.raises(ValueError, match=r"there are 1 sequences and 3 groups; each needs one: give as many"):
        Sequences((torch.zeros(3, 2),), torch.zeros(1), groups=("a", "b", "c"))
    for collate in (pad_batch, pack_batch):
        with pytest.raises(ValueError, match=r"sequence 0 has shape \(0, 2\); .* leave it out"):
            collate([(torch.zeros(0, 2), torch.tensor(0))])
