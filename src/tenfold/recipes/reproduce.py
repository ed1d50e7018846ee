"""Reproduce: the numbers of a paper: its parameter counts beside ours, then accuracies on the data that are there."""

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.files import write_text
from tenfold.progress import Progress, silent
from tenfold.recipes import kcp_counts, recipe
from tenfold.recipes.kcp_counts import CountRow
from tenfold.recipes.options import DENSE, Options, look
from tenfold.recipes.results import Result, markdown_table

PAPERS = ("kcp",)
KCP_RECIPES = ("clips-lstm", "speech-lstm", "ucf11-lstm", "ucf50-lstm", "ytc-lstm")
RESULTS = "results"  # name of the files, without ending
QUICK_EPOCHS = 2
QUICK_TURNS = 3
COUNT_NOTE = (
    "ratio: dense input-to-hidden values of all gates / stored ones, the ratio of the papers; model: with the recurrent map, one bias for "
    "each gate unit and the head. match: the printed ratio, rounded or cut off. Ratios of which we have no source are not quoted. "
    "Kronecker CP's definition here is a reconstruction from the paper's abstract and from the decomposition it derives from."
)


@dataclass(frozen=True)
class Reproduction:
    """The numbers of a paper as found here.

    results: of the recipes whose data are there.
    missing: for each other recipe, the data that it looks for.
    """

    paper: str
    counts: tuple[CountRow, ...]
    results: tuple[Result, ...]
    missing: tuple[tuple[str, str], ...]

    def data(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "paper": self.paper,
            "counts": [_count_data(row) for row in self.counts],
            "results": [{**result.data(), "findings": list(findings(result))} for result in self.results],
            "missing": dict(self.missing),
        }

    def markdown(self) -> str:
        """All tables as one Markdown file."""
        parts = ["# Kronecker CP (arXiv 2008.09342)", "", "## Parameter counts", ""]
        parts += [markdown_table(kcp_counts.COLUMNS, [row.cells() for row in self.counts]), "", COUNT_NOTE, ""]
        for result in self.results:
            parts += [result.markdown(), *(f"- {one}" for one in findings(result)), ""]
        parts += self.not_trained()
        return "\n".join(parts).rstrip() + "\n"

    def not_trained(self) -> list[str]:
        """A line for each recipe without data."""
        return [f"{name}: not trained, its data are not there ({wanted})." for name, wanted in self.missing]


def reproduce(
    paper: str = "kcp",
    *,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    quick: bool = False,
    progress: Progress | None = None,
) -> Reproduction:
    """The published counts beside ours, and the recipes of the paper on the data that are there.

    Args:
        data: the folder that holds the data sets; that of $TENFOLD_DATA where left out. Without either nothing is trained.
        out: a folder for the results, as JSON and as Markdown, and for the finished runs, which the next call does not repeat.
        quick: one seed, one fold, two epochs and few timed steps: that everything works, not a result.

    Raises:
        ValueError: the paper is not known, or the folder of data does not exist.
    """
    if paper not in PAPERS:
        raise ValueError(f"there is nothing to reproduce for {paper!r}; one of {', '.join(PAPERS)} is needed: choose one of them")
    folder = Path(data) if data is not None else Path(os.environ["TENFOLD_DATA"]) if os.environ.get("TENFOLD_DATA") else None
    if folder is not None and not folder.is_dir():
        raise ValueError(f"the folder of data {folder} does not exist; a folder that holds data sets is needed: check the path")
    results, missing = [], []
    options = Options(seeds=tuple(seeds), out=None if out is None else Path(out), progress=progress or silent)
    if quick:
        options = dataclasses.replace(options, seeds=options.seeds[:1], folds=1, epochs=QUICK_EPOCHS, turns=QUICK_TURNS)
    for name in KCP_RECIPES:
        names = recipe(name).DATA
        place = None if folder is None else look(folder, names)
        if place is None:
            missing.append((name, " or ".join(names)))
        else:
            results.append(recipe(name).run(dataclasses.replace(options, data=place)))
    found = Reproduction(paper, kcp_counts.ROWS, tuple(results), tuple(missing))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / f"{RESULTS}.json", json.dumps(found.data(), indent=2) + "\n")
        write_text(options.out / f"{RESULTS}.md", found.markdown())
    return found


def findings(result: Result) -> tuple[str, ...]:
    """What the table says about the claims: the best format against the dense twin, KCP against the others, in score and in time."""
    sign = 1 if result.metric == "accuracy" else -1
    rows = {row.format: row for row in result.rows}
    small = [row for row in result.rows if row.format != DENSE]
    said = []
    if DENSE in rows and small:
        best = max(small, key=lambda row: sign * row.score)
        gap = best.score - rows[DENSE].score
        text = f"{100 * gap:+.1f} points" if sign == 1 else f"{gap:+.3f} bits"
        said.append(f"best factorised: {_kind(best.format)}, {text} from the dense twin, at {best.map_ratio:,.0f}x on the input map")
    kcp = [row for row in small if _kind(row.format) == "kcp"]
    others = [row for row in small if _kind(row.format) != "kcp"]
    if kcp and others:
        median = statistics.median(row.score for row in others)
        mine = max(row.score * sign for row in kcp)
        said.append(f"KCP is {'not worse' if mine >= sign * median else 'worse'} than the median of the other formats")
        fastest = min(small, key=lambda row: row.cost.seconds)
        said.append(f"lowest time per step among the factorised: {_kind(fastest.format)}, {fastest.cost.seconds * 1e3:,.1f} ms")
    return tuple(said)


def _kind(format: str) -> str:
    return format.partition(":")[0]


def _count_data(row: CountRow) -> dict[str, Any]:
    return {
        **dataclasses.asdict(row),
        "statement": row.network.statement,
        "parameters": row.parameters,
        "ratio": row.map_ratio,
        "recurrent_parameters": row.recurrent,
        "model_parameters": row.model,
        "model_ratio": row.model_ratio,
        "status": row.status,
    }
