"""Recipes: whole experiments, each one file of a folder here: data -> model -> train -> numbers.

A recipe is a file with `TAKES`, the fields of `Options` that it heeds (others are refused), `DATA`, the files that it looks for, and
a function `run(options) -> Shown`; it is found by being in one of these folders, and its name is the file's, with dashes. Its docstring
says the source, the protocol, the command, the number to expect and whether that is confirmed. Each folder holds the recipes of a field
and what they are made of:

    sequences/     videos, speech, time series and text: recurrent networks whose maps are factorised
    images/        perceptrons and a ResNet whose ranks are found by training
    clicks/        DLRM on click data, its embedding tables small
    recommenders/  factorisation machines and NCF on ratings of films and uses of apps
    papers/        no recipes: the numbers of papers beside ours, one file or folder for each

The files here belong to no field:

    options.py     what a user may choose
    shown.py       what every recipe gives back: a table, notes and data
    finished_runs.py  finished runs in files
    measure.py     FLOP, time and memory of a training step, all formats in turns
    auc.py         how well scores tell two classes apart
    automatic_ranks.py  one training in which ranks are found, for any task that has batches and a loss; rank_steps.py its steps
    run_checkpoint.py   the file from which a killed run goes on
    reproduce.py   `tenfold reproduce PAPER`; reproduction.py what it asks of a paper and gets back
"""

import dataclasses
import importlib
import os
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from tenfold.format import Format
    from tenfold.progress import Progress
    from tenfold.recipes.options import Options
    from tenfold.recipes.shown import Shown


def names() -> tuple[str, ...]:
    """The names of all recipes, sorted.

    >>> "clips-lstm" in names()
    True
    """
    return tuple(_files())


def recipe(name: str) -> "ModuleType":
    """The file of a recipe; its docstring describes it, `DATA` says which files it looks for.

    Raises:
        ValueError: there is none of this name.
    """
    known = _files()
    if (wanted := name.replace("_", "-")) not in known:
        raise ValueError(f"there is no recipe {name!r}; one of {', '.join(known)} is needed: choose one of them")
    return known[wanted]


def run(name: str, options: "Options") -> "Shown":
    """The result of a recipe.

    Raises:
        ValueError: there is no such recipe, it does not take a choice that was made, or its data are not there.
    """
    file = recipe(name)
    options.check_taken(name, file.TAKES)
    return file.run(options)


def train(
    name: str,
    *,
    data: str | os.PathLike[str] | None = None,
    format: "str | Format | Sequence[str | Format] | None" = None,
    seeds: int | Iterable[int] = 3,
    epochs: int | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: "Progress | None" = None,
    **choices: Any,
) -> "Shown":
    """The result of a recipe: its dense network and the factorised ones, trained with the same number of steps.

    Args:
        data: the recipe's file or folder, or a folder that holds it; that of $TENFOLD_DATA where left out.
        format: one or several, as text with modes (``"kcp:rank=2,in=10x12x10x12,out=4x4x4x2"``) or as formats; the recipe's own
            where left out.
        seeds: how many, from 0, or which.
        epochs: passes over the training data; the recipe's own where left out.
        out: a folder for the result and the finished runs, which the next call does not repeat; nothing is written without one.
        choices: see `tenfold.recipes.options.Options`.

    Raises:
        ValueError: there is no such recipe, its data are not there, or a choice is out of range or not for this recipe.
    """
    from tenfold.formats import format_text
    from tenfold.recipes.options import Options

    given = [] if format is None else [format] if isinstance(format, str) or not isinstance(format, Sequence) else list(format)
    known = [field.name for field in dataclasses.fields(Options)]
    if wrong := sorted(set(choices) - set(known)):
        raise ValueError(f"train got {', '.join(wrong)}; the choices are {', '.join(known)}: use one of them")
    options = Options(
        data=None if data is None else Path(data),
        formats=tuple(one if isinstance(one, str) else format_text(one) for one in given) or None,
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        epochs=epochs,
        out=None if out is None else Path(out),
        **choices,
    )
    return run(name, options if progress is None else dataclasses.replace(options, progress=progress))


def _files() -> dict[str, "ModuleType"]:
    """The files that are recipes, by name, sorted."""
    every = [importlib.import_module(info.name) for info in pkgutil.walk_packages(__path__, f"{__name__}.")]
    found = {file.__name__.rpartition(".")[2]: file for file in every if "TAKES" in vars(file)}
    return {name.replace("_", "-"): found[name] for name in sorted(found)}
