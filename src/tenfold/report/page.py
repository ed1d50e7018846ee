"""The page of a report: HTML with its style and pictures inside, no scripts, nothing loaded from anywhere."""

from collections.abc import Iterable

from tenfold.report import wording
from tenfold.report.data import Report
from tenfold.report.figures import layer_figures, overview_figures, spectrum_figures
from tenfold.report.pictures import escape
from tenfold.report.style import STYLE
from tenfold.report.table import layer_table

ARROW, MINUS, PLUS_MINUS = "\u2192", "\u2212", "\u00b1"


def page(report: Report) -> str:
    """The whole page."""
    where = ", ".join(report.environment.get(key, "") for key in ("date", "device", "threads", "dtype"))
    parts = [
        f'<header><h1>{escape(report.model)}</h1><p class="quiet">compressed by tenfold; {escape(where)}</p></header>',
        f'<p class="lead">{escape(report.summary)}</p>',
        _tiles(report),
        f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in report.notes)}</ul>',
        _section("What is left", overview_figures(report)),
        _section("Layer by layer", layer_figures(report)),
        _section("Every layer", layer_table(report)),
        _section("Spectra", spectrum_figures(report)),
        _section("The plan", _plan(report)),
        _section("How it was made", _origin(report)),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(report.title)}</title><style>{STYLE}</style>"
    )
    body = "\n".join(part for part in parts if part)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _tiles(report: Report) -> str:
    """The answer to the one question: how small, how fast, what does it cost."""
    before, after = report.size_before, report.size_after
    size = [
        f"<b>{wording.ratio_text(before.parameters / max(1, after.parameters))}</b> smaller",
        f"<span>{before.parameters:,} {ARROW} {after.parameters:,} parameters</span>",
        f"<span>{wording.size_text(before.size_bytes)} {ARROW} {wording.size_text(after.size_bytes)} in memory, with buffers</span>",
    ]
    return f'<div class="tiles">{_tile("How small", size)}{_tile("How fast", _fast(report))}{_tile("What it costs", _cost(report))}</div>'


def _tile(title: str, lines: Iterable[str]) -> str:
    return f'<div class="tile"><h2>{title}</h2>{"".join(lines)}</div>'


def _fast(report: Report) -> list[str]:
    lines = []
    if report.flops_before and report.flops_after:
        change = f"{wording.short(report.flops_before)} {ARROW} {wording.short(report.flops_after)}"
        lines.append(f"<span>{wording.fewer('FLOP', report.flops_before, report.flops_after)}: {change} a sample</span>")
    if not report.races:
        return ["<b>not measured</b>", *lines]
    words = {"slower": "slower", "faster": "faster", "same": "no clear difference"}
    speeds = []
    for race in report.races:
        look = ' class="warn"' if race.verdict == "slower" else ""
        speeds.append(f"<p><b{look}>{wording.ratio_text(race.speedup)}</b> the speed<span>batch {race.batch}: {words[race.verdict]}</span>")
        speeds.append(f"<span>{wording.time_text(race.dense_ms)} {ARROW} {wording.time_text(race.small_ms)}</span></p>")
    return [f'<div class="two">{"".join(speeds)}</div>', *lines]


def _cost(report: Report) -> list[str]:
    dense, small = report.dense, report.small
    if dense is None or small is None:
        return ["<b>not measured</b>", "<span>no labelled data were given</span>"]
    if dense.accuracy is None or small.accuracy is None:
        name = "loss" if small.has_own_loss else "mean squared error"
        return [f"<b>{small.loss:.4g}</b>", f"<span>{name}, {dense.loss:.4g} before</span>"]
    difference, limits = small.accuracy - dense.accuracy, wording.margin(dense, small)
    width = "" if limits is None else f", {PLUS_MINUS} {limits * 100:.2f} points"
    lines = [
        f"<b>{'+' if difference > 0 else MINUS}{wording.points(difference)}</b>" if difference else "<b>nothing</b>",
        f"<span>top-1 accuracy {dense.accuracy:.2%} {ARROW} {small.accuracy:.2%}</span>",
        f"<span>on {small.n:,} predictions{width}</span>",
    ]
    return [*lines, *([f"<span>{small.agreement:.2%} of the answers unchanged</span>"] if small.agreement is not None else [])]


def _plan(report: Report) -> str:
    if report.plan is None:
        return ""
    return f'<details><summary>plan.toml</summary><pre tabindex="0">{escape(report.plan)}</pre></details>'


def _origin(report: Report) -> str:
    facts = {**report.environment, "seed": str(report.seed)}
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    command = f'<h3>Command</h3><pre class="command">{escape(report.command)}</pre>' if report.command else ""
    return f'{command}<dl>{entries}</dl><p class="quiet">{escape(_method(report))}</p>'


def _method(report: Report) -> str:
    """How the numbers were taken."""
    parts = ["Relative errors and spectra are computed in float64."]
    if report.flops_batch:
        parts.append(
            "FLOP are those that torch counts in matrix products, convolutions and attention, 2 for a multiply-add, "
            f"for one sample of a batch of {report.flops_batch}."
        )
    if report.races:
        runs = " and ".join(f"{race.n_runs} at batch {race.batch}" for race in report.races)
        parts.append(
            f"Times are medians of runs of both models in turns ({runs}), in eval mode without gradients, after warming up; "
            "a ratio belongs to this machine, thread count and dtype."
        )
    if any(row.predicted for row in report.layers):
        parts.append("Predicted speed-ups of layers are those of the machine model that chooses contractions: one core, no other load.")
    return " ".join(parts)
