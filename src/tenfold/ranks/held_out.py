"""Held-out data: what a choice is validated on must not be what the model is trained on."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from tenfold.batches import batches
from tenfold.running import batch_size

LOOK = 512  # samples of either side that are compared by their values
CHANCE = 2  # times the part of the training samples that are there twice may be met in the validation data by chance
FEWEST_VALUES = 16  # samples of fewer values may be equal by chance


def check_apart(training: Any, validation: Any) -> None:
    """Raises ValueError where the two share samples, as far as that can be seen.

    Seen are: the same object, the same loader's data set, tensors in the same memory, subsets of one data set with rows in common, and
    equal values among the first LOOK samples of each, unless the training data repeat themselves about as often, as sparse features and
    short texts do. Copies further on are not.
    """
    sources = [_source(data) for data in (training, validation)]
    if sources[0][0] is sources[1][0]:
        rows = [range(_length(base)) if one is None else one for base, one in sources]
        if shared := len(set(rows[0]) & set(rows[1])):
            raise _shared(f"{shared} rows of the same data set")
        return
    if {t.data_ptr() for t in _tensors(sources[0][0])} & {t.data_ptr() for t in _tensors(sources[1][0])}:
        raise _shared("the memory of their tensors")
    known, held = Counter(_fingerprints(training)), list(_fingerprints(validation))
    shared, repeated = sum(one in known for one in held), sum(count for count in known.values() if count > 1)
    if shared * known.total() > CHANCE * repeated * len(held):
        raise _shared(f"{shared} equal samples among the first {LOOK}")


def hold_out(data: Any, fraction: float, *, seed: int = 0) -> tuple[Any, Any]:
    """(training, validation): a part of a data set, drawn at random, is held out for validation.

    Of a DataLoader only its data set is taken: its batch size, sampler and collate function are not those of the two parts.

    Raises:
        ValueError: the fraction is not within 0..1, or leaves either side without a sample.
        TypeError: the data have no length and places, as a stream of batches.
    """
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, tuple) and all(isinstance(part, Tensor) for part in data):
        data = TensorDataset(*data)
    if not isinstance(data, Dataset) or isinstance(data, IterableDataset):
        raise TypeError(
            f"the data are a {type(data).__name__}, of which no part can be held out; a Dataset with a length is needed: "
            "give one, or give the validation data separately"
        )
    size = _length(data)
    n_held = round(fraction * size)
    if not 0 < fraction < 1 or not 0 < n_held < size:
        raise ValueError(
            f"a part of {fraction:g} of {size} samples is to be held out; between 0 and 1, at least one sample on either side, is needed: "
            "give for instance 0.1"
        )
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    return Subset(data, sorted(order[n_held:])), Subset(data, sorted(order[:n_held]))


def _source(data: Any) -> tuple[Any, list[int] | None]:
    """What the samples are taken from, and which of its rows, None for all."""
    if isinstance(data, DataLoader):
        return _source(data.dataset)
    if isinstance(data, Subset):
        base, rows = _source(data.dataset)
        own = [int(k) for k in data.indices]
        return base, own if rows is None else [rows[k] for k in own]
    return data, None


def _length(data: Any) -> int:
    try:
        return len(data)
    except TypeError:
        return 1  # a stream, which is the same as itself


def _tensors(data: Any) -> list[Tensor]:
    """The tensors that data consist of, as far as they are tensors."""
    if isinstance(data, Tensor):
        return [data] if data.numel() else []
    if isinstance(data, TensorDataset):
        return [t for t in data.tensors[:1] if t.numel()]
    return [data[0]] if isinstance(data, tuple) and data and isinstance(data[0], Tensor) and data[0].numel() else []


def _fingerprints(data: Any) -> Iterator[bytes]:
    """The values of the first samples. A stream that can be read only once is left alone."""
    if isinstance(data, Iterator):
        return
    seen = 0
    for inputs, _ in itertools.islice(batches(data, LOOK), LOOK):
        first = inputs if isinstance(inputs, Tensor) else next((v for v in _values(inputs) if isinstance(v, Tensor)), None)
        if first is None:
            return
        if first[0].numel() < FEWEST_VALUES:
            return
        for row in first[: LOOK - seen]:
            yield row.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
        seen += batch_size(inputs)
        if seen >= LOOK:
            return


def _values(inputs: Any) -> Any:
    return inputs.values() if isinstance(inputs, dict) else inputs


def _shared(what: str) -> ValueError:
    return ValueError(
        f"the validation data share {what} with the data of the fine-tuning; a loss of accuracy can only be validated on data that were "
        "not trained on: hold a part of the training data out"
    )
