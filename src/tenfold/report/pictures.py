"""Pictures of a report as inline SVG. Colours come from the page's style sheet by class, so they follow light and dark mode.

Every picture is WIDTH units wide, about the pixels of a phone, and has its content in words as its label; no colour says
anything that a text or a shape does not say too.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.report.layers import Spectrum
from tenfold.report.wording import ratio_text
from tenfold.timing import Race

WIDTH = 360
ELLIPSIS = "\u2026"
LABEL = 140  # width of the column of names at most; longer names stand above their bars
CHARACTER = 7.0  # width of a character, on average


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: `value` in front of `whole` (no bar behind where None), and the words at the end.

    look: a class of the style sheet, "kept", "left" (dense) or "worse". mark: the place of a tick.
    """

    name: str
    value: float
    whole: float | None
    words: str
    look: str = "kept"
    mark: float | None = None


def escape(text: object) -> str:
    """Text that is safe between tags and in attributes."""
    return html.escape(str(text), quote=True)


def bars(label: str, rows: Sequence[Bar], *, line: float | None = None, top: float | None = None) -> str:
    """Horizontal bars on a common scale from 0 to `top`, the largest value where left out; `line` draws a vertical one at a value."""
    frame = _Frame.around([row.name for row in rows], [row.words for row in rows])
    top = top or max((max(row.value, row.whole or 0.0, row.mark or 0.0) for row in rows), default=0.0) or 1.0
    scale = frame.width / top
    parts = []
    for number, row in enumerate(rows):
        y = number * frame.step + frame.above
        parts.append(f"<g><title>{escape(row.name)}: {escape(row.words)}</title>{frame.name(row.name, number * frame.step)}")
        if row.whole is not None:
            parts.append(_rect("whole", frame.left, y, row.whole * scale, 10))
        parts.append(_rect(row.look, frame.left, y, row.value * scale, 10))
        if row.mark is not None:
            parts.append(_line("mark", frame.left + row.mark * scale, y - 2, frame.left + row.mark * scale, y + 12))
        parts.append(_text(row.words, WIDTH, y + 9, "value", "end") + "</g>")
    height = len(rows) * frame.step + 2
    if line is not None:
        parts.append(_line("line", frame.left + line * scale, 0, frame.left + line * scale, height))
    return _svg(label, WIDTH, height, parts)


@dataclass(frozen=True)
class _Frame:
    """Where the rows of a bar chart stand: bars from `left` over `width`, `above` below the top of rows that are `step` high."""

    left: float
    width: float
    above: int
    step: int

    @classmethod
    def around(cls, names: Sequence[str], words: Sequence[str]) -> "_Frame":
        """The frame for names and values of such lengths."""
        value = max(map(len, words), default=0) * CHARACTER + 8
        label = max(map(len, names), default=0) * CHARACTER + 8
        if label > LABEL:
            return cls(0, WIDTH - value, 19, 36)
        return cls(label, WIDTH - value - label, 4, 19)

    def name(self, name: str, y: float) -> str:
        """A row's name: to the left of its bar, or above it, and then cut in the middle where it is longer than the picture."""
        if self.left:
            return _text(name, self.left - 6, y + 13, "name", "end")
        most = int(WIDTH / CHARACTER)
        if len(name) > most:
            name = name[: most // 3] + ELLIPSIS + name[-(most - most // 3 - 1) :]
        return _text(name, 0, y + 14, "name")


def speeds(label: str, runs: Sequence[tuple[str, Race]]) -> str:
    """Factors of speed on a logarithmic scale around 1: to the right is faster, to the left slower; a line spans the quartiles."""
    words = [ratio_text(race.speedup) for _, race in runs]
    frame = _Frame.around([name for name, _ in runs], words)
    reach = max(math.log2(1.5), *(abs(math.log2(race.speedup)) for _, race in runs)) * 1.05
    middle = frame.left + frame.width / 2

    def at(speed: float) -> float:
        return middle + max(-1.0, min(1.0, math.log2(max(speed, 1e-9)) / reach)) * frame.width / 2

    head = 18
    height = head + len(runs) * frame.step + 2
    parts = [_text("slower", frame.left, 12, "axis"), _text("faster", frame.left + frame.width, 12, "axis", "end")]
    parts += [_text("1x", middle, 12, "axis", "middle"), _line("line", middle, head - 2, middle, height)]
    for number, ((name, race), text) in enumerate(zip(runs, words, strict=True)):
        top = head + number * frame.step
        y, end = top + frame.above, at(race.speedup)
        look = {"faster": "kept", "slower": "worse", "same": "left"}[race.verdict]
        title = f"{name}: {text} the speed, half of the runs between {ratio_text(race.speedup_low)} and {ratio_text(race.speedup_high)}"
        parts.append(f"<g><title>{escape(title)}</title>{frame.name(name, top)}")
        parts.append(_rect(look, min(middle, end), y, abs(end - middle), 10))
        parts.append(_line("whisker", at(race.speedup_low), y + 5, at(race.speedup_high), y + 5))
        parts.append(_text(text, WIDTH, y + 9, "value", "end") + "</g>")
    return _svg(label, WIDTH, height, parts)


def spectrum(one: Spectrum) -> str:
    """Singular values of a dense weight and of its compressed version on a logarithmic scale, with the rank kept."""
    width, height, left, bottom, top, floor = 168, 108, 26, 18, 6, 3.0

    def x(number: float) -> float:
        return left + (number - 1) / max(1, one.size - 1) * (width - left - 6)

    def y(value: float) -> float:
        return top + min(floor, -math.log10(max(value, 1e-30))) / floor * (height - top - bottom)

    def path(values: Sequence[float]) -> str:
        points = [(x(n), y(v)) for n, v in zip(one.numbers, values, strict=True) if v > 10**-floor]
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)

    parts = [_line("frame", left, height - bottom, width - 6, height - bottom)]
    for power in range(int(floor) + 1):
        parts.append(_line("grid", left, y(10.0**-power), width - 6, y(10.0**-power)))
        parts.append(_text("1" if power == 0 else f"{10.0**-power:g}".lstrip("0"), left - 3, y(10.0**-power) + 4, "axis", "end"))
    kept = escape(f"rank {one.rank} of {one.size}")
    if one.rank < one.size:
        place = max(left + 16, min(width - 30, x(one.rank)))
        parts.append(_text(str(one.rank), place, height - 5, "rankname", "middle"))
        parts.append(_line("rank", x(one.rank + 0.5), top, x(one.rank + 0.5), height - bottom))
    parts += [f'<polyline class="dense" points="{path(one.dense)}"/>', f'<polyline class="small" points="{path(one.small)}"/>']
    parts += [_text("1", left, height - 5, "axis"), _text(str(one.size), width - 6, height - 5, "axis", "end")]
    label = f"Singular values of {one.name}: {kept} kept, which hold {one.energy:.1%} of the dense weight's squared norm."
    return _svg(label, width, height, parts)


def curve(label: str, points: Sequence[tuple[float, float]], *, is_dotted: bool, words: str, last: float) -> str:
    """A line through points (x, y) with x from 0 to `last`; dots with their values where `is_dotted`; `words` name the x axis."""
    height, left, right, bottom, top = 160, 40, 18, 34, 14
    values = ticks(min(y for _, y in points), max(y for _, y in points))
    low, high = values[0], values[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / last * (WIDTH - left - right), top + (high - y) / (high - low) * (height - top - bottom)

    parts = []
    for value in values:
        y = at(0, value)[1]
        parts += [_line("grid", left, y, WIDTH - right, y), _text(f"{value:.6g}", left - 6, y + 4, "axis", "end")]
    for value in [v for v in ticks(0, last) if v <= last and v == int(v)]:
        parts.append(_text(f"{value:g}", at(value, low)[0], height - 18, "axis", "middle"))
    parts.append(_text(words, WIDTH - right, height - 3, "axis", "end"))
    places = [at(*point) for point in points]
    parts.append(f'<polyline class="small" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    if is_dotted:
        parts += [f'<circle class="kept" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
    if is_dotted and len(points) <= 8:
        for k, ((x, y), (_, value)) in enumerate(zip(places, points, strict=True)):
            is_low = value < max(points[max(0, k - 1)][1], points[min(len(points) - 1, k + 1)][1])
            parts.append(_text(f"{value:.1f}", x, y + (16 if is_low else -7), "value", "middle"))
    return _svg(label, WIDTH, height, parts)


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers, of which the first is at most `low` and the last at least `high`.

    >>> ticks(82.6, 91.7)
    [80.0, 85.0, 90.0, 95.0]
    """
    span = max(high - low, abs(high) * 1e-3, 1e-9)
    step = 10.0 ** math.floor(math.log10(span))
    step = next(step * part for part in (0.2, 0.5, 1.0, 2.0, 5.0) if span / (step * part) <= 4)
    first = math.floor(low / step + 1e-9)
    return [round(k * step, 12) for k in range(first, max(first + 2, math.ceil(high / step - 1e-9)) + 1)]


# -- elements ---------------------------------------------------------------------------------------------------------


def _svg(label: str, width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _text(text: str, x: float, y: float, look: str, anchor: str = "start") -> str:
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rect(look: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height}"/>'


def _line(look: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
