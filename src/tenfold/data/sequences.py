"""Sequences: tensors (steps, features) of different lengths with a target each, and how they become batches.

A batch is either padded, ((inputs (batch, steps, features), lengths), targets), or a PackedSequence, (packed, targets). A model
for the padded form is called as model(inputs, lengths).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

Sample = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Sequences(Dataset[Sample]):
    """A data set of (input, target): input (steps, features), target a class or a value.

    classes: names of the classes, in the order of their numbers; empty where the targets are values.
    groups: one name a sequence, for splits that keep groups together; may be empty.

    Raises:
        ValueError: there is no sequence, one is empty, or shapes and counts do not fit.

    >>> data = Sequences((torch.zeros(3, 2), torch.ones(1, 2)), torch.tensor([0, 1]))
    >>> len(data), data.n_features, data.lengths.tolist()
    (2, 2, [3, 1])
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ValueError("there are 0 sequences; at least one is needed: check the file or the filter that they come from")
        check_steps(self.inputs)
        for name, count in {"targets": len(self.targets), "groups": len(self.groups) or len(self.inputs)}.items():
            if count != len(self.inputs):
                raise ValueError(f"there are {len(self.inputs)} sequences and {count} {name}; each needs one: give as many")

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, position: int) -> Sample:
        return self.inputs[position], self.targets[position]

    @property
    def n_features(self) -> int:
        """The size of one step."""
        return self.inputs[0].shape[1]

    @property
    def lengths(self) -> Tensor:
        """The number of steps of each sequence."""
        return torch.tensor([len(one) for one in self.inputs])

    def subset(self, positions: Sequence[int] | Tensor) -> "Sequences":
        """The sequences at these positions, in this order."""
        rows = [int(p) for p in positions]  # torch takes a list of tensors for an index of several axes
        return replace(
            self,
            inputs=tuple(self.inputs[p] for p in rows),
            targets=self.targets[rows],
            groups=tuple(self.groups[p] for p in rows) if self.groups else (),
        )

    def tensors(self) -> TensorDataset:
        """A data set of (padded input, length, target), from which `finetune` and `evaluate` make batches ((inputs, lengths), targets).

        All sequences are padded to the longest one.
        """
        return TensorDataset(pad_sequence(list(self.inputs), batch_first=True), self.lengths, self.targets)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over all steps, (features,) each, in float64."""
        steps = torch.cat(self.inputs).double()
        return steps.mean(0), steps.std(0, correction=0)

    def standardized(self, mean: Tensor, std: Tensor) -> "Sequences":
        """(input - mean) / std for each feature; a feature of standard deviation 0 is only shifted.

        Test data take the moments of the training data. Whole numbers become float32.

        Raises:
            ValueError: the moments are those of another number of features.
        """
        if not mean.shape == std.shape == (self.n_features,):
            raise ValueError(
                f"the moments have the shapes {tuple(mean.shape)} and {tuple(std.shape)}, the sequences {self.n_features} features; one "
                "mean and one deviation for each is needed: take the moments of data with the same features"
            )
        divisor = torch.where(std > 0, std, torch.ones_like(std))
        return replace(self, inputs=tuple(((one.double() - mean) / divisor).to(_floating(one.dtype)) for one in self.inputs))


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.float32


def pad_batch(samples: Sequence[Sample]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """((inputs (batch, steps, features), lengths (batch)), targets) from samples; zeros follow the shorter inputs.

    Raises:
        ValueError: a sequence is empty, or they have different numbers of features.
    """
    inputs, targets = zip(*samples, strict=True)
    check_steps(inputs)
    lengths = torch.tensor([len(one) for one in inputs])
    return (pad_sequence(list(inputs), batch_first=True), lengths), torch.stack([torch.as_tensor(target) for target in targets])


def pack_batch(samples: Sequence[Sample]) -> tuple[PackedSequence, Tensor]:
    """(PackedSequence, targets) from samples in any order of lengths; nothing is computed for padding.

    Raises:
        ValueError: as for `pad_batch`.
    """
    inputs, targets = zip(*samples, strict=True)
    check_steps(inputs)
    return pack_sequence(list(inputs), enforce_sorted=False), torch.stack([torch.as_tensor(target) for target in targets])


def sequence_loader(
    data: Dataset[Sample],
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    collate: Callable[[Sequence[Sample]], Any] = pad_batch,
    drop_last: bool = False,
    n_workers: int = 0,
) -> DataLoader:
    """A DataLoader of padded (or packed) batches; its order follows from the seed alone.

    Args:
        data: samples (input (steps, features), target): Sequences, video clips, or a Subset of them.
        collate: `pad_batch` or `pack_batch`.
    """
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        data, batch_size, shuffle=shuffle, generator=generator, collate_fn=collate, drop_last=drop_last, num_workers=n_workers
    )


def check_steps(inputs: Sequence[Tensor]) -> None:
    """Raises ValueError where a sequence is not (steps, features), is empty, or has another number of features than the first."""
    for position, one in enumerate(inputs):
        if one.dim() != 2 or 0 in one.shape:
            raise ValueError(
                f"sequence {position} has shape {tuple(one.shape)}; (steps, features) with at least one of each is needed: leave it out, "
                "or reshape it"
            )
        if one.shape[1] != inputs[0].shape[1]:
            raise ValueError(
                f"sequence {position} has {one.shape[1]} features and sequence 0 has {inputs[0].shape[1]}; all need the same: check them"
            )
