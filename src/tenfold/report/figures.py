"""The figures of a report: which numbers go into which picture, with a title, a key and the words for those who cannot see it."""

from collections.abc import Iterable, Sequence

from tenfold.report import wording
from tenfold.report.data import Report
from tenfold.report.layers import LayerRow
from tenfold.report.pictures import Bar, bars, curve, escape, spectrum, speeds

ARROW, MINUS = "\u2192", "\u2212"
MOST_BARS = 80  # layers in a picture; the table has them all
MOST_SPECTRA = 120
OPEN_SPECTRA = 24  # more of them start folded
TOP = 2.0  # of the picture of totals: what takes longer than twice the dense time is cut off, with its number beside it


def overview_figures(report: Report) -> str:
    """Totals, accuracy and fine-tuning."""
    cards = [_totals(report)]
    if report.small is not None and report.dense is not None and report.small.accuracy is not None and report.dense.accuracy is not None:
        steps = [("dense", report.dense, "left"), ("before fine-tuning", report.uncorrected, "whole"), ("compressed", report.small, "kept")]
        values = [(name, one.accuracy, look) for name, one, look in steps if one is not None and one.accuracy is not None]
        rows = [Bar(name, accuracy, None, f"{accuracy:.2%}", look) for name, accuracy, look in values]
        picture = bars(_label("Top-1 accuracy", rows), rows, top=1.0, line=report.dense.accuracy)
        cards.append(_figure("Top-1 accuracy", picture, "from 0 to 100 %; the dashed line is the dense model"))
    return _cards(cards + _curves(report))


def _totals(report: Report) -> str:
    before, after = report.size_before, report.size_after
    pairs = [("parameters", before.parameters, after.parameters, wording.short(after.parameters))]
    pairs.append(("bytes", before.size_bytes, after.size_bytes, wording.size_text(after.size_bytes)))
    if report.flops_before and report.flops_after is not None:
        pairs.append(("FLOP a sample", report.flops_before, report.flops_after, wording.short(report.flops_after)))
    pairs += [(f"time, batch {race.batch}", race.dense_ms, race.small_ms, wording.time_text(race.small_ms)) for race in report.races]
    rows = []
    for name, dense, small, words in pairs:
        part = small / dense if dense else 1.0
        rows.append(Bar(name, min(part, TOP), 1.0, f"{part:.0%}, {words}", "worse" if part > 1.03 else "kept"))
    key = _key(
        ("kept", "compressed"), ("whole", "dense"), *([("worse", "more than dense")] if any(r.look == "worse" for r in rows) else [])
    )
    picture = bars(_label("What is left, the dense model being 100 %", rows), rows, line=1.0)
    return _figure("Dense = 100 %", picture, key + ("; bars end at 200 %" if any(row.value == TOP for row in rows) else ""))


def _curves(report: Report) -> list[str]:
    history = report.history
    if history is None:
        return []
    cards = []
    if len(history.losses) > 1:
        points = list(zip(history.epochs, history.losses, strict=True))
        label = f"Training loss from {points[0][1]:.3g} to {points[-1][1]:.3g} over {history.n_epochs} epochs."
        picture = curve(label, points, is_dotted=False, words="epoch", last=history.n_epochs)
        cards.append(_figure("Fine-tuning: training loss", picture, f"{history.n_steps:,} steps, means over neighbours"))
    points = [(k + 1.0, accuracy * 100) for k, accuracy in enumerate(history.accuracies) if accuracy is not None]
    if points:
        label = "Validation accuracy after each epoch: " + ", ".join(f"{accuracy:.2f} %" for _, accuracy in points)
        picture = curve(label, points, is_dotted=True, words="epoch", last=history.n_epochs)
        cards.append(_figure("Fine-tuning: validation accuracy in %", picture, "after each epoch, on the validation data"))
    return cards


def layer_figures(report: Report) -> str:
    """Parameters, FLOP, error and speed, a bar for each layer."""
    largest = set(sorted(range(len(report.layers)), key=lambda k: -report.layers[k].params_before)[:MOST_BARS])
    rows = [row for k, row in enumerate(report.layers) if k in largest]
    note = (
        f"<p>The {MOST_BARS} largest of {len(report.layers)} layers; the table below has them all.</p>"
        if len(rows) < len(report.layers)
        else ""
    )
    key = _key(("kept", "kept"), ("whole", "removed"), ("left", "left dense"))
    cards = [_figure("Parameters of the weight", _amounts("Parameters", [(row, row.params_before, row.params_after) for row in rows]), key)]
    flops = [(row, row.flops_before, row.flops_after) for row in rows if row.flops_before is not None and row.flops_after is not None]
    if flops:
        cards.append(_figure("FLOP a sample", _amounts("FLOP", flops), key))
    cards += _errors(report, rows)
    for batch in dict.fromkeys(race.batch for row in rows for race in row.races):
        runs = [(row.name, race) for row in rows for race in row.races if race.batch == batch]
        label = f"Speed of each compressed layer at batch {batch}. " + _list(
            (name, wording.ratio_text(race.speedup)) for name, race in runs
        )
        caption = _key(("kept", "faster"), ("worse", "slower"), ("left", "no clear difference"))
        cards.append(
            _figure(f"Speed at batch {batch}, dense = 1x", speeds(label, runs), f"{caption}; each layer alone; line: half of the runs")
        )
    return note + _cards(cards, "cards uneven")


def _errors(report: Report, rows: Sequence[LayerRow]) -> list[str]:
    has_marks = report.metric == "weight"
    values = [
        Bar(row.name, row.error, None, f"{row.error:.3f}", "kept" if row.format else "left", row.planned_error if has_marks else None)
        for row in rows
        if row.error is not None and (row.format or row.error)
    ]
    if not values:
        return []
    caption = f"||W {MINUS} dense|| / ||W||" + (" after fine-tuning, which moves weights on purpose" if report.history else "")
    caption += "; tick: as planned" if any(one.mark is not None for one in values) else ""
    return [_figure("Error of the weight", bars(_label("Relative error of the weight", values), values), caption)]


def _amounts(what: str, rows: Sequence[tuple[LayerRow, int, int]]) -> str:
    values = []
    for row, before, after in rows:
        words = f"{wording.short(before)} {ARROW} {wording.short(after)}" if row.format else wording.short(before)
        values.append(Bar(row.name, after, before, words, ("worse" if after > before else "kept") if row.format else "left"))
    return bars(_label(f"{what} of each layer", values), values)


def spectrum_figures(report: Report) -> str:
    """A small picture for each compressed layer."""
    if not report.spectra:
        return ""
    shown = sorted(range(len(report.spectra)), key=lambda k: -report.spectra[k].size)[:MOST_SPECTRA]
    minis = "".join(
        f"<figure>{spectrum(one)}<figcaption><b>{escape(one.name)}</b><br>rank {one.rank} of {one.size}, "
        f"{one.energy:.1%} of the energy</figcaption></figure>"
        for one in (report.spectra[k] for k in sorted(shown))
    )
    text = (
        '<p class="quiet">Singular values of each compressed layer\'s weight as a matrix, output features by all else; the largest is 1: '
        f"{_key(('left', 'dense'), ('kept', 'compressed'))}. The dashed line is the rank that is left; the energy is the part of the dense "
        "weight's squared norm in its first so many directions. A format with more structure than a matrix can be small at full rank.</p>"
    )
    count = (
        f"{len(report.spectra)} layers"
        if len(shown) == len(report.spectra)
        else f"the {MOST_SPECTRA} largest of {len(report.spectra)} layers"
    )
    is_open = " open" if len(report.spectra) <= OPEN_SPECTRA else ""
    return f'{text}<details{is_open}><summary>{count}</summary><div class="minis">{minis}</div></details>'


# -- frames -----------------------------------------------------------------------------------------------------------


def _cards(cards: Sequence[str], look: str = "cards") -> str:
    return f'<div class="{look}">{"".join(cards)}</div>'


def _figure(title: str, picture: str, caption: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{picture}<figcaption>{caption}</figcaption></figure>"


def _key(*entries: tuple[str, str]) -> str:
    return " &nbsp; ".join(f'<i class="key {look}"></i>{escape(words)}' for look, words in entries)


def _label(what: str, rows: Sequence[Bar]) -> str:
    return f"{what}. {_list((row.name, row.words) for row in rows)}"


def _list(entries: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {words}" for name, words in entries)
