"""tenfold reproduce: the numbers of a paper beside ours."""

import contextlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenfold.cli.arguments import Common, Flag, Patterns
from tenfold.cli.console import Outcome, Steps, table
from tenfold.cli.output import writable_folder
from tenfold.recipes.reproduce import RESULTS
from tenfold.recipes.reproduce import reproduce as run


def reproduce(
    paper: Annotated[
        str,
        Parameter(
            help="Which paper: kcp (Kronecker CP, arXiv 2008.09342), stable-cpd (stable CP of convolutions, arXiv 2008.05441) or "
            "bayesian-ranks (ranks found by training)."
        ),
    ],
    /,
    *,
    data: Annotated[Path | None, Parameter(help="Folder that holds the data sets; $TENFOLD_DATA where not given.")] = None,
    out: Annotated[Path | None, Parameter(help="Folder for results, pictures and finished runs; the same command goes on.")] = None,
    only: Annotated[Patterns, Parameter(help="A part of the paper, such as a network or a recipe; may be given several times.")] = (),
    budgets: Annotated[
        tuple[float, ...],
        Parameter(help="Fraction of FLOP that is kept; may be given several times.", negative="", show_default=False),
    ] = (),
    seeds: Annotated[int, Parameter(help="How many, from --seed on.")] = 3,
    quick: Annotated[Flag, Parameter(help="One seed and as little as shows that everything works; no result.")] = False,
    common: Common = Common(),
) -> Outcome:
    """Print the numbers of a paper beside ours, on the data that are there.

    **Example**

        tenfold reproduce kcp --data data --out kcp
    """
    common.apply()
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; at least 1 is needed: leave it out for 3")
    with contextlib.nullcontext() if out is None else writable_folder(out), Steps() as steps:
        found = run(
            paper,
            data=data,
            out=out,
            seeds=range(common.seed, common.seed + seeds),
            only=only,
            budgets=budgets,
            quick=quick,
            progress=steps,
        )
    shown = []
    for one in found.tables():
        shown += [table(one.columns, one.rows, title=one.title, numbers=one.numbers), *one.notes]
    written = (f"written to {out}: {RESULTS}.json, {RESULTS}.md and the finished runs",) if out else ()
    return Outcome(found.data(), (*shown, *found.notes(), *written))
