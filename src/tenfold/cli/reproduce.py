"""tenfold reproduce: the numbers of a paper beside ours."""

import contextlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenfold.cli.arguments import Common, Flag
from tenfold.cli.console import Outcome, Steps, table
from tenfold.cli.output import writable_folder
from tenfold.cli.train import result_tables
from tenfold.recipes import kcp_counts
from tenfold.recipes.reproduce import COUNT_NOTE, RESULTS, findings
from tenfold.recipes.reproduce import reproduce as run


def reproduce(
    paper: Annotated[str, Parameter(help="Which paper: kcp (Kronecker CP, arXiv 2008.09342).")],
    /,
    *,
    data: Annotated[Path | None, Parameter(help="Folder that holds the data sets; $TENFOLD_DATA where not given.")] = None,
    out: Annotated[Path | None, Parameter(help="Folder for results and finished runs; the same command goes on.")] = None,
    seeds: Annotated[int, Parameter(help="How many, from --seed on.")] = 3,
    quick: Flag = False,
    common: Common = Common(),
) -> Outcome:
    """Print the parameter counts of a paper beside ours, then train its recipes on the data that are there.

    --quick: one seed, one fold, two epochs and few timed steps, to see that everything works.

    **Example**

        tenfold reproduce kcp --data data --out kcp
    """
    common.apply()
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; at least 1 is needed: leave it out for 3")
    with contextlib.nullcontext() if out is None else writable_folder(out), Steps() as steps:
        found = run(paper, data=data, out=out, seeds=range(common.seed, common.seed + seeds), quick=quick, progress=steps)
    numbers = ("map", "ratio", "published", "model", "model ratio")
    counts = table(kcp_counts.COLUMNS[:-1], [row.cells()[:-1] for row in found.counts], title="Parameter counts", numbers=numbers)
    results = [part for result in found.results for part in (*result_tables(result), *findings(result))]
    warning = ("--quick: these accuracies say that everything works, nothing more",) if quick and found.results else ()
    written = (f"written to {out}: {RESULTS}.json, {RESULTS}.md and the finished runs",) if out else ()
    return Outcome(found.data(), (counts, COUNT_NOTE, *results, *found.not_trained(), *warning, *written))
