"""The words of a report: numbers as people read them, and the honest sentences about a run."""

from collections.abc import Sequence

from tenfold.evaluate import Evaluation
from tenfold.report.layers import LayerRow
from tenfold.sizes import Size
from tenfold.timing import NOISE, Race

NOISY = 1.5  # ratio of a median to its minimum that is worth a word
CLOSE = 0.02  # FLOP that differ by less than this part are what was predicted
NAMED = 3  # layers that a sentence names; the rest is counted


def short(value: float) -> str:
    """A count with a unit letter.

    >>> short(269722), short(41_240_000), short(950)
    ('270 k', '41.2 M', '950')
    """
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{_digits(value / limit)} {letter}"
    return _digits(value)


def size_text(size_bytes: float) -> str:
    """Bytes in decimal units.

    >>> size_text(1_090_000)
    '1.09 MB'
    """
    return f"{short(size_bytes)}B" if abs(size_bytes) >= 999.5 else f"{size_bytes:.0f} bytes"


def time_text(time_ms: float) -> str:
    """Milliseconds, or microseconds or seconds where these read better.

    >>> time_text(0.0213), time_text(4.2), time_text(2870)
    ('21.3 us', '4.2 ms', '2.87 s')
    """
    if time_ms >= 1000:
        return f"{_digits(time_ms / 1e3)} s"
    return f"{_digits(time_ms * 1e3)} us" if time_ms < 0.1 else f"{_digits(time_ms)} ms"


def ratio_text(ratio: float) -> str:
    """A ratio as a factor.

    >>> ratio_text(2.04), ratio_text(0.873), ratio_text(31)
    ('2.0x', '0.87x', '31x')
    """
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x" if ratio >= 1.095 else f"{ratio:.2f}x"


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def points(difference: float) -> str:
    """A difference of two ratios in percentage points."""
    return f"{abs(difference) * 100:.2f} points"


def fewer(what: str, before: int, after: int) -> str:
    """How many times fewer.

    >>> fewer("FLOP", 100, 50), fewer("FLOP", 50, 100)
    ('2.0x fewer FLOP', 'no fewer FLOP')
    """
    return f"{ratio_text(before / max(1, after))} fewer {what}" if after < before else f"no fewer {what}"


def summary(before: Size, after: Size, flops: tuple[int, int] | None, races: Sequence[Race], difference: float | None) -> str:
    """The run in one sentence, with what got worse behind a "but"."""
    good, bad = [], []
    for what, old, new in (("parameters", before.parameters, after.parameters), ("FLOP", *(flops or (0, 0)))):
        if old:
            (good if new < old else bad).append(fewer(what, old, new))
    for race in races:
        close = " (no clear difference)" if race.verdict == "same" else ""
        (bad if race.verdict == "slower" or race.speedup < 1 - NOISE else good).append(
            f"{ratio_text(race.speedup)} the speed at batch {race.batch}{close}"
        )
    if difference is not None:
        word = "the same accuracy" if difference == 0 else f"{points(difference)} {'more' if difference > 0 else 'less'} top-1 accuracy"
        (bad if difference < 0 else good).append(word)
    text = _joined(good) + (", but " if good and bad else "") + _joined(bad)
    return text[0].upper() + text[1:] + (", times measured on this machine." if races else ".")


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def size_sentence(before: Size, after: Size) -> str:
    """How much is stored."""
    sizes = f"{size_text(before.size_bytes)} -> {size_text(after.size_bytes)} with buffers"
    return f"{before.parameters:,} -> {after.parameters:,} parameters, {sizes}."


def speed_sentences(races: Sequence[Race]) -> list[str]:
    """The times of each batch size."""
    return [
        f"Batch {race.batch}: {time_text(race.dense_ms)} -> {time_text(race.small_ms)} "
        f"(fastest runs {time_text(race.dense_min_ms)} -> {time_text(race.small_min_ms)}), {ratio_text(race.speedup)} the speed."
        for race in races
    ]


def speed_notes(races: Sequence[Race]) -> list[str]:
    """Why it is slower where it is, and whether the times can be trusted."""
    lines = []
    if slower := [f"{race.batch}" for race in races if race.verdict == "slower"]:
        lines.append(
            f"It got slower at batch {' and '.join(slower)}: fewer FLOP save no time where a layer has little arithmetic, or where several "
            "small operations replace one large one."
        )
    noise = max((race.noise for race in races), default=1.0)
    if noise > NOISY:
        fastest = " and ".join(f"{ratio_text(race.dense_min_ms / race.small_min_ms)} the speed at batch {race.batch}" for race in races)
        lines.append(
            f"The times are noisy, with medians up to {noise:.1f}x their minima: the machine was busy. "
            f"The fastest runs alone give {fastest}; measure again on a quiet machine."
        )
    return lines


def margin(dense: Evaluation, small: Evaluation) -> float | None:
    """Half the width of a 95 % interval of the difference in accuracy, from above: as if no changed answer had been wrong twice."""
    if small.agreement is None or dense.accuracy is None or small.accuracy is None:
        return None
    difference = small.accuracy - dense.accuracy
    return 1.96 * (max(0.0, 1 - small.agreement - difference**2) / small.n) ** 0.5


def quality_sentences(dense: Evaluation | None, small: Evaluation | None) -> list[str]:
    """What it costs."""
    if dense is None or small is None:
        return ["Accuracy was not measured: no labelled data were given."]
    if dense.accuracy is None or small.accuracy is None:
        name = "Loss" if small.has_own_loss else "Mean squared error"
        return [f"{name} {dense.loss:.4g} -> {small.loss:.4g} on {small.n:,} samples."]
    difference = small.accuracy - dense.accuracy
    word = "higher" if difference > 0 else "lower"
    change = "unchanged" if difference == 0 else f"{points(difference)} {word}"
    limits = margin(dense, small)
    within = "" if limits is None else f" (+- {limits * 100:.2f} at 95 % confidence)"
    lines = [f"Top-1 accuracy {dense.accuracy:.2%} -> {small.accuracy:.2%} on {small.n:,} predictions: {change}{within}."]
    if small.agreement is not None:
        lines.append(f"{small.agreement:.2%} of its answers are the dense model's, right or wrong.")
    return lines


def layer_notes(rows: Sequence[LayerRow]) -> list[str]:
    """How many layers were compressed, and which of them got slower."""
    compressed = [row for row in rows if row.format is not None]
    dense = len(rows) - len(compressed)
    rest = "" if not dense else f"; {dense} {'stays' if dense == 1 else 'stay'} dense, with a reason in the table"
    lines = [f"{len(compressed)} of {len(rows)} layers with a weight are compressed{rest}."]
    for batch in dict.fromkeys(race.batch for row in rows for race in row.races):
        runs = [(race, row.name) for row in compressed for race in row.races if race.batch == batch]
        slow = sorted(((race, name) for race, name in runs if race.verdict == "slower"), key=lambda pair: pair[0].speedup)
        if slow:
            names = ", ".join(f"{name} ({ratio_text(race.speedup)})" for race, name in slow[:NAMED])
            more = f" and {len(slow) - NAMED} more" if len(slow) > NAMED else ""
            lines.append(
                f"At batch {batch}, {len(slow)} of {len(runs)} compressed layers on their own are slower than dense: {names}{more}."
            )
    if any(race.verdict == "slower" for row in compressed for race in row.races):
        lines.append(
            "Slower layers are kept for their FLOP or parameters; a plan that measures times leaves out those slower at its inputs' batch."
        )
    return lines


def plan_note(planned: tuple[int, int] | None, counted: tuple[int, int] | None) -> list[str]:
    """Whether the FLOP (dense, compressed) are what the plan said.

    It counts at one batch size, and at another a layer may be contracted in another order. Where the two do not even agree on the dense
    model, the inputs were others, and there is nothing to compare.
    """
    if not planned or not counted or not all((*planned, *counted)) or abs(counted[0] / planned[0] - 1) > CLOSE:
        return []
    if abs(counted[1] / planned[1] - 1) <= CLOSE:
        return []
    return [f"The plan predicted {short(planned[1])} FLOP a sample; {short(counted[1])} were counted."]
