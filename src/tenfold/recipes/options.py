"""Options: what a user may choose of a recipe, and where its data are."""

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from tenfold.progress import Progress, silent
from tenfold.recipes.measure import N_TURNS

PRECISIONS = ("auto", "float32", "bfloat16")
DENSE = "dense"  # what the dense network is called among the formats
RECURRENT = ("formats", "has_dense_twin", "recurrent_format", "folds", "epochs", "batch_size", "hidden", "lr", "dense_lr", "turns")
ALWAYS = ("data", "seeds", "out", "progress")  # taken by every recipe
_SHOWN = {"formats": "format", "has_dense_twin": "dense"}  # fields whose names are others for a user


@dataclass(frozen=True)
class Options:
    """Choices of a user; None is the recipe's own.

    data: the recipe's file or folder, or a folder that holds it.
    formats: of what the recipe factorises, in recurrent networks the input-to-hidden map, as text, with modes where they are split.
    has_dense_twin: also train the dense network.
    recurrent_format: of the hidden-to-hidden map of the factorised networks, as text; None: dense.
    seeds: of the splits, the start values and the order of the data.
    folds: how many folds of each seed are run.
    epochs: passes over the training data; of ml1m, sweeps.
    batch_size, hidden: samples in a batch; size of the hidden state, or of DLRM the width of the embeddings.
    lr, dense_lr: highest learning rate of the factorised networks, and of the dense one; of DLRM that of the factors, and of all else.
    temperature: of the prior on ranks, where they are found by training.
    precision: float32, bfloat16 for steps in mixed precision, or auto, where a recipe has them; see `tenfold.precision`.
    protocol: name of a published way to use the data, where there are several.
    turns: steps of each network that are timed, after all training.
    out: a folder for results and finished runs; None: nothing is written.

    Raises:
        ValueError: a choice is out of range.
    """

    data: Path | None = None
    formats: tuple[str, ...] | None = None
    has_dense_twin: bool = True
    recurrent_format: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    hidden: int | None = None
    lr: float | None = None
    dense_lr: float | None = None
    temperature: float | None = None
    precision: str | None = None
    protocol: str | None = None
    turns: int = N_TURNS
    out: Path | None = None
    progress: Progress = field(default=silent, compare=False)

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("folds", "epochs", "batch_size", "hidden", "turns")}
        if bad := {name: count for name, count in counts.items() if count is not None and count < 1}:
            raise ValueError(f"the recipe got {bad}; each needs to be at least 1: raise it, or leave it out")
        if bad := {name: rate for name in ("lr", "dense_lr") if (rate := getattr(self, name)) is not None and not 0 < rate < 1}:
            raise ValueError(f"the recipe got {bad}; a learning rate between 0 and 1 is needed: leave it out, or give one like 0.001")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(
                f"the recipe got the temperature {self.temperature}; it needs a finite number above 0: leave it out, or give one like 10"
            )
        if self.precision not in (None, *PRECISIONS):
            raise ValueError(f"the recipe got the precision {self.precision!r}; one of {', '.join(PRECISIONS)} is needed: choose one")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"the seeds are {self.seeds}; at least one is needed, all different and from 0: give for instance (0, 1, 2)")

    def check_taken(self, recipe: str, taken: Collection[str]) -> None:
        """Raises ValueError where the user chose something that a recipe does not take.

        Args:
            taken: names of fields; data, seeds, out and progress are taken by all recipes.
        """
        given = [one.name for one in fields(self) if getattr(self, one.name) != (one.default if one.default is not MISSING else silent)]
        if wrong := [name for name in given if name not in taken and name not in ALWAYS]:
            named = ", ".join(_SHOWN.get(name, name) for name in wrong)
            known = ", ".join(sorted(_SHOWN.get(name, name) for name in (*taken, *ALWAYS) if name != "progress"))
            raise ValueError(f"{recipe} got {named}, which it does not take; its choices are {known}: leave {named} out")

    def find(self, names: Sequence[str], *, is_folder: bool = False) -> Path:
        """The data: `data` itself, or the first of the names below it; below $TENFOLD_DATA where `data` is None.

        Args:
            is_folder: the data are a folder, so a folder without any of the names is taken for the data.

        Raises:
            ValueError: nothing is there.
        """
        wanted = " or ".join(names)
        place = self.data if self.data is not None else Path(os.environ["TENFOLD_DATA"]) if os.environ.get("TENFOLD_DATA") else None
        if place is None:
            raise ValueError(f"no data are given; {wanted} is needed: give its path, or the folder that holds it, also as $TENFOLD_DATA")
        if not place.exists():
            raise ValueError(f"the data {place} do not exist; {wanted} is needed: check the path")
        if (found := look(place, names)) is not None:
            return found
        if place.is_dir() and (self.data is None or not is_folder):
            raise ValueError(
                f"the folder {place} does not hold the data; {wanted} is needed in it: give another folder, or the path itself"
            )
        return place


def look(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that a folder holds."""
    return next((folder / name for name in names if (folder / name).exists()), None)
