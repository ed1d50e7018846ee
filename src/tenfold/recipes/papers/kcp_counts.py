"""KCP counts: the parameter counts and ratios of the field's recurrent layers, computed by the formats of this package.

A ratio is of the input-to-hidden matrix alone, as published, or of the whole model: with the recurrent map, one bias for each gate unit
(as in the published code) and the head. The dense recurrent map caps the latter near 222 for an LSTM of 256.

Sources of shapes and of published ratios are in each row. Ratios that we know only by hearsay are not given: "no published value".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tenfold.fold import make_fold
from tenfold.formats import parse_format
from tenfold.network import Network

TT_RNN = "script of Yang et al. 2017 (TT-RNN)"
BT_RNN = "script of Ye et al. 2018 (BT-RNN)"
TEDNET = "TedNet, ext/benchmark (arXiv 2104.05018)"
ADMM = "compare_tt_lstm.py of Yin et al. 2021 (DNN-Compression-Tensor-ADMM)"
KCP = "Wang et al. 2020, arXiv 2008.09342, abstract"
INFERRED = "inferred; the count is exact for it"
OWN = "shape of ours"


@dataclass(frozen=True)
class CountRow:
    """One layer: its format and modes, and what is published about it.

    layer: what it is called in the literature.
    format: text with modes; the output modes hold all gates.
    n_in, hidden, n_gates: of the recurrent layer. With `is_per_gate` every gate has a matrix of its own.
    kernel: input modes that stay in one factor together (Tucker-2 of TedNet).
    n_classes: of the head; 0 where there is none.
    shape_from: where shape and ranks come from.
    published: the ratio of the input-to-hidden matrix, as printed; None where we know of none in a source.
    published_in: its source.
    recurrent_format: of the hidden-to-hidden matrix; None: dense.
    """

    layer: str
    format: str
    n_in: int = 57_600
    hidden: int = 256
    n_gates: int = 4
    is_per_gate: bool = False
    kernel: tuple[int, ...] = ()
    n_classes: int = 11
    shape_from: str = OWN
    published: int | None = None
    published_in: str = ""
    recurrent_format: str | None = None

    @cached_property
    def network(self) -> Network:
        """The network of the input-to-hidden matrix (of one gate where each has its own)."""
        n_out = self.hidden * (1 if self.is_per_gate else self.n_gates)
        return _network(self.format, n_out, self.n_in // math.prod(self.kernel), self.kernel)

    @property
    def parameters(self) -> int:
        """The stored values of the input-to-hidden map."""
        return self.network.numel * (self.n_gates if self.is_per_gate else 1)

    @property
    def dense(self) -> int:
        """The values of the dense input-to-hidden map."""
        return self.n_in * self.hidden * self.n_gates

    @property
    def map_ratio(self) -> float:
        """How many times fewer values the input-to-hidden map has than dense."""
        return self.dense / self.parameters

    @property
    def recurrent(self) -> int:
        """The stored values of the hidden-to-hidden map."""
        if self.recurrent_format is None:
            return self.hidden**2 * self.n_gates
        return _network(self.recurrent_format, self.hidden * self.n_gates, self.hidden).numel

    @property
    def model(self) -> int:
        """All values of the layer and its head."""
        return self.parameters + self.recurrent + self._rest

    @property
    def dense_model(self) -> int:
        """The same of the dense layer."""
        return self.dense + self.hidden**2 * self.n_gates + self._rest

    @property
    def _rest(self) -> int:
        return self.hidden * self.n_gates + (self.hidden + 1) * self.n_classes if self.n_classes else self.hidden * self.n_gates

    @property
    def model_ratio(self) -> float:
        """How many times fewer values the whole model has than the dense one."""
        return self.dense_model / self.model

    @property
    def status(self) -> str:
        """match: the ratio is the printed one, rounded or cut off; differs; or no published value."""
        if self.published is None:
            return "no published value"
        return "match" if abs(self.map_ratio - self.published) < 1 else "differs"

    def cells(self) -> tuple[str, ...]:
        """Texts for the columns of a table."""
        kind, modes = _halves(self.format)
        if self.recurrent_format is not None:
            kind, modes = (f"{one}; recurrent {other}" for one, other in zip((kind, modes), _halves(self.recurrent_format), strict=True))
        return (
            self.layer,
            kind,
            modes,
            f"{self.parameters:,}",
            _ratio(self.map_ratio),
            "-" if self.published is None else f"{self.published:,}x",
            self.status,
            f"{self.model:,}",
            _ratio(self.model_ratio),
            self.shape_from if not self.published_in else f"{self.shape_from}; ratio: {self.published_in}",
        )


COLUMNS = ("layer", "format", "modes", "map", "ratio", "published", "", "model", "model ratio", "shape and ranks from")


def _halves(text: str) -> tuple[str, str]:
    """The format, and its modes as the literature writes them: 8.20.20.18 -> 16.4.4.4."""
    kind, _, modes = text.partition(",in=")
    return kind, modes.replace("x", ".").replace(",out=", " -> ")


def _ratio(ratio: float) -> str:
    return f"{ratio:,.1f}x"


def _network(text: str, n_out: int, n_in: int, kernel: Sequence[int] = ()) -> Network:
    format, modes = parse_format(text)
    axes = [("o", n_out), ("i", n_in), *(("k", size) for size in kernel)]
    fold = make_fold(axes, 1, in_modes=modes.get("in_modes"), out_modes=modes.get("out_modes"))
    return format.network(format.fold(fold))


UCF4, UCF5 = "in=8x20x20x18,out=16x4x4x4", "in=8x10x10x9x8,out=16x4x2x4x2"
TR_MODES = "in=4x2x5x8x6x5x3x2,out=16x4x2x4x2"
RECURRENT = "in=4x4x4x4,out=16x4x4x4"
TINY = "kcp:rank=1,in=8x10x10x9x8,out=8x4x2x8x2"
BT_SHAPES = (
    ("in=320x180,out=64x16", (1, 2, 4)),
    ("in=36x40x40,out=32x4x8", (1, 2, 4)),
    (UCF4, (1, 2, 4)),
    ("in=8x10x10x9x8,out=16x2x2x4x4", (1, 2, 4)),
)


def _bt(modes: str, rank: int) -> CountRow:
    is_published = modes == UCF4 and rank == 4
    return CountRow(
        "BT-LSTM, UCF11",
        f"bt:rank={rank},{modes}",
        shape_from=BT_RNN,
        published=17_388 if is_published else None,
        published_in="Ye et al. 2018, arXiv 1712.05134, abstract" if is_published else "",
    )


def _tednet(layer: str, format: str, published: int, **fields: object) -> CountRow:
    row = CountRow(layer, format, 2048, 2048, shape_from=TEDNET, published=published, published_in="the same, its plot script")
    return CountRow(**{**row.__dict__, **fields})  # pyright: ignore[reportArgumentType]


ROWS: tuple[CountRow, ...] = (
    *(CountRow("TT-LSTM, UCF11", f"ttm:rank={rank},{UCF4}", shape_from=TT_RNN if rank == 4 else OWN) for rank in (3, 4, 5)),
    *(
        CountRow("TT-GRU, UCF11", f"ttm:rank={rank},in=8x20x20x18,out=12x4x4x4", n_gates=3, shape_from=TT_RNN if rank == 4 else OWN)
        for rank in (3, 4, 5)
    ),
    CountRow("TT-LSTM, a matrix for each gate", "ttm:rank=4,in=8x20x20x18,out=4x4x4x4", is_per_gate=True),
    CountRow("TT-LSTM, YouTube Celebrities", "ttm:rank=4,in=4x20x20x36,out=16x4x4x4", n_classes=47, shape_from=TT_RNN),
    CountRow("TT-LSTM, Hollywood2", "ttm:rank=4,in=10x18x13x30,out=16x4x4x4", n_in=70_200, n_classes=12, shape_from=TT_RNN),
    *(_bt(modes, rank) for modes, ranks in BT_SHAPES for rank in ranks),
    CountRow("TR-LSTM, UCF11", f"tr:rank=5x5x5x5x5x10x5x5x5x5x5x5x5,{TR_MODES}", shape_from=INFERRED),
    CountRow("TR-LSTM, UCF11", f"tr:rank=5,{TR_MODES}"),
    CountRow("HT-LSTM, UCF11", f"ht:rank=4,inner_rank=5,{UCF5}", shape_from=INFERRED),
    CountRow("HT-LSTM, UCF11", f"ht:rank=4,{UCF5}"),
    CountRow("HT-LSTM, UCF11", f"ht:rank=5,{UCF5}"),
    CountRow("HT-LSTM, UCF11", "ht:rank=4,inner_rank=5,in=8x10x10x9x8,out=16x2x2x4x4"),
    *(CountRow("KCP-LSTM, UCF11, 4-D", f"kcp:rank={rank},{UCF4}") for rank in (1, 2, 4, 8)),
    *(CountRow("KCP-LSTM, UCF11, 5-D", f"kcp:rank={rank},{UCF5}") for rank in (1, 2, 4, 8, 10)),
    *(CountRow("KCP-LSTM, UCF11, 5-D", f"kcp:rank={rank},in=8x10x10x9x8,out=16x2x2x4x4") for rank in (1, 2, 4)),
    CountRow(
        "KCP-LSTM, largest published ratio",
        TINY,
        shape_from="one of the shapes with 212 numbers; the paper's is not known to us",
        published=278_219,
        published_in=KCP,
    ),
    *(CountRow("KCP-LSTM, recurrent map too", TINY, recurrent_format=f"kcp:rank={rank},{RECURRENT}", shape_from=OWN) for rank in (1, 4, 8)),
    _tednet("TR-LSTM, CNN features", "tr:rank=20,in=64x32,out=128x64", 146),
    _tednet("BT-LSTM, CNN features", "bt:rank=5,in=64x32,out=128x64", 164),
    _tednet("CP-LSTM, CNN features", "cp:rank=400,in=64x32,out=128x64", 146),
    _tednet("TT-LSTM, CNN features", "ttm:rank=10,in=64x32,out=128x64", 164),
    _tednet("TK2-LSTM, CNN features", "tucker:rank=10x10", 177, kernel=(16, 8)),
    CountRow("TT-LSTM (MPS), UCF11", "tt:rank=4x8x16x8x4x4,in=8x20x20x18,out=16x8x8", shape_from=ADMM),
    CountRow(
        "TT-LSTM (MPS), YouTube Celebrities",
        "tt:rank=4x8x16x8x8x4,in=4x20x20x36,out=32x8x4",
        n_classes=47,
        shape_from=ADMM,
    ),
    CountRow("TT-LSTM, TIMIT", "ttm:rank=2,in=1x1x5x7x9,out=8x2x4x4x8", n_in=315, hidden=512, n_classes=0, shape_from=ADMM),
    CountRow(
        "TT-LSTM (MPS), TIMIT",
        "tt:rank=2x2x4x2x2,in=5x7x9,out=16x8x16",
        n_in=315,
        hidden=512,
        n_classes=0,
        shape_from=ADMM,
    ),
)
"""All rows, in the order of the table."""
