"""What a data argument means: every accepted form gives the same pairs."""

import time
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from tenfold.batches import batches, n_batches, random_states

INPUTS = torch.arange(20.0).reshape(10, 2)
TARGETS = torch.arange(10)


class Plain(Dataset):
    """A data set that is read sample by sample."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return INPUTS[index], int(TARGETS[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Plain())


FORMS = {
    "tensors": TensorDataset(INPUTS, TARGETS),
    "pair": (INPUTS, TARGETS),
    "dataset": Plain(),
    "subset": Subset(TensorDataset(INPUTS, TARGETS), range(10)),
    "subset of a subset": Subset(Subset(TensorDataset(INPUTS.flip(0), TARGETS.flip(0)), range(9, -1, -1)), list(range(10))),
    "loader": DataLoader(Plain(), 4),
    "list": [(INPUTS[k : k + 4], TARGETS[k : k + 4]) for k in (0, 4, 8)],
    "stream": DataLoader(Stream(), 4),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_batches(form):
    data = FORMS[form]
    got = list(batches(data, 4))
    assert n_batches(data, 4) == len(got) == 3
    assert [len(targets) for _, targets in got] == [4, 4, 2]
    torch.testing.assert_close(torch.cat([inputs for inputs, _ in got]), INPUTS, rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([targets for _, targets in got]), TARGETS, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_start_leaves_out_the_first_batches(form):
    got = torch.cat([targets for _, targets in batches(FORMS[form], 4, start=2)])
    torch.testing.assert_close(got, TARGETS[8:], rtol=0, atol=0)


@pytest.mark.parametrize("form", ["tensors", "pair", "dataset", "subset"])
def test_shuffling_follows_the_generator_and_keeps_pairs(form):
    def shuffled(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        got = list(batches(FORMS[form], 4, shuffle=True, generator=torch.Generator().manual_seed(seed)))
        return torch.cat([inputs for inputs, _ in got]), torch.cat([targets for _, targets in got])

    inputs, targets = shuffled(1)
    assert targets.tolist() != TARGETS.tolist()
    assert sorted(targets.tolist()) == TARGETS.tolist()
    torch.testing.assert_close(inputs, INPUTS[targets], rtol=0, atol=0)
    assert shuffled(1)[1].tolist() == targets.tolist()
    assert shuffled(2)[1].tolist() != targets.tolist()


def test_drop_last_leaves_out_only_a_smaller_batch_that_is_not_alone():
    assert [len(targets) for _, targets in batches(FORMS["tensors"], 4, drop_last=True)] == [4, 4]
    assert [len(targets) for _, targets in batches(FORMS["tensors"], 16, drop_last=True)] == [10]
    assert [n_batches(FORMS["dataset"], size, drop_last=True) for size in (4, 5, 16)] == [2, 2, 1]


def test_inputs_without_targets():
    for data in (INPUTS, TensorDataset(INPUTS), [INPUTS[:5], INPUTS[5:]], DataLoader(TensorDataset(INPUTS), 5)):
        got = list(batches(data, 5))
        assert [targets for _, targets in got] == [None, None]
        torch.testing.assert_close(torch.cat([inputs for inputs, _ in got]), INPUTS, rtol=0, atol=0)


def test_several_inputs_become_arguments():
    inputs, targets = next(batches(TensorDataset(INPUTS, INPUTS + 1, TARGETS), 3))
    assert isinstance(inputs, tuple)
    torch.testing.assert_close(inputs[1] - inputs[0], torch.ones(3, 2), rtol=0, atol=0)
    assert targets.tolist() == [0, 1, 2]


def test_mappings_are_keyword_arguments_and_labels_the_target():
    inputs, targets = next(batches([{"ids": INPUTS, "labels": TARGETS}], 3))
    assert list(inputs) == ["ids"]
    assert targets is TARGETS
    assert next(batches([{"ids": INPUTS}], 3))[1] is None


def test_fifty_thousand_images_are_read_in_whole_tensors():
    images = TensorDataset(torch.zeros(50_000, 3, 8, 8), torch.zeros(50_000, dtype=torch.long))
    start = time.process_time()
    count = sum(len(targets) for _, targets in batches(images, 128, shuffle=True, generator=torch.Generator().manual_seed(0)))
    assert count == 50_000
    assert time.process_time() - start < 2  # about 0.05 s; sample by sample it is more than 10 s


def test_generators_of_a_loader_are_found_once():
    generator = torch.Generator()
    assert random_states(DataLoader(Plain(), 4, shuffle=True, generator=generator)) == [generator]
    assert random_states(DataLoader(Plain(), 4)) == random_states(FORMS["tensors"]) == []


EMPTY = {
    "tensors": TensorDataset(torch.zeros(0, 2), torch.zeros(0)),
    "tensor": torch.zeros(0, 2),
    "pair": (torch.zeros(0, 2), torch.zeros(0)),
    "list": [],
    "loader": DataLoader(TensorDataset(torch.zeros(0, 2))),
    "generator": iter([]),
    "subset": Subset(Plain(), []),
}


@pytest.mark.parametrize("form", EMPTY)
def test_empty_data(form):
    with pytest.raises(ValueError, match=r"the data \(\w+\) have no samples; at least one batch is needed: check the path"):
        list(batches(EMPTY[form], 4))


@pytest.mark.parametrize("form", ["tensors", "list", "loader"])
def test_empty_data_are_found_when_counting(form):
    with pytest.raises(ValueError, match="have no samples; at least one batch is needed"):
        n_batches(EMPTY[form], 4)


class Pictures(Plain):
    """A data set whose samples are no tensors yet."""

    def __getitem__(self, index: int) -> Any:
        return object(), index


@pytest.mark.parametrize("data", [Pictures(), DataLoader(Pictures(), 4)], ids=["dataset", "loader"])
def test_samples_without_their_transforms(data: Any):
    with pytest.raises(
        TypeError, match=r"the samples of the test data cannot be joined to batches \(default_collate.*; tensors are needed"
    ):
        next(batches(data, 4, what="test data"))


class Uneven(Plain):
    """A data set whose samples differ in size."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(3, 4 + index), index


@pytest.mark.parametrize(
    "data", [Uneven(), DataLoader(Uneven(), 4), DataLoader(Uneven(), 4, num_workers=1)], ids=["dataset", "loader", "loader with a worker"]
)
def test_samples_of_different_sizes(data: Any):
    with pytest.raises(
        ValueError,
        match=r"samples of the test data have different sizes \(.*\), and a batch needs equal ones: resize or pad them in the data",
    ) as caught:
        next(batches(data, 4, what="test data"))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [[INPUTS, TARGETS], [INPUTS, INPUTS[:, :1]], (INPUTS, INPUTS + 1, TARGETS)], ids=["pair", "values", "triple"]
)
def test_tensors_that_may_be_one_batch_or_several(data: Any):
    with pytest.raises(ValueError, match=r"of tensors with as many samples each, \(10, 2\) of torch.float32, .*: give TensorDataset"):
        batches(data, 4)
    assert len(next(batches(TensorDataset(*data), 4))[1]) == 4
    assert [len(one) for one, _ in batches([(one,) for one in data], 4)] == [10] * len(data)


def test_wrong_data():
    with pytest.raises(TypeError, match=r"the data are a int; needed is a torch Dataset .*; wrap what you have in a torch Dataset"):
        batches(3, 4)
    with pytest.raises(
        TypeError, match=r"Stream, an IterableDataset, which has single samples; batches are needed: wrap it in a DataLoader"
    ):
        batches(Stream(), 4)
    with pytest.raises(TypeError, match=r"single samples, with the target 3; an iterable needs batches.*: wrap the samples"):
        list(batches([(INPUTS[0], 3)], 4))
    with pytest.raises(TypeError, match=r"gave an empty batch; each needs inputs.*: check the data set"):
        list(batches([()], 4))
    with pytest.raises(ValueError, match=r"10 inputs and 9 targets; each input needs one target: give tensors of the same length"):
        batches((INPUTS, TARGETS[:9]), 4)
    with pytest.raises(ValueError, match=r"batch_size is 0; it needs at least 1 sample, e.g. batch_size=128"):
        batches(INPUTS, 0)
    for size in (0, -4):  # finetune counts batches before it takes any
        with pytest.raises(ValueError, match=rf"batch_size is {size}; it needs at least 1 sample"):
            n_batches(INPUTS, size)
    with pytest.raises(TypeError, match=r"which can be read only once; several passes are needed: give .* for instance list\(data\)"):
        n_batches(iter([(INPUTS, TARGETS)]), 4)
