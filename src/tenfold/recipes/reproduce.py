"""Reproduce: the numbers of a paper beside ours; one file or folder for each paper."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tenfold.files import write_text
from tenfold.json_text import json_text
from tenfold.progress import Progress, silent
from tenfold.recipes.reproduction import Reproduction, Request, data_folder

# paper -> file or folder of papers/ with a function `reproduce(request) -> Reproduction`, imported when it is asked for
PAPERS = {"kcp": "kcp", "stable-cpd": "stable_cpd", "bayesian-ranks": "bayesian_ranks"}
RESULTS = "results"  # name of the files, without ending


def reproduce(
    paper: str = "kcp",
    *,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    budgets: Sequence[float] = (),
    quick: bool = False,
    progress: Progress | None = None,
) -> Reproduction:
    """The numbers of a paper beside ours, on the data that are there.

    Args:
        data: the folder that holds the data sets; that of $TENFOLD_DATA where left out.
        out: a folder for the results, as JSON and as Markdown, and for the finished runs, which the next call does not repeat.
        only: parts of the paper, for instance networks or recipes; all of them where left out.
        budgets: fractions of FLOP that are kept, for papers that compress; the paper's own where left out.
        quick: as little as shows that everything works, no result.

    Raises:
        ValueError: the paper, a part of it or the folder of data is not there, or a budget is out of range.
    """
    if paper not in PAPERS:
        raise ValueError(f"there is nothing to reproduce for {paper!r}; one of {', '.join(PAPERS)} is needed: choose one of them")
    if not all(0 < budget < 1 for budget in budgets):
        raise ValueError(f"the budgets are {list(budgets)}; fractions between 0 and 1 are needed: 0.5 keeps half of the FLOP")
    if not seeds or min(seeds) < 0:
        raise ValueError(f"the seeds are {tuple(seeds)}; at least one is needed, all from 0: give for instance (0, 1, 2)")
    request = Request(
        data=data_folder(data),
        out=None if out is None else Path(out),
        seeds=tuple(seeds),
        only=tuple(only),
        budgets=tuple(budgets),
        is_quick=quick,
        progress=progress or silent,
    )
    run: Callable[[Request], Reproduction] = importlib.import_module(f"tenfold.recipes.papers.{PAPERS[paper]}").reproduce
    found = run(request)
    if request.out is not None:
        request.out.mkdir(parents=True, exist_ok=True)
        write_text(request.out / f"{RESULTS}.json", json_text(found.data()))
        write_text(request.out / f"{RESULTS}.md", found.markdown())
    return found
