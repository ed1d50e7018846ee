"""The picture of accuracy against FLOP, one SVG file for each network: both metrics, before and after fine-tuning.

Colours follow light and dark mode; every method also has a mark of its own, so no colour is needed to read it.
"""

import statistics
from collections.abc import Callable, Sequence

from tenfold.recipes.papers.stable_cpd.accuracy import DENSE, Cell
from tenfold.report.pictures import escape, ticks

COLOURS = {
    "light": ("#c64f00", "#0072b2", "#009e73", "#a64d79", "#6b7280", "#16191d"),
    "dark": ("#ff9a4d", "#56b4e9", "#4fd1a5", "#e08fb8", "#a7afb8", "#e8eaed"),
}
MARKS = (
    "M-4,-4L4,4M-4,4L4,-4",
    "M-4,0A4,4 0 1 0 4,0A4,4 0 1 0 -4,0Z",
    "M-4,-4H4V4H-4Z",
    "M0,-5L5,4H-5Z",
    "M-5,0H5M0,-5V5",
    "M0,-5L5,0L0,5L-5,0Z",
)
PANEL, HEIGHT, LEFT, TOP, GAP = 330, 210, 46, 64, 34
STYLE = """text{fill:#16191d;font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-variant-numeric:tabular-nums}
.t{font-size:15px;font-weight:600}.h{font-weight:600}.q{fill:#555d66;font-size:11px}
.g{stroke:#d9dde2}.d{stroke:#16191d;stroke-dasharray:3 3}
.page{fill:#fff}path,polyline{fill:none;stroke-width:2;stroke-linejoin:round}"""
DARK = ".page{fill:#121417}text{fill:#e8eaed}.q{fill:#a7afb8}.g{stroke:#343a41}.d{stroke:#e8eaed}"


def picture(cells: Sequence[Cell]) -> str:
    """The picture of one network's cells, the dense one among them, as the text of an SVG file."""
    dense = next(cell for cell in cells if cell.method == DENSE)
    small = [cell for cell in cells if cell.before is not None and cell.flops is not None and cell.method != DENSE]
    methods = list(dict.fromkeys(cell.method for cell in small))
    metrics = list(dict.fromkeys(cell.metric for cell in small))
    scores = [100 * value for cell in (*small, dense) for value in (cell.before, _tuned(cell)) if value is not None]
    marks = ticks(min(scores), max(scores))
    width, height = 2 * (PANEL + LEFT) + 24, TOP + len(metrics) * (HEIGHT + GAP) + 30
    parts = [
        f'<rect class="page" width="{width}" height="{height}"/>',
        _text(f"{dense.network}: top-1 accuracy against FLOP", LEFT, 24, "t"),
    ]
    parts.append(_text("percent of images; across: what is kept of the dense network's FLOP; dashed: the dense network", LEFT, 42, "q"))
    for row, metric in enumerate(metrics):
        for column, (title, score) in enumerate((("without fine-tuning", lambda cell: cell.before), ("after fine-tuning", _tuned))):
            x, y = LEFT + column * (PANEL + LEFT), TOP + row * (HEIGHT + GAP)
            mine = [_line([c for c in small if (c.method, c.metric) == (method, metric)], score) for method in methods]
            level = score(dense)
            parts.append(f'<g transform="translate({x} {y})">')
            parts.append(_panel(f"{metric} metric, {title}", mine, None if level is None else 100 * level, marks) + "</g>")
    parts += _legend(methods, height - 14)
    light, dark = ("".join(f".m{k}{{stroke:{colour}}}" for k, colour in enumerate(COLOURS[mode])) for mode in ("light", "dark"))
    style = f"<style>{STYLE}{light}@media(prefers-color-scheme:dark){{{DARK}{dark}}}</style>"
    label = escape(f"Top-1 accuracy against FLOP of {dense.network}, by method")
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">'
    return f"{head}{style}{''.join(parts)}</svg>\n"


def _line(cells: Sequence[Cell], score: Callable[[Cell], float | None]) -> list[tuple[float, float]]:
    """The points (FLOP, percent) of the cells that have both."""
    pairs = [(cell.flops, score(cell)) for cell in cells]
    return [(flops, 100 * value) for flops, value in pairs if flops is not None and value is not None]


def _tuned(cell: Cell) -> float | None:
    return statistics.fmean(cell.after) if cell.after else None


def _panel(title: str, lines: Sequence[Sequence[tuple[float, float]]], level: float | None, marks: Sequence[float]) -> str:
    """Axes, the dense level and one line with marks for each method, 0..1 of the FLOP across."""
    low, high, bottom = marks[0], marks[-1], HEIGHT - 20

    def at(x: float, y: float) -> tuple[float, float]:
        return x * PANEL, 14 + (high - y) / (high - low) * (bottom - 14)

    parts = [_text(title, 0, 4, "h")]
    for value in marks:
        y = at(0, value)[1]
        parts += [f'<line class="g" x1="0" x2="{PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>', _text(f"{value:g}", -6, y + 4, "q", "end")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_text(f"{share:g}x", share * PANEL, bottom + 16, "q", "middle"))
    if level is not None:
        y = at(0, level)[1]
        parts.append(f'<line class="d" x1="0" x2="{PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for number, line in enumerate(lines):
        places = [at(*point) for point in sorted(line)]
        parts.append(f'<polyline class="m{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        parts += [f'<path class="m{number}" transform="translate({x:.1f} {y:.1f})" d="{MARKS[number]}"/>' for x, y in places]
    return "".join(parts)


def _legend(methods: Sequence[str], y: float) -> list[str]:
    parts, x = [], float(LEFT)
    for number, method in enumerate(methods):
        parts.append(f'<path class="m{number}" transform="translate({x + 6:.0f} {y - 4:.0f})" d="{MARKS[number]}"/>')
        parts.append(_text(method, x + 16, y, ""))
        x += 34 + 7.5 * len(method)
    return parts


def _text(text: str, x: float, y: float, look: str, anchor: str = "start") -> str:
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
