"""Click data made up, in Criteo's format: Zipf ids in tables of any size, and labels from tensor trains of known ranks.

The logit of a row is  bias + sum of weights x log(1 + number) + sum over the planted tables of u(id),  and u(id) = A[i1] B[i2] C[i3] is a
tensor train over the digits (i1, i2, i3) of the id, so a factorised table that says it needs the ranks of the train and no more. The
probability of every label is known, and with it the log loss that no model can beat.
"""

import gzip
import io
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.data.criteo import N_NUMBERS, log_numbers
from tenfold.data.ctr import Rows
from tenfold.files import replacing

BLOCK = 8192  # rows that are drawn together
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class PlantedClicks:
    """What is planted; two of the same fields give the same rows.

    sizes: rows of each table.
    modes: for each planted table by number, the sizes of the three digits of its ids; their product is at least its size.
    ranks: of the trains.
    exponent: of Zipf's law for the ids, above 0; the k-th most frequent id has a probability of about 1 / k^exponent. Frequent ids are
        spread over the table by a fixed permutation.
    effect: standard deviation of u over a table's ids; dense_effect: of the numbers' part.
    bias: about the logit of the base rate.
    missing: part of the numbers that is missing.

    Raises:
        ValueError: sizes, modes or ranks do not fit each other.
    """

    sizes: tuple[int, ...]
    modes: Mapping[int, tuple[int, int, int]]
    ranks: tuple[int, int] = (3, 3)
    exponent: float = 1.05
    effect: float = 0.7
    dense_effect: float = 0.5
    bias: float = -1.2
    missing: float = 0.1
    n_numbers: int = N_NUMBERS
    seed: int = 0
    _trains: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        wrong = {n: m for n, m in self.modes.items() if not 0 <= n < len(self.sizes) or len(m) != 3 or math.prod(m) < self.sizes[n]}
        if wrong or min(self.sizes, default=0) < 1 or min(self.ranks) < 1 or not self.exponent > 0:
            raise ValueError(
                f"PlantedClicks got {len(self.sizes)} sizes from {min(self.sizes, default=0)} on, ranks {self.ranks}, exponent "
                f"{self.exponent:g} and modes that do not fit: {wrong}; sizes, ranks and exponent must be positive, and three modes must "
                "have at least the size of their table as product: correct them"
            )
        for number in self.modes:
            self._trains[number] = self._train(number)

    def block(self, number: int) -> "PlantedRows":
        """The rows `number` x 8192 and the next 8191, always the same."""
        random = np.random.default_rng([self.seed, 1, number])
        ids = np.stack([self._ids(size, random.random(BLOCK)) for size in self.sizes], 1)
        draws = random.random((BLOCK, self.n_numbers))
        numbers = np.floor(3 / np.sqrt(1 - draws) - 3)  # heavy tails, as counts have
        numbers[random.random(numbers.shape) < self.missing] = np.nan
        inputs = log_numbers(Rows(np.zeros(BLOCK), numbers, ids)).numbers
        logits = self.bias + (inputs - 0.9) @ self.weights + sum(self.effects(table, ids[:, table]) for table in self.modes)
        labels = (random.random(BLOCK) < 1 / (1 + np.exp(-logits))).astype(np.float32)
        return PlantedRows(numbers, inputs, ids, labels, logits)

    @property
    def weights(self) -> np.ndarray:
        """Of the numbers in the logit."""
        weights = np.random.default_rng([self.seed, 2]).normal(size=self.n_numbers)
        return weights * self.dense_effect / max(np.linalg.norm(weights), 1e-12)

    def effects(self, table: int, ids: np.ndarray) -> np.ndarray:
        """What some ids of a planted table add to the logit."""
        a, b, c = self._trains[table]
        _, p2, p3 = self.modes[table]
        return np.einsum("na,nab,nb->n", a[ids // (p2 * p3)], b[ids // p3 % p2], c[ids % p3])

    def bayes_log_loss(self, rows: tuple[int, int]) -> float:
        """The mean entropy of the labels of some rows, in nats: the expected log loss of the true probabilities."""
        total = 0.0
        for logits in self._blocks_of(rows):
            p = 1 / (1 + np.exp(-np.abs(logits)))
            total += float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).sum())
        return total / (rows[1] - rows[0])

    def _blocks_of(self, rows: tuple[int, int]) -> Iterator[np.ndarray]:
        for number in range(rows[0] // BLOCK, -(-rows[1] // BLOCK)):
            yield self.block(number).logits[max(0, rows[0] - number * BLOCK) : rows[1] - number * BLOCK]

    def _ids(self, size: int, uniform: np.ndarray) -> np.ndarray:
        """Ids by Zipf's law without a table of it: the rank is a power of a uniform number, the inverse of a continuous law."""
        power = 1 - self.exponent
        if abs(power) < 1e-9:
            ranks = np.exp(uniform * math.log(size + 1))
        else:
            ranks = (1 + uniform * ((size + 1) ** power - 1)) ** (1 / power)
        ranks = np.clip(ranks.astype(np.int64) - 1, 0, size - 1)
        step = max(1, int(GOLDEN * size))
        while math.gcd(step, size) > 1:
            step += 1
        return ranks * step % size

    def _train(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A (p1, r1), B (p2, r1, r2), C (p3, r2), all singular values of both unfoldings alike in size; u has mean square effect^2."""
        (p1, p2, p3), (r1, r2) = self.modes[number], self.ranks
        random = np.random.default_rng([self.seed, 3, number])
        a, c = random.normal(size=(p1, r1)), random.normal(size=(p3, r2))
        b = random.normal(size=(p2, r1, r2)) / math.sqrt(r1 * r2)
        return a, b * self.effect, c


@dataclass(frozen=True)
class PlantedRows:
    """numbers: as in a file, nan where missing; inputs: as a model gets them; ids; labels; logits: of the true probabilities."""

    numbers: np.ndarray
    inputs: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


class SyntheticClicks:
    """Batches ((numbers, ids), labels) of planted clicks, as `Clicks` gives those of files; nothing is stored.

    Args:
        rows: the first row and the one after the last: for instance (0, 10**6) for training, the next ones for testing.

    Raises:
        ValueError: the batch size or the number of rows is below 1.
    """

    def __init__(self, planted: PlantedClicks, batch_size: int, rows: tuple[int, int]) -> None:
        if batch_size < 1 or not 0 <= rows[0] < rows[1]:
            raise ValueError(f"SyntheticClicks got batch_size={batch_size} and rows={rows}; both need at least one row: correct them")
        self.planted, self.batch_size, self.rows = planted, batch_size, rows
        self._next = rows[0]
        self._is_resumed = False

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
        if not self._is_resumed:
            self._next = self.rows[0]
        self._is_resumed = False
        held: dict[int, PlantedRows] = {}
        while self._next < self.rows[1]:
            first, end = self._next, min(self._next + self.batch_size, self.rows[1])
            numbers = range(first // BLOCK, (end - 1) // BLOCK + 1)
            held = {number: held.get(number) or self.planted.block(number) for number in numbers}
            parts = [(held[n], slice(max(0, first - n * BLOCK), end - n * BLOCK)) for n in numbers]
            self._next = end
            yield (
                (
                    torch.from_numpy(np.concatenate([one.inputs[part] for one, part in parts])),
                    torch.from_numpy(np.concatenate([one.ids[part] for one, part in parts])),
                ),
                torch.from_numpy(np.concatenate([one.labels[part] for one, part in parts])),
            )

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is: after the batch that was given last."""
        return {"planted": repr(self.planted), "rows": list(self.rows), "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next `iter` go on there.

        Raises:
            ValueError: the state is of other rows, or no state of this class.
        """
        try:
            planted, rows, place = state["planted"], tuple(state["rows"]), state["next"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"the state is none of SyntheticClicks ({type(error).__name__}: {error}); what state_dict() gave is needed: give that, "
                "unchanged"
            ) from error
        if (planted, rows) != (repr(self.planted), self.rows):
            raise ValueError(
                f"the state is of rows {rows} of {planted}, but these are rows {self.rows} of {self.planted!r}; a pass goes on in the same "
                "rows: make them as before"
            )
        self._next, self._is_resumed = place, True


def write_clicks(planted: PlantedClicks, path: str | os.PathLike[str], rows: tuple[int, int]) -> None:
    """Writes rows in Criteo's format, the whole file or nothing; gzipped where the name ends in .gz. Ids are hexadecimal numbers.

    Raises:
        ValueError: there are not 13 numbers and 26 tables.
        OSError: the folder is missing or cannot be written.
    """
    if (planted.n_numbers, len(planted.sizes)) != (N_NUMBERS, 26):
        raise ValueError(
            f"{planted.n_numbers} numbers and {len(planted.sizes)} tables were planted; Criteo's format has 13 and 26: plant so many"
        )
    with replacing(path) as part:
        opened = gzip.open(part, "wb", compresslevel=4) if Path(path).suffix == ".gz" else part.open("wb")
        with opened as file, io.TextIOWrapper(file, "ascii", newline="") as text:  # type: ignore[arg-type]
            for number in range(rows[0] // BLOCK, -(-rows[1] // BLOCK)):
                block = planted.block(number)
                for row in range(max(0, rows[0] - number * BLOCK), min(BLOCK, rows[1] - number * BLOCK)):
                    numbers = ["" if math.isnan(one) else str(int(one)) for one in block.numbers[row]]
                    text.write("\t".join([str(int(block.labels[row])), *numbers, *(f"{one:08x}" for one in block.ids[row])]) + "\n")
