"""Bayesian counts: the weights of the five embedding tables in the rank lists of arXiv 2010.08689, computed by the formats of this package.

The tables are those of the released scripts for Criteo Kaggle: numbers 2, 3, 11, 15 and 20 of 26, with 128 columns. The other 21 tables and
the two perceptrons stay dense, so the whole model shrinks far less than the tables do; both ratios are given.

A published value is given where the paper's abstract states one ("4.2e9 to 1.6e5"); all other counts follow from the released rank lists.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

from tenfold.fold import make_fold
from tenfold.format import Format
from tenfold.formats import CP, TT, TTM, Tucker

N_COLUMNS = 128
TABLES = {  # number: rows, and the modes that they are split into
    2: (10_131_227, (200, 220, 250)),
    3: (2_202_608, (125, 130, 136)),
    11: (8_351_593, (200, 200, 209)),
    15: (5_461_306, (166, 175, 188)),
    20: (7_046_547, (200, 200, 200)),
}
ALL_ROWS = 33_762_577  # of all 26 tables
BOTTOM, TOP = (13, 512, 256, 256, 128), (479, 512, 256, 1)  # 479: 128 dense features and the 351 products of 27 vectors
DENSE = sum(rows for rows, _ in TABLES.values()) * N_COLUMNS
MAXIMUM = "largest ranks"
COLUMNS = ("format", "prior", "ranks", "weights", "ratio", "model ratio", "published")
NOTE = (
    f"weights: of the five tables, {DENSE:,} if dense; ratio: of these tables; model ratio: end to end, with the 21 dense tables and the "
    "perceptrons. published: the abstract of arXiv 2010.08689; the other counts follow from its released rank lists. Those ranks lie "
    "within the spread of a null model without any data: they are shapes to count and no evidence, and every training has the null model "
    "beside it."
)


@dataclass(frozen=True)
class TableCounts:
    """The five tables in one format.

    ranks: of each table, in the order of the released list: from the rows to the columns.
    published: what is printed about it, "" where nothing is.
    """

    format: str
    prior: str
    ranks: tuple[tuple[int, ...], ...]
    published: str = ""

    @cached_property
    def weights(self) -> int:
        """Stored values of the five tables."""
        return sum(_weights(self.format, ranks, number) for ranks, number in zip(self.ranks, TABLES, strict=True))

    @property
    def ratio(self) -> float:
        """How many times fewer than dense ones."""
        return DENSE / self.weights

    @property
    def model_ratio(self) -> float:
        """The same for the whole model."""
        rest = ALL_ROWS * N_COLUMNS - DENSE + perceptron(BOTTOM) + perceptron(TOP)
        return (DENSE + rest) / (self.weights + rest)

    def cells(self) -> tuple[str, ...]:
        """Texts for the columns of a table."""
        shown = " ".join(",".join(map(str, ranks)) if len(set(ranks)) > 1 else str(ranks[0]) for ranks in self.ranks)
        return (
            self.format,
            self.prior,
            shown,
            f"{self.weights:,}",
            f"{self.ratio:,.0f}x",
            f"{self.model_ratio:,.1f}x",
            self.published or "no published value",
        )


def perceptron(sizes: tuple[int, ...]) -> int:
    """The parameters of linear layers with biases, one after another."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))


def _weights(name: str, ranks: tuple[int, ...], number: int) -> int:
    rows, modes = TABLES[number]
    format, row_modes, column_modes = _format(name, ranks, modes)
    fold = make_fold([("i", rows), ("o", N_COLUMNS)], 1, in_modes=row_modes, out_modes=column_modes)
    assert math.prod(row_modes) >= rows
    return format.network(fold).numel


def _format(name: str, ranks: tuple[int, ...], modes: tuple[int, ...]) -> tuple[Format, tuple[int, ...], tuple[int, ...]]:
    """A format of this package with the ranks of a list; chains of separate modes start at the columns here, and so do Tucker's modes."""
    if name == "CP":
        return CP(rank=ranks[0]), modes, (N_COLUMNS,)
    if name == "TTM":
        return TTM(rank=ranks), modes, (4, 4, 8)
    if name == "TT":
        return TT(rank=ranks[::-1]), modes[::-1], (N_COLUMNS,)
    return Tucker(rank=(ranks[-1], *ranks[:-1])), modes, (N_COLUMNS,)


def _single(*ranks: int) -> tuple[tuple[int, ...], ...]:
    return tuple((rank,) for rank in ranks)


_TUCKER_LARGEST = tuple((rank,) * 4 for rank in (22, 20, 22, 21, 22))
ROWS = (
    TableCounts("CP", MAXIMUM, _single(350, 306, 333, 326, 335)),
    TableCounts("TTM", MAXIMUM, ((16, 16),) * 5),
    TableCounts("TT", MAXIMUM, ((24, 24, 24),) * 5),
    TableCounts("Tucker", MAXIMUM, _TUCKER_LARGEST),
    TableCounts("CP", "log-uniform", _single(163, 171, 161, 175, 153)),
    TableCounts("CP", "half-Cauchy", _single(166, 181, 154, 164, 169)),
    TableCounts("TTM", "log-uniform", ((16, 4), (16, 1), (16, 2), (16, 2), (16, 1))),
    TableCounts("TTM", "half-Cauchy", ((16, 2), (16, 2), (16, 1), (16, 1), (16, 2)), "1.6e5 weights"),
    TableCounts("TT", "log-uniform", ((23, 5, 7), (20, 3, 5), (15, 6, 4), (22, 6, 5), (23, 6, 7))),
    TableCounts("TT", "half-Cauchy", ((21, 5, 2), (22, 4, 4), (23, 6, 5), (23, 7, 9), (22, 4, 7))),
    TableCounts("Tucker", "log-uniform", ((18, 17, 20, 21), (19,) * 4, (13, 19, 19, 18), (17, 18, 18, 21), (19, 20, 21, 18))),
    TableCounts("Tucker", "half-Cauchy", _TUCKER_LARGEST),
)
