"""Kronecker CP (arXiv 2008.09342): its parameter counts beside ours, then accuracies on the data that are there.

Command: `tenfold reproduce kcp --data DATA --out OUT`.
"""

import dataclasses
import statistics
from dataclasses import dataclass
from typing import Any

from tenfold.recipes import recipe, run
from tenfold.recipes.options import DENSE, Options, look
from tenfold.recipes.papers import kcp_counts
from tenfold.recipes.papers.kcp_counts import CountRow
from tenfold.recipes.reproduction import Request, Table
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.shown import markdown_table

RECIPES = ("clips-lstm", "speech-lstm", "ucf11-lstm", "ucf50-lstm", "ytc-lstm")
QUICK_EPOCHS = 2
QUICK_TURNS = 3
COUNT_NOTE = (
    "ratio: dense input-to-hidden values of all gates / stored ones, the ratio of the papers; model: with the recurrent map, one bias for "
    "each gate unit and the head. match: the printed ratio, rounded or cut off. Ratios of which we have no source are not quoted. "
    "Kronecker CP's definition here is a reconstruction from the paper's abstract and from the decomposition it derives from."
)
QUICK_NOTE = "--quick: these accuracies say that everything works, nothing more"


@dataclass(frozen=True)
class KcpReproduction:
    """The numbers of the paper as found here.

    results: of the recipes whose data are there.
    missing: for each other recipe, the data that it looks for.
    """

    counts: tuple[CountRow, ...]
    results: tuple[Result, ...]
    missing: tuple[tuple[str, str], ...]
    is_quick: bool = False

    def data(self) -> dict[str, Any]:
        return {
            "paper": "kcp",
            "counts": [_count_data(row) for row in self.counts],
            "results": [{**result.data(), "findings": list(findings(result))} for result in self.results],
            "missing": dict(self.missing),
        }

    def markdown(self) -> str:
        parts = ["# Kronecker CP (arXiv 2008.09342)", "", "## Parameter counts", ""]
        parts += [markdown_table(kcp_counts.COLUMNS, [row.cells() for row in self.counts]), "", COUNT_NOTE, ""]
        for result in self.results:
            parts += [result.markdown(), *(f"- {one}" for one in findings(result)), ""]
        parts += self.not_trained()
        return "\n".join(parts).rstrip() + "\n"

    def tables(self) -> list[Table]:
        rows = tuple(tuple(row.cells()[:-1]) for row in self.counts)
        counts = Table("Parameter counts", tuple(kcp_counts.COLUMNS[:-1]), rows, (COUNT_NOTE,), words=("format", "modes", ""))
        trained = [Table(result.recipe, result.columns, result.cells(), (*result.notes(), *findings(result))) for result in self.results]
        return [counts, *trained]

    def notes(self) -> list[str]:
        return [*self.not_trained(), *([QUICK_NOTE] if self.is_quick and self.results else [])]

    def not_trained(self) -> list[str]:
        """A line for each recipe without data."""
        return [f"{name}: not trained, its data are not there ({wanted})." for name, wanted in self.missing]


def reproduce(request: Request) -> KcpReproduction:
    """The published counts beside ours, and the recipes of the paper on the data that are there; quick: one seed, one fold, two epochs.

    Raises:
        ValueError: a recipe is asked for that is none of the paper's, or budgets are given.
    """
    if request.budgets:
        raise ValueError("kcp got budgets; it trains formats of given ranks and needs none: leave --budgets out")
    results, missing = [], []
    options = Options(seeds=request.seeds, out=request.out, progress=request.progress)
    if request.is_quick:
        options = dataclasses.replace(options, seeds=options.seeds[:1], folds=1, epochs=QUICK_EPOCHS, turns=QUICK_TURNS)
    for name in request.chosen(RECIPES):
        names = recipe(name).DATA
        place = None if request.data is None else look(request.data, names)
        if place is None:
            missing.append((name, " or ".join(names)))
        else:
            results.append(run(name, dataclasses.replace(options, data=place)))
    return KcpReproduction(kcp_counts.ROWS, tuple(results), tuple(missing), request.is_quick)


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
