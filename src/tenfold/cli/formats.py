"""tenfold formats: what there is to choose from, and what it costs for a shape."""

import dataclasses
from typing import Annotated

from cyclopts import Parameter
from rich.console import RenderableType

from tenfold.cli.arguments import Common
from tenfold.cli.console import Outcome, Steps, table
from tenfold.format_table import FormatRow, format_table


def formats(
    *,
    shape: Annotated[
        str | None, Parameter(help="Of a weight: OUTxIN, of a convolution OUTxINxKxK; without it the table has no numbers.")
    ] = None,
    in_modes: Annotated[str | None, Parameter(help="Sizes that the inputs are split into, as 8x10x10x9x8; chosen where not given.")] = None,
    out_modes: Annotated[str | None, Parameter(help="The same for the outputs, as 16x4x2x4x2.")] = None,
    rank: Annotated[int | None, Parameter(help="Of every rank index, or less where less represents everything; 4 where not given.")] = None,
    params: Annotated[int | None, Parameter(help="Instead of --rank: the largest ranks within so many parameters.")] = None,
    batch: Annotated[int, Parameter(help="Samples that contraction plans are made for.")] = 16,
    common: Common = Common(),
) -> Outcome:
    """List all formats with statement, parameters, ratio, rank bound and multiply-adds for a shape.

    The rank bound is the largest rank that the matrix can have: formats with separate modes have a bottleneck where a cut divides
    outputs from inputs, formats with merged modes have none. Multiply-adds are those of the chosen plan, for one sample.

    **Example**

        tenfold formats --shape 1024x57600 --in-modes 8x10x10x9x8 --out-modes 16x4x2x4x2 --params 1000
    """
    common.apply()
    sizes = None if shape is None else _sizes("--shape", shape)
    with Steps() as steps:
        rows = format_table(
            sizes,
            in_modes=None if in_modes is None else _sizes("--in-modes", in_modes),
            out_modes=None if out_modes is None else _sizes("--out-modes", out_modes),
            rank=rank,
            params=params,
            batch=batch,
            progress=None if sizes is None else steps,
        )
    data = {"shape": sizes, "batch": batch, "formats": [{**dataclasses.asdict(row), "ranks": dict(row.ranks)} for row in rows]}
    return Outcome(data, _general(rows) if sizes is None else _of_shape(rows, sizes))


def _general(rows: tuple[FormatRow, ...]) -> tuple[RenderableType, ...]:
    columns = ("format", "in the literature", "statement", "parameters", "prefer it")
    shown = [(row.name, row.paper_name, row.statement, row.formula, row.prefer) for row in rows]
    return table(columns, shown), "for numbers give --shape OUTxIN, for instance --shape 1024x57600"


def _of_shape(rows: tuple[FormatRow, ...], sizes: tuple[int, ...]) -> tuple[RenderableType, ...]:
    columns = ("format", "in the literature", "ranks", "parameters", "ratio", "rank at most", "multiply-adds", "statement", "prefer it")
    shown = [_cells(row) for row in rows]
    dense = next((row.dense_multiply_adds for row in rows if row.dense_multiply_adds), None)
    per = "position of a 14x14 output" if len(sizes) > 2 else "sample"
    total = f"dense: {dense:,} multiply-adds a {per}; * the plan rebuilds the dense weight, nothing else is predicted to be faster"
    return table(columns, shown, numbers=("parameters", "ratio", "rank at most", "multiply-adds")), total


def _cells(row: FormatRow) -> tuple[object, ...]:
    if row.reason:
        return row.name, row.paper_name, "", "-", "-", "-", "-", "", f"cannot take this shape: {row.reason}"
    ranks = sorted({size for _, size in row.ranks})
    span = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
    bound = f"{row.rank_bound:,} of {row.full_rank:,}"
    multiply_adds = f"{row.multiply_adds:,}{' *' if row.is_rebuilt else ''}"
    return (
        row.name,
        row.paper_name,
        span,
        f"{row.parameters:,}",
        f"{row.ratio:,.1f}x",
        bound,
        multiply_adds,
        row.statement,
        row.prefer,
    )


def _sizes(option: str, text: str) -> tuple[int, ...]:
    parts = text.lower().replace(",", "x").split("x")
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"{option} is {text!r}; whole numbers joined by x are needed: write for instance {option} 8x10x10x9x8")
    return tuple(int(part) for part in parts)
