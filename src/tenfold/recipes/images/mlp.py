"""Image MLP: 784-512-10 on images of 28 x 28, dense, with automatic ranks, with fixed ones, and the null model."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.data.images import Images, read_images
from tenfold.formats import parse_format
from tenfold.nn import Linear
from tenfold.precision import settled
from tenfold.recipes.automatic_ranks import Training
from tenfold.recipes.images.rank_runs import AUTOMATIC, FIXED, NULL, RankRun, RankRuns
from tenfold.recipes.images.rank_table import rank_table
from tenfold.recipes.images.task import ImageTask
from tenfold.recipes.options import DENSE, Options
from tenfold.recipes.shown import Table, write_result

CHOICES = ("formats", "has_dense_twin", "epochs", "batch_size", "lr", "dense_lr", "temperature", "precision", "protocol")
N_IN, N_HIDDEN, N_OUT = 784, 512, 10
N_HELD_OUT = 5000  # training images kept for choices
PROTOCOLS = ("test", "validation")
Activation: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Start:
    """The two layers at the start of a search, with more than the ranks that are needed, and what was chosen on held-out images.

    second: `DENSE` leaves it dense. lr: None: that of the recipe. heat: the temperature relative to that of the recipe.
    """

    first: str
    second: str
    lr: float | None = None
    heat: float = 1.0


@dataclass(frozen=True)
class ImageMlp:
    """A recipe: its name, where its file is looked for, how it is trained, and where the search of each format starts.

    has_norm: whether there is a BatchNorm before the activation. A format that `starts` does not name is taken for the first layer, and for
    the second one too where those of `starts` factorise it.
    """

    name: str
    data: tuple[str, ...]
    training: Training
    dropout: float
    starts: Mapping[str, Start]
    has_norm: bool = False
    activation: Activation = F.relu

    def run(self, options: Options) -> Table:
        """All runs, those that are there from before included.

        Raises:
            ValueError: the data, the protocol or a format do not fit.
        """
        protocol = options.protocol or PROTOCOLS[0]
        if protocol not in PROTOCOLS:
            raise ValueError(
                f"there is no protocol {protocol!r} for {self.name}; one of {', '.join(PROTOCOLS)} is needed: choose one of them"
            )
        place = options.find(self.data)
        train, test = parts(*read_images(place), protocol)
        if train.pixels[0].numel() != N_IN:
            raise ValueError(f"the images of {place} have {train.pixels[0].numel()} values; 28 x 28 of one channel are needed: resize them")
        formats = tuple(self.starts) if options.formats is None else options.formats
        training = chosen(self.training, options)
        trainings = {DENSE: training, **{format: self.training_of(format, options) for format in formats}}
        task = ImageTask(train, *train.moments(), training.batch_size, is_flat=True)
        for format in formats:
            self.build(format, 0)  # what does not fit is said before any training
        words = f"{place.name}, {protocol}: {len(train)} and {len(test)} images{', BatchNorm' if self.has_norm else ''}"
        words += "" if self.activation is F.relu else f", {self.activation.__name__}"
        runs = RankRuns(
            self.name,
            {format: f"{words}; dropout {self.dropout}; {' '.join(self._texts(format))}" for format in (DENSE, *formats)},
            task,
            test,
            self.build,
            ("first", "second") if self._factorises_second else ("first",),
            trainings,
            options,
            {"first": task.second_moment()},
        )
        found = all_runs(runs, formats, options)
        settings = {
            **dataclasses.asdict(training),
            "formats": {one: dataclasses.asdict(value) for one, value in trainings.items()},
            "dropout": self.dropout,
            "data": words,
            "seeds": list(options.seeds),
        }
        result = rank_table(self.name, found, settings, (f"{words}. {training.epochs} epochs of batches of {training.batch_size}.",))
        write_result(result, options.out)
        return result

    def training_of(self, format: str, options: Options) -> Training:
        """How a format is trained: the recipe's way, what was chosen for the format, what a user has chosen."""
        start = self._start(format)
        training = dataclasses.replace(self.training, temperature=start.heat * self.training.temperature)
        return chosen(training if start.lr is None else dataclasses.replace(training, lr=start.lr), options)

    def build(self, format: str, seed: int) -> nn.Module:
        """A fresh network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Mlp(*self._texts(format), self.dropout, self.has_norm, self.activation)

    @property
    def _factorises_second(self) -> bool:
        return any(start.second != DENSE for start in self.starts.values())

    def _start(self, format: str) -> Start:
        return self.starts.get(format, Start(format, format if self._factorises_second else DENSE))

    def _texts(self, format: str) -> tuple[str, str]:
        start = self._start(format)
        return start.first, start.second


class Mlp(nn.Module):
    """784-512-10, dropout on the hidden layer. first, second: `DENSE` or a format's text."""

    def __init__(self, first: str, second: str, dropout: float, has_norm: bool, activation: Activation = F.relu) -> None:
        super().__init__()
        self.first, self.second = _linear(N_IN, N_HIDDEN, first), _linear(N_HIDDEN, N_OUT, second)
        self.norm = nn.BatchNorm1d(N_HIDDEN) if has_norm else nn.Identity()
        self.dropout, self.activation = dropout, activation

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 10) from (batch, 784)."""
        return self.second(F.dropout(self.activation(self.norm(self.first(x))), self.dropout, self.training))


def _linear(n_in: int, n_out: int, text: str) -> nn.Module:
    if text == DENSE:
        return nn.Linear(n_in, n_out)
    format, modes = parse_format(text)
    return Linear(n_in, n_out, format=format, in_modes=modes.get("in_modes"), out_modes=modes.get("out_modes"))


def parts(train: Images, test: Images, protocol: str) -> tuple[Images, Images]:
    """Training and test images of a protocol: "validation" tests on the last training images, which are then not trained on.

    Raises:
        ValueError: a label is none of the classes, or there are too few training images.
    """
    low, high = (int(one) for one in torch.cat([train.labels, test.labels]).aminmax())
    if low < 0 or high >= N_OUT:
        raise ValueError(
            f"the labels run from {low} to {high}; these networks tell {N_OUT} classes apart, numbered from 0: give data of so many classes"
        )
    if protocol != "test" and len(train) <= N_HELD_OUT:
        raise ValueError(
            f"there are {len(train)} training images, of which {protocol!r} keeps {N_HELD_OUT} for the test; it needs more: give more, or "
            "take the protocol 'test'"
        )
    if protocol == "test":
        return train, test
    return train.part(slice(0, len(train) - N_HELD_OUT)), train.part(slice(len(train) - N_HELD_OUT, None))


def chosen(training: Training, options: Options) -> Training:
    """A recipe's training with the choices of a user, and "auto" settled for the CPU, which recipes train on."""
    given: dict[str, Any] = {
        name: getattr(options, name) for name in ("epochs", "batch_size", "lr", "dense_lr", "temperature", "precision")
    }
    made = dataclasses.replace(training, **{name: value for name, value in given.items() if value is not None})
    return dataclasses.replace(made, precision=settled(made.precision, torch.device("cpu")))


def all_runs(runs: RankRuns, formats: tuple[str, ...], options: Options) -> list[RankRun]:
    """Dense, and for each format automatic ranks, the found ones from scratch, and for the first seed the null model."""
    found: list[RankRun] = []
    for seed in options.seeds:
        if options.has_dense_twin:
            found.append(runs.run(DENSE, DENSE, seed))
        for format in formats:
            found.append(runs.run(format, AUTOMATIC, seed))
            if not found[-1].removed:
                found.append(runs.run(format, FIXED, seed, found[-1].ranks))
            if seed == options.seeds[0]:
                found.append(runs.run(format, NULL, seed))
    order = [(DENSE, DENSE), *((format, way) for format in formats for way in (AUTOMATIC, FIXED, NULL))]
    return sorted(found, key=lambda run: (order.index((run.format, run.way)), run.seed))
