"""Series: time series in the .ts format of the UEA and UCR archives (as written by sktime) -> Sequences.

A line after @data is one series: channels separated by colons, steps by commas, the class last. Files may be gzipped.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tenfold.data.sequences import Sequences
from tenfold.data.text import read_text


@dataclass(frozen=True)
class _Header:
    """What the lines before @data say; None where they do not."""

    classes: tuple[str, ...] | None = None
    n_channels: int | None = None
    n_steps: int | None = None
    is_labelled: bool = True


def read_series(path: str | os.PathLike[str], *, classes: Sequence[str] | None = None, missing: float | None = None) -> Sequences:
    """The series of a .ts or .ts.gz file, each (steps, channels) float32, with the number of its class.

    Args:
        classes: names in the order of their numbers; those of the file's @classLabel where left out, so both files of a data set agree.
        missing: the value that stands for "?" and NaN; where left out, a missing value is an error.

    Raises:
        ValueError: the file is missing, damaged or has no series, or a line is malformed; lines are named with their number.
    """
    place = Path(path)
    lines = read_text(place).splitlines()
    begin = next((number for number, line in enumerate(lines, 1) if line.strip().lower() == "@data"), None)
    if begin is None:
        raise ValueError(f"the file {place} has {len(lines)} lines and no line @data; a .ts file is needed: check the path")
    header = _header(place, lines[: begin - 1])
    known = tuple(classes) if classes is not None else header.classes
    if known is None or not header.is_labelled:
        raise ValueError(
            f"the file {place} has no classes (@classLabel true NAME NAME ...); they are needed: add the line, or give classes"
        )
    numbers = {name: number for number, name in enumerate(known)}
    if len(numbers) < len(known):
        raise ValueError(
            f"the classes of {place} are {', '.join(known)}, some of them twice; each is needed once, as its place is its number: mend it"
        )
    inputs: list[Tensor] = []
    targets: list[int] = []
    for number, line in enumerate(lines[begin:], begin + 1):
        if line.strip() and not line.startswith("#"):
            where = f"line {number} of {place}"
            values, label = _series(where, line.strip(), header, missing)
            if label not in numbers:
                raise ValueError(f"{where} has the class {label!r}; one of {', '.join(known)} is needed: correct it, or give classes")
            inputs.append(values)
            targets.append(numbers[label])
            if values.shape[1] != inputs[0].shape[1]:
                raise ValueError(
                    f"{where} has {values.shape[1]} channels and the first series has {inputs[0].shape[1]}; all need the same: correct it"
                )
    if not inputs:
        raise ValueError(f"the file {place} has 0 series after @data; at least one is needed: check that it is whole")
    return Sequences(tuple(inputs), torch.tensor(targets), known)


def _header(path: Path, lines: Iterable[str]) -> _Header:
    words = {parts[0].lower(): parts[1:] for parts in (line.split() for line in lines) if parts and parts[0].startswith("@")}

    def says(tag: str, value: str) -> bool:
        return [word.lower() for word in words.get(tag, [])[:1]] == [value]

    if says("@timestamps", "true"):
        raise ValueError(f"the file {path} has time stamps; values at regular steps are needed: write it without them")
    if says("@targetlabel", "true"):
        raise ValueError(f"the file {path} has values as targets (@targetLabel); classes are needed: take a classification data set")

    def number(tag: str) -> int | None:
        text = " ".join(words.get(tag, []))
        if text and not (text.isdigit() and int(text) > 0):
            raise ValueError(f"the file {path} has {tag} {text!r}; a whole number above 0 is needed: correct the line")
        return int(text) if text else None

    is_univariate = says("@univariate", "true")
    labels = words.get("@classlabel", [])
    return _Header(
        classes=tuple(labels[1:]) or None,
        n_channels=number("@dimensions") or number("@dimension") or (1 if is_univariate else None),
        n_steps=number("@serieslength") if says("@equallength", "true") else None,
        is_labelled=not says("@classlabel", "false"),
    )


def _series(where: str, line: str, header: _Header, missing: float | None) -> tuple[Tensor, str]:
    """The values (steps, channels) and the class of a line."""
    *channels, label = (part.strip() for part in line.split(":"))
    if not channels or header.n_channels not in (None, len(channels)):
        raise ValueError(
            f"{where} has {len(channels)} channels before its class; {header.n_channels or 'at least 1'} needed, by @dimensions: separate "
            "channels and class by colons"
        )
    rows = [_channel(where, number, text, missing) for number, text in enumerate(channels, 1)]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or header.n_steps not in (None, lengths[0]):
        wanted = f"{header.n_steps} by @seriesLength" if header.n_steps else "one number"
        raise ValueError(f"{where} has channels of {' and '.join(map(str, lengths))} steps; {wanted} is needed for all: correct it")
    return torch.from_numpy(np.stack(rows, 1)), label


def _channel(where: str, number: int, text: str, missing: float | None) -> np.ndarray:
    steps = text.split(",")
    try:
        values = np.array([math.nan if step.strip() == "?" else float(step) for step in steps], np.float32)
    except ValueError:
        wrong = next(step for step in steps if step.strip() != "?" and not _is_number(step))
        raise ValueError(f"{where} has {wrong!r} in channel {number}; numbers separated by commas are needed: correct it") from None
    if missing is not None:
        values[np.isnan(values)] = missing
    if not np.isfinite(values).all():
        n_bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{where} has {n_bad} missing or infinite values in channel {number}; finite numbers are needed: give missing=0.0")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
