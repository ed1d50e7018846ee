"""Recipes: whole experiments, each one file of this folder: data -> model -> train -> numbers.

A recipe is a file here with `TAKES`, the fields of `Options` that it heeds (others are refused), `DATA`, the files that it looks for, and
a function `run(options) -> Shown`; it is found by being here. Its docstring says the source, the protocol, the command, the number to
expect and whether that is confirmed. The other files are what recipes are made of:

    options.py     what a user may choose
    experiment.py  all formats, seeds and folds of a recipe; finished runs are kept and not repeated
    training.py    one run: start values, `tenfold.finetune`, test
    models.py      recurrent networks with a head, dense and factorised
    measure.py     FLOP, time and memory of a training step, all formats in turns
    results.py     runs -> mean and spread, as data, JSON and tables
    shown.py       what every recipe gives back: a table, notes and data
    kept.py        finished runs in files
    automatic_ranks.py  a network trained with ranks found by its data; rank_runs.py with its controls, rank_table.py as a table
    image_task.py, image_mlp.py, calibration.py  images, their networks, and how far confidence is from accuracy
    dlrm_model.py, dlrm_sizes.py, ctr_*.py  click models, their tables, their training, scores and controls
    recommenders.py, recommender_training.py, fm_experiment.py, ranking.py, tower_fit.py  films and apps: models, controls, scores
    kcp_counts.py  the published parameter counts, computed by the formats of this package
    reproduce.py   `tenfold reproduce PAPER`; reproduction.py what it asks of a paper and gets back
    reproduce_kcp.py, bayesian_ranks.py, stable_cpd/  the papers
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
    files = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return tuple(name.replace("_", "-") for name in files if "TAKES" in vars(_file(name)))


def recipe(name: str) -> "ModuleType":
    """The file of a recipe; its docstring describes it, `DATA` says which files it looks for.

    Raises:
        ValueError: there is none of this name.
    """
    known = names()
    if (wanted := name.replace("_", "-")) not in known:
        raise ValueError(f"there is no recipe {name!r}; one of {', '.join(known)} is needed: choose one of them")
    return _file(wanted.replace("-", "_"))


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


def _file(name: str) -> "ModuleType":
    return importlib.import_module(f"{__name__}.{name}")
