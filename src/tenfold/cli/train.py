"""tenfold train: the experiments that come with tenfold."""

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tenfold import recipes
from tenfold.cli.arguments import TRAINING, Common, Patterns
from tenfold.cli.console import Outcome, Steps, table
from tenfold.cli.output import writable_folder
from tenfold.recipes.measure import N_TURNS
from tenfold.recipes.options import Options, look
from tenfold.recipes.shown import Shown


def train(
    recipe: Annotated[str | None, Parameter(help="Name of a recipe; without it all are listed.")] = None,
    /,
    *,
    data: Annotated[
        Path | None, Parameter(help="The recipe's file or folder, or the folder that holds it; $TENFOLD_DATA where not given.")
    ] = None,
    format: Annotated[
        Patterns,
        Parameter(
            help="Of what the recipe factorises, in recurrent networks the input map: kcp:rank=2,in=10x12x10x12,out=4x4x4x2; may be given "
            "several times where the recipe compares formats."
        ),
    ] = (),
    recurrent_format: Annotated[
        str | None, Parameter(help="Of the recurrent map of the factorised networks; dense where not given.")
    ] = None,
    dense: Annotated[bool, Parameter(help="Also train the dense network, with the same number of steps.")] = True,
    protocol: Annotated[str | None, Parameter(help="A published way to use the data, where a recipe has several.")] = None,
    seeds: Annotated[int, Parameter(help="How many, from --seed on.", group=TRAINING)] = 3,
    folds: Annotated[int | None, Parameter(help="How many folds of each seed; all where not given.", group=TRAINING)] = None,
    epochs: Annotated[int | None, Parameter(help="Passes over the training data; of ml1m, sweeps.", group=TRAINING)] = None,
    batch_size: Annotated[int | None, Parameter(help="Samples in a batch.", group=TRAINING)] = None,
    hidden: Annotated[int | None, Parameter(help="Size of the hidden state; of dlrm, width of the embeddings.", group=TRAINING)] = None,
    lr: Annotated[
        float | None, Parameter(help="Highest learning rate of the factorised networks; of dlrm, that of the factors.", group=TRAINING)
    ] = None,
    dense_lr: Annotated[
        float | None, Parameter(help="Highest learning rate of the dense network; of dlrm, that of all but the factors.", group=TRAINING)
    ] = None,
    temperature: Annotated[
        float | None, Parameter(help="Of the prior on ranks, where they are found by training; more compresses more.", group=TRAINING)
    ] = None,
    precision: Annotated[
        str | None,
        Parameter(help="float32; bfloat16: steps in mixed precision; auto: that where the machine computes with it.", group=TRAINING),
    ] = None,
    turns: Annotated[int, Parameter(help="Steps of each network that are timed.", group=TRAINING)] = N_TURNS,
    out: Annotated[Path | None, Parameter(help="Folder for results and finished runs; the same command goes on from there.")] = None,
    common: Common = Common(),
) -> Outcome:
    """Train a recipe: its dense network and the factorised ones, all alike; without a name list the recipes.

    Prints accuracy (mean and spread over seeds), parameters, both compression ratios, and FLOP, time and peak memory of a step.

    **Example**

        tenfold train clips-lstm --data clips.npz --format kcp:rank=2,in=60x4x60,out=8x16x4 --seeds 3 --out clips
    """
    common.apply()
    if recipe is None:
        return _listing(data)
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; at least 1 is needed: leave it out for 3")
    recipes.recipe(recipe)
    with contextlib.nullcontext() if out is None else writable_folder(out), Steps() as steps:
        options = Options(
            data=data,
            formats=tuple(format) or None,
            has_dense_twin=dense,
            recurrent_format=recurrent_format,
            seeds=tuple(range(common.seed, common.seed + seeds)),
            folds=folds,
            epochs=epochs,
            batch_size=batch_size,
            hidden=hidden,
            lr=lr,
            dense_lr=dense_lr,
            temperature=temperature,
            precision=precision,
            protocol=protocol,
            turns=turns,
            out=out,
            progress=steps,
        )
        result = recipes.run(recipe, options)
    written = (f"written to {out}: {result.recipe}.json, {result.recipe}.md and the finished runs",) if out else ()
    return Outcome(result.data(), (*result_tables(result), *written))


def result_tables(result: Shown) -> tuple[Any, ...]:
    """A result for a person."""
    return (table(result.columns, result.cells(), title=result.recipe, numbers=result.columns[1:]), *result.notes())


def _listing(data: Path | None) -> Outcome:
    folder = data if data is not None else Path(os.environ.get("TENFOLD_DATA") or ".")
    rows = []
    for name in recipes.names():
        file = recipes.recipe(name)
        title, *text = (file.__doc__ or "").strip().splitlines()
        place = look(folder, file.DATA)
        rows.append(
            {
                "name": name,
                "title": title.partition(": ")[2],
                "description": "\n".join(text).strip(),
                "data": None if place is None else str(place),
            }
        )
    shown = [(row["name"], row["title"], row["data"] or f"not in {folder}") for row in rows]
    return Outcome(
        {"recipes": rows}, (table(("recipe", "what it is", "data"), shown), "train one with: tenfold train NAME --data PATH --out FOLDER")
    )
