"""The table of a report: a row for every layer with a weight, and what the rest of the model holds."""

from collections.abc import Sequence

from tenfold.report import wording
from tenfold.report.data import Report
from tenfold.report.layers import LayerRow
from tenfold.report.pictures import escape
from tenfold.timing import Race

ARROW, TIMES = "\u2192", "\u00d7"
OPEN_ROWS = 120  # more of them start folded: what follows the table would be many screens below


def layer_table(report: Report) -> str:
    """The table in a box of its own that scrolls sideways; the layers' names stay in view. A long one starts folded."""
    batches = list(dict.fromkeys(race.batch for row in report.layers for race in row.races))
    has_flops = any(row.flops_before is not None for row in report.layers)
    has_plan = any(row.planned_error is not None for row in report.layers)
    planned = "planned error of outputs" if report.metric == "output" else "planned error"
    names = ["layer", "becomes", "#parameters", "#kept"]
    names += ["#FLOP a sample"] * has_flops + ["#error"] + [f"#{planned}"] * has_plan + [f"#speed, batch {b}" for b in batches]
    head = "".join(f'<th scope="col" class="number">{n[1:]}</th>' if n[0] == "#" else f'<th scope="col">{n}</th>' for n in names)
    body = "".join(_row(row, batches, has_flops, has_plan) for row in report.layers)
    foot = _foot(report, has_flops, 1 + has_plan + len(batches))
    table = (
        f'<div class="scroll" tabindex="0"><table class="layers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>"
    )
    if len(report.layers) > OPEN_ROWS:
        table = f"<details><summary>{len(report.layers):,} layers</summary>{table}</details>"
    return f'{table}<p class="quiet">{escape(report.error_note)}</p>'


def _row(row: LayerRow, batches: Sequence[int], has_flops: bool, has_plan: bool) -> str:
    ranks = ", ".join(f"{name}={size}" for name, size in row.ranks.items())
    details = [ranks if row.statement == row.format else f"{row.statement}; {ranks}" if row.statement else "", row.reason]
    becomes = escape(row.format or "dense") + "".join(f"<small>{escape(text)}</small>" for text in details if text)
    shape = escape(TIMES.join(map(str, row.shape)))
    cells = [f'<th scope="row">{escape(row.name)}<small>{escape(row.kind)} {shape}</small></th><td class="wide">{becomes}</td>']
    cells.append(_kept(row.params_before, row.params_after))
    if has_flops:
        cells.append(_flops(row.flops_before, row.flops_after))
    for error in (row.error, row.planned_error)[: 1 + has_plan]:
        cells.append(_number("" if error is None else f"{error:.4f}"))
    cells += [_speed(next((race for race in row.races if race.batch == batch), None), dict(row.predicted).get(batch)) for batch in batches]
    return f"<tr>{''.join(cells)}</tr>"


def _foot(report: Report, has_flops: bool, n_empty: int) -> str:
    """What is not in the rows, and the totals."""
    totals = report.size_before.parameters, report.size_after.parameters
    lines: list[tuple[str, str, tuple[int, int], tuple[int | None, int | None]]] = [
        ("everything else", "biases, normalisation, other parameters", (report.other_before, report.other_after), (None, None)),
        ("whole model", "", totals, (report.flops_before, report.flops_after)),
    ]
    rows = ""
    for name, what, params, flops in lines:
        counts = _flops(*flops) if has_flops else ""
        cells = f'<th scope="row">{name}</th><td class="wide">{what}</td>{_kept(*params)}{counts}'
        rows += f"<tr>{cells}{'<td></td>' * n_empty}</tr>"
    return rows


def _kept(before: int, after: int) -> str:
    change = f"{before:,}" if before == after else f"{before:,} {ARROW} {after:,}"
    return _number(change) + _number(f"{after / before:.1%}" if before else "")


def _flops(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return _number("")
    return _number(wording.short(before) if before == after else f"{wording.short(before)} {ARROW} {wording.short(after)}")


def _number(text: str) -> str:
    return f'<td class="number">{text}</td>'


def _speed(race: Race | None, predicted: float | None) -> str:
    if race is None:
        return "<td></td>"
    look = "number slower" if race.verdict == "slower" else "number"
    times = f"{wording.time_text(race.dense_ms)} {ARROW} {wording.time_text(race.small_ms)}"
    small = times if predicted is None else f"{times}, predicted {wording.ratio_text(predicted)}"
    return f'<td class="{look}">{wording.ratio_text(race.speedup)}<small>{small}</small></td>'
