"""The published parameter counts and ratios, exactly; both ratios of each layer.

Sources: the rows name them; the counts are those of formats named in the papers' own code, derived by hand from their shapes.
"""

import pytest
import torch

from tenfold.formats import parse_format
from tenfold.recipes.papers.kcp_counts import COLUMNS, ROWS, CountRow
from tenfold.recurrent import LSTM

COUNTS = {
    "TT-LSTM, UCF11": [2_040, 3_360, 5_000],
    "TT-GRU, UCF11": [1_944, 3_232, 4_840],
    "TT-LSTM, a matrix for each gate": [4 * 2_976],
    "TT-LSTM, YouTube Celebrities": [3_392],
    "TT-LSTM, Hollywood2": [3_104],
    "BT-LSTM, UCF11": [46_722, 93_448, 186_912, 3_266, 6_544, 13_184, 722, 1_472, 3_392, 474, 1_008, 3_936],
    "TR-LSTM, UCF11": [1_725, 1_575],
    "HT-LSTM, UCF11": [1_245, 1_168, 1_600, 1_229],
    "KCP-LSTM, UCF11, 4-D": [360, 720, 1_440, 2_880],
    "KCP-LSTM, UCF11, 5-D": [240, 480, 960, 1_920, 2_400, 236, 472, 944],
    "KCP-LSTM, largest published ratio": [212],
    "KCP-LSTM, recurrent map too": [212, 212, 212],
    "TR-LSTM, CNN features": [115_200],
    "BT-LSTM, CNN features": [102_450],
    "CP-LSTM, CNN features": [115_200],
    "TT-LSTM, CNN features": [102_400],
    "TK2-LSTM, CNN features": [94_880],
    "TT-LSTM (MPS), UCF11": [3_400],
    "TT-LSTM (MPS), YouTube Celebrities": [3_472],
    "TT-LSTM, TIMIT": [360],
    "TT-LSTM (MPS), TIMIT": [278],
}
RATIOS = {3_360: 17_554.3, 1_725: 34_192.7, 1_245: 47_375.4, 212: 278_218.9, 240: 245_760.0, 722: 81_693.1, 1_472: 40_069.6}


def rows_of(layer: str) -> list[CountRow]:
    return [row for row in ROWS if row.layer == layer]


@pytest.mark.parametrize("layer", COUNTS)
def test_counts(layer: str) -> None:
    assert [row.parameters for row in rows_of(layer)] == COUNTS[layer]


def test_all_rows_are_checked() -> None:
    assert {row.layer for row in ROWS} == set(COUNTS)


def test_ratios() -> None:
    ucf11 = [row for row in ROWS if (row.n_in, row.hidden, row.n_gates) == (57_600, 256, 4)]
    for count, ratio in RATIOS.items():
        found = [row for row in ucf11 if row.parameters == count]
        assert found, count
        assert all(row.map_ratio == pytest.approx(ratio, abs=0.05) for row in found)


def test_every_published_ratio_is_matched_and_all_others_are_marked() -> None:
    published = {(row.layer, row.published): row.status for row in ROWS if row.published is not None}
    assert published == {
        ("BT-LSTM, UCF11", 17_388): "match",
        ("KCP-LSTM, largest published ratio", 278_219): "match",
        ("TR-LSTM, CNN features", 146): "match",
        ("BT-LSTM, CNN features", 164): "match",
        ("CP-LSTM, CNN features", 146): "match",
        ("TT-LSTM, CNN features", 164): "match",
        ("TK2-LSTM, CNN features", 177): "match",
    }
    assert all(row.published_in for row in ROWS if row.published is not None)
    assert {row.status for row in ROWS if row.published is None} == {"no published value"}
    wrong = CountRow("x", "kcp:rank=2,in=8x10x10x9x8,out=8x4x2x8x2", published=278_219)
    assert wrong.status == "differs"


def test_the_dense_recurrent_map_caps_the_ratio_of_the_whole_model() -> None:
    """59,248,395 numbers with 11 classes; 266,207 with 212 in the input map (counted by hand)."""
    (row,) = rows_of("KCP-LSTM, largest published ratio")
    assert (row.dense_model, row.model) == (59_248_395, 266_207)
    assert row.model_ratio == pytest.approx(222.6, abs=0.05)
    assert [(round(one.model_ratio, 1)) for one in rows_of("TT-LSTM, UCF11")][1] == 220.0
    assert max(one.model_ratio for one in ROWS if one.recurrent_format is None and one.n_in == 57_600) < 223
    assert all(one.model_ratio > 5_000 for one in rows_of("KCP-LSTM, recurrent map too"))


def test_layers_have_as_many_parameters_as_their_rows() -> None:
    for row in (*rows_of("KCP-LSTM, recurrent map too"), *rows_of("HT-LSTM, UCF11")[:1], *rows_of("TR-LSTM, UCF11")[:1]):
        format, modes = parse_format(row.format)
        recurrent = {}
        if row.recurrent_format is not None:
            kind, hidden = parse_format(row.recurrent_format)
            recurrent = {"recurrent_format": kind, "recurrent_modes": hidden["in_modes"]}
        lstm = LSTM(row.n_in, row.hidden, format=format, **modes, **recurrent, device="meta")  # type: ignore[arg-type]
        assert sum(p.numel() for p in lstm.factorized["weight_ih_l0"].parameters()) == row.parameters
        head = torch.nn.Linear(row.hidden, row.n_classes)
        second_bias = row.hidden * row.n_gates  # torch's layers have two, the published code one
        assert sum(p.numel() for p in (*lstm.parameters(), *head.parameters())) == row.model + second_bias


def test_cells_fill_the_columns() -> None:
    (row,) = rows_of("KCP-LSTM, largest published ratio")
    cells = dict(zip(COLUMNS, row.cells(), strict=True))
    assert cells["modes"] == "8.10.10.9.8 -> 8.4.2.8.2"
    assert (cells["format"], cells["map"], cells["ratio"], cells["published"]) == ("kcp:rank=1", "212", "278,218.9x", "278,219x")
    assert all(len(one.cells()) == len(COLUMNS) for one in ROWS)
