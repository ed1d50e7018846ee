"""Format table: what each format is and, for the shape of a weight, what it costs; so that a person can choose.

Names, statements and advice are those of the formats' own docstrings; a format is in the table by being a file of tenfold.formats.
"""

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.contract import Positions
from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.formats import all_formats
from tenfold.layers.base import Workload
from tenfold.network import Network
from tenfold.progress import Progress, silent

NOMINAL_POSITIONS = 196  # 14 x 14: the multiply-adds of a convolution are counted there and given for one position


@dataclass(frozen=True)
class FormatRow:
    """One format: its words, and its numbers for a shape.

    name: the class in tenfold.
    paper_name: what the literature calls it.
    statement: of indices; that of the docstring where no shape is given.
    formula: the parameters in words; empty where the docstring has none.
    prefer: when it is a good choice.
    ranks: size of every rank index by name, in the order of the statement.
    parameters, ratio: of the weight, and how many times fewer than dense.
    rank_bound: the largest rank that the matrix of outputs by inputs can have, whatever the values.
    full_rank: what it is without a bound.
    multiply_adds: of the chosen plan in eval, for one sample (of a convolution: one position); products of factors alone are not in it.
    dense_multiply_adds: the same of the dense layer.
    is_rebuilt: the plan rebuilds the dense weight, since nothing else is predicted to be faster.
    reason: why the format cannot take the shape; empty where it can, and then the numbers are there.
    """

    name: str
    paper_name: str
    statement: str
    formula: str
    prefer: str
    ranks: tuple[tuple[str, int], ...] = ()
    parameters: int | None = None
    ratio: float | None = None
    rank_bound: int | None = None
    full_rank: int | None = None
    multiply_adds: int | None = None
    dense_multiply_adds: int | None = None
    is_rebuilt: bool | None = None
    reason: str = ""


def format_table(
    shape: Sequence[int] | None = None,
    *,
    in_modes: Sequence[int] | None = None,
    out_modes: Sequence[int] | None = None,
    rank: int | None = None,
    params: int | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> tuple[FormatRow, ...]:
    """One row for each format, sorted by name; without a shape rows have words only.

    Args:
        shape: of a weight: (out, in), of a convolution (out, in, *kernel).
        in_modes, out_modes: sizes that the features are split into; chosen by the fold where left out.
        rank: of every rank index, or less where less already represents everything; 4 where neither it nor `params` is given.
        params: instead of a rank: the largest ranks within so many parameters.
        batch: samples that plans are made for.

    Raises:
        ValueError: the shape, the rank, the number of parameters or the batch is out of range.

    >>> rows = {row.name: row for row in format_table((1024, 57600), in_modes=(8, 10, 10, 9, 8), out_modes=(16, 4, 2, 4, 2), rank=1)}
    >>> rows["KCP"].parameters, rows["KCP"].rank_bound, rows["TT"].rank_bound
    (240, 512, 1)
    """
    _check(shape, rank, params, batch, in_modes, out_modes)
    rows = []
    kinds = all_formats().values()
    for number, kind in enumerate(kinds, 1):
        (progress or silent)("formats", number, len(kinds))
        words = _words(kind)
        if shape is None:
            rows.append(words)
            continue
        try:
            rows.append(_numbers(words, kind, tuple(shape), in_modes, out_modes, rank, params, batch))
        except ValueError as error:
            rows.append(_with(words, reason=str(error)))
    return tuple(sorted(rows, key=lambda row: row.name.lower()))


def _check(
    shape: Sequence[int] | None,
    rank: int | None,
    params: int | None,
    batch: int,
    in_modes: Sequence[int] | None,
    out_modes: Sequence[int] | None,
) -> None:
    if shape is not None and (len(shape) < 2 or min(shape) < 1):
        raise ValueError(
            f"the shape is {'x'.join(map(str, shape))}; an output and an input axis of at least 1, then kernel axes, are needed: "
            "give for instance 1024x57600 or 64x64x3x3"
        )
    if rank is not None and params is not None:
        raise ValueError(f"rank={rank} and params={params} are both given; each decides the ranks: leave one out")
    counts = {"rank": rank, "params": params, "batch": batch}
    if bad := {name: count for name, count in counts.items() if count is not None and count < 1}:
        raise ValueError(f"the table got {bad}; each needs to be at least 1: raise it")
    if shape is None and (in_modes is not None or out_modes is not None or rank is not None or params is not None):
        raise ValueError(
            "modes, a rank or a number of parameters are given without a shape; they count for a shape: give one as 1024x57600"
        )


def _words(kind: type[Format]) -> FormatRow:
    text = " ".join((inspect.getdoc(kind) or "").split())
    statement = re.search(r"``([^`]*->[^`]*)``", text)
    formula = re.search(r"\bParameters(?: for [^:]*)?: (.*?)\.(?= [A-Z`]|$)", text)
    prefer = re.search(r"\b[Pp]refer (?:it )?(.*?)\.(?= [A-Z`]|$)", text)
    return FormatRow(
        kind.__name__,
        text.partition(":")[0],
        statement[1] if statement else "",
        formula[1] if formula else "",
        prefer[1] if prefer else "",
    )


def _with(row: FormatRow, **changes: object) -> FormatRow:
    return FormatRow(**{**row.__dict__, **changes})  # pyright: ignore[reportArgumentType]


def _numbers(
    words: FormatRow,
    kind: type[Format],
    shape: tuple[int, ...],
    in_modes: Sequence[int] | None,
    out_modes: Sequence[int] | None,
    rank: int | None,
    params: int | None,
    batch: int,
) -> FormatRow:
    out, inp, *kernel = shape
    n_modes = kind.n_kernel_modes if kernel and kind.n_kernel_modes is not None else kind.n_modes
    axes = [("o", out), ("i", inp), *(("k", size) for size in kernel)]
    fold = kind().fold(make_fold(axes, n_modes, in_modes=in_modes, out_modes=out_modes))
    network = _within(kind, fold, params) if params is not None else _of_rank(kind, fold, 4 if rank is None else rank)
    positions = Positions(NOMINAL_POSITIONS, NOMINAL_POSITIONS, tuple(kernel)) if kernel else None
    n_places = NOMINAL_POSITIONS if kernel else 1
    dense = math.prod(shape)
    work = Workload(1, 2 * dense * n_places, positions)
    plans = [work.plan(term, batch) for term in network.terms]
    return _with(
        words,
        statement=network.statement,
        ranks=tuple(network.ranks.items()),
        parameters=network.numel,
        ratio=dense / network.numel,
        rank_bound=network.matrix_rank_bound(),
        full_rank=min(out, dense // out),
        multiply_adds=sum(plan.flops for plan in plans) // (2 * n_places),
        dense_multiply_adds=dense,
        is_rebuilt=all(plan.is_dense for plan in plans),
    )


def _of_rank(kind: type[Format], fold: Fold, rank: int) -> Network:
    return kind(rank=min(rank, kind().largest_rank(kind().widest(fold)))).network(fold)


def _within(kind: type[Format], fold: Fold, params: int) -> Network:
    """The network with the largest ranks, all of them equal or at their limit, that has at most so many parameters.

    Raises:
        ValueError: the smallest one has more.
    """
    most = kind().largest_rank(kind().widest(fold))
    best = kind(rank=1).network(fold)
    if best.numel > params:
        raise ValueError(f"at rank 1 it has {best.numel:,} parameters; at most {params:,} are wanted: allow more, or give other modes")
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if (network := kind(rank=middle).network(fold)).numel <= params:
            low, best = middle, network
        else:
            high = middle - 1
    return best
