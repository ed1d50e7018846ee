"""Batches: what a data argument means. Data sets, loaders, tensors and iterables of batches all become pairs (inputs, targets).

Inputs are what `running.call` gives to the model: a tensor, a tuple of arguments or a mapping of keyword arguments. Targets are
None where a batch has none, which is enough for calibration.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, SupportsIndex, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from tenfold.messages import WHOLE, check_kind

Batch: TypeAlias = tuple[Any, Any]

COUNT_LIMIT = 1 << 16  # batches of data without a length that are read to count them: seconds to minutes, but not forever
UNEQUAL = ("each tensor to be equal size", "should be of equal size", "storage that is not resizable")  # torch's words; the last a worker's
ACCEPTED = (
    "a torch Dataset of (input, target), a DataLoader, a tensor of inputs, a tuple (inputs, targets) of two tensors, "
    "or an iterable of batches (input, target)"
)


def batches(
    data: Any,
    batch_size: int,
    *,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
    drop_last: bool = False,
    start: int = 0,
    what: str = "data",
) -> Iterator[Batch]:
    """Pairs (inputs, targets) for one pass over the data; targets are None where there are none.

    A batch of more than two tensors is (*inputs, target); a mapping is keyword arguments, its entry "labels" the target. Tensor
    data sets, also subsets of them, are indexed as whole tensors. A DataLoader and an iterable of batches keep the batches and the
    order that they have: `batch_size`, `shuffle` and `drop_last` do not touch them.

    Args:
        generator: decides the order where `shuffle` is set; the same state gives the same order.
        drop_last: leaves out a last batch that is smaller than the others, unless it is the only one.
        start: the number of batches to leave out at the beginning.
        what: the data, as an error calls them.

    Raises:
        ValueError: the data are empty, `batch_size` is below 1, samples that are to be joined have different sizes, or a list of two
            tensors (a tuple of three or more) may as well be one batch.
        TypeError: the data are none of the above, or their samples are not tensors yet.

    >>> data = torch.utils.data.TensorDataset(torch.arange(5), torch.arange(5))
    >>> [inputs.tolist() for inputs, _ in batches(data, 2)]
    [[0, 1], [2, 3], [4]]
    """
    _check_size(batch_size)
    made = _own_batches(data)
    if made is None:
        given = _joined(_given_batches(data), what)
        for _ in itertools.islice(given, start):  # at once, not at the first use: what follows may depend on random numbers drawn here
            pass
        return given
    size, take = made
    if size == 0:
        raise _empty(data)
    order = torch.randperm(size, generator=generator) if shuffle else None
    count = _count(size, batch_size, drop_last)
    made_of = (slice(k * batch_size, (k + 1) * batch_size) for k in range(start, count))
    return _joined((take(rows if order is None else order[rows]) for rows in made_of), what)


def _joined(given: Iterator[Batch], what: str) -> Iterator[Batch]:
    """The batches; an error tells where samples cannot be joined to them."""
    try:
        yield from given
    except RuntimeError as error:
        if (reason := next((line for line in str(error).splitlines() if any(one in line for one in UNEQUAL)), None)) is None:
            raise
        raise ValueError(
            f"the samples of the {what} have different sizes ({reason}), and a batch needs equal ones: resize or pad them in the data set, "
            "or give a DataLoader with a collate_fn that does"
        ) from error
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        raise TypeError(
            f"the samples of the {what} cannot be joined to batches ({error}); tensors are needed: give the data set the "
            "transforms that the model was trained with, such as to tensors and normalised"
        ) from error


def n_batches(data: Any, batch_size: int, *, drop_last: bool = False) -> int:
    """The number of batches of one pass; an iterable of unknown length is read once to count them.

    Raises:
        ValueError: the data are empty, or have no length and COUNT_LIMIT batches or more, so that they may be endless.
        TypeError: the data can be read only once, as a generator.
    """
    if isinstance(data, Iterator):
        raise TypeError(
            f"the data are a {type(data).__name__}, which can be read only once; several passes are needed: give {ACCEPTED}, "
            "for instance list(data)"
        )
    if (known := known_n_batches(data, batch_size, drop_last=drop_last)) is not None:
        return known
    count = sum(1 for _ in itertools.islice(_given_batches(data), COUNT_LIMIT))
    if count == COUNT_LIMIT:
        raise ValueError(
            f"the data ({type(data).__name__}) have no length, and did not end within {COUNT_LIMIT:,} batches; the number of steps "
            "has to be known: give finetune steps_per_epoch=, or the data a __len__"
        )
    return count


def known_n_batches(data: Any, batch_size: int, *, drop_last: bool = False) -> int | None:
    """The number of batches of one pass, None where only reading tells it.

    Raises:
        ValueError: the data are empty, or `batch_size` is below 1.
    """
    _check_size(batch_size)
    made = _own_batches(data)
    if made is not None:
        count = _count(made[0], batch_size, drop_last) if made[0] else 0
    else:
        try:
            count = len(data)
        except TypeError:
            return None
    if count == 0:
        raise _empty(data)
    return count


def _check_size(batch_size: int) -> None:
    check_kind("batch_size", batch_size, SupportsIndex, WHOLE)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it needs at least 1 sample, e.g. batch_size=128")


def random_states(data: Any) -> list[torch.Generator]:
    """The generators that decide the order of a DataLoader, where it has any of its own."""
    if not isinstance(data, DataLoader):
        return []
    owners = [data, data.sampler, getattr(data.batch_sampler, "sampler", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _count(size: int, batch_size: int, drop_last: bool) -> int:
    return max(1, size // batch_size) if drop_last else -(-size // batch_size)


def _own_batches(data: Any) -> tuple[int, Callable[[slice | Tensor], Batch]] | None:
    """The number of samples and a way to take some of them, or None where the data come in batches already."""
    if isinstance(data, Tensor):
        return len(data) if data.dim() else 0, lambda rows: (data[rows], None)
    if _is_pair_of_tensors(data):
        data = TensorDataset(*data)
    tensors, rows_of = _tensors(data)
    if tensors is not None:
        kept: tuple[Tensor, ...] = tensors
        if rows_of is None:
            return len(kept[0]) if kept else 0, lambda rows: as_batch([tensor[rows] for tensor in kept])
        return len(rows_of), lambda rows: as_batch([tensor[rows_of[rows]] for tensor in kept])
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        dataset: Any = data
        size = len(dataset)
        return size, lambda rows: as_batch(
            default_collate([dataset[k] for k in (rows.tolist() if isinstance(rows, Tensor) else range(size)[rows])])
        )
    return None


def _is_pair_of_tensors(data: Any) -> bool:
    if not (isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) and part.dim() for part in data)):
        return False
    inputs, targets = data
    if len(inputs) != len(targets):
        raise ValueError(
            f"the data are {len(inputs)} inputs and {len(targets)} targets; each input needs one target: give tensors of the same length"
        )
    return True


def _tensors(data: Any) -> tuple[tuple[Tensor, ...] | None, Tensor | None]:
    """The tensors of a data set that holds nothing else, and the rows of a subset; (None, None) for other data."""
    if type(data) is TensorDataset:
        return data.tensors, None
    if type(data) is Subset:
        tensors, rows = _tensors(data.dataset)
        if tensors is not None:
            subset = torch.as_tensor(data.indices, dtype=torch.long)
            return tensors, subset if rows is None else rows[subset]
    return None, None


def _given_batches(data: Any) -> Iterator[Batch]:
    """The batches of a loader or another iterable, once each is a pair."""
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise TypeError(f"the data are a {type(data).__name__}; needed is {ACCEPTED}; wrap what you have in a torch Dataset")
    if isinstance(data, IterableDataset):
        raise TypeError(
            f"the data are the {type(data).__name__}, an IterableDataset, which has single samples; batches are needed: "
            "wrap it in a DataLoader with a batch_size"
        )
    if isinstance(data, Sized) and not isinstance(data, DataLoader) and len(data) == 0:
        raise _empty(data)
    if isinstance(data, tuple | list) and _is_one_batch(data):
        shapes = ", ".join(f"{tuple(one.shape)} of {one.dtype}" for one in data)
        raise ValueError(
            f"the data are a {type(data).__name__} of tensors with as many samples each, {shapes}, which may be inputs and targets, or "
            "batches of inputs; one of them has to be said: give TensorDataset(*data) for the first, [(batch,), ...] for the second"
        )
    return _pairs(data)


def _is_one_batch(data: tuple[Any, ...] | list[Any]) -> bool:
    """Whether tensors look like the parts of one batch, as a loader gives them, and not like batches: of as many samples, not all alike."""
    if not all(isinstance(one, Tensor) and one.dim() for one in data) or (isinstance(data, list) and len(data) != 2):
        return False
    return len({len(one) for one in data}) == 1 and len({(one.shape[1:], one.dtype) for one in data}) > 1


def _pairs(data: Iterable[Any]) -> Iterator[Batch]:
    is_empty = True
    for batch in data:
        inputs, targets = as_batch(batch)
        if isinstance(targets, int | float) or (isinstance(targets, Tensor) and targets.dim() == 0):
            raise TypeError(
                f"the data give single samples, with the target {targets}; an iterable needs batches, whose targets are tensors: "
                "wrap the samples in a torch Dataset or a DataLoader"
            )
        is_empty = False
        yield inputs, targets
    if is_empty:
        raise _empty(data)


def as_batch(batch: Any) -> Batch:
    """(inputs, targets) from what a loader gives for one batch."""
    if isinstance(batch, Mapping):
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return inputs, batch.get("labels")
    if isinstance(batch, tuple | list):
        if not batch:
            raise TypeError("the data gave an empty batch; each needs inputs, or inputs and a target: check the data set")
        if len(batch) == 1:
            return batch[0], None
        return (batch[0] if len(batch) == 2 else tuple(batch[:-1])), batch[-1]
    return batch, None


def on_device(value: Any, device: torch.device) -> Any:
    """The value with its tensors on a device, also those inside of mappings, tuples and lists."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: on_device(one, device) for name, one in value.items()}
    return type(value)(on_device(one, device) for one in value) if type(value) in (tuple, list) else value


def _empty(data: Any) -> ValueError:
    return ValueError(
        f"the data ({type(data).__name__}) have no samples; at least one batch is needed: check the path or filter that they come from"
    )
