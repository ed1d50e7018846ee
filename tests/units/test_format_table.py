"""The table of formats: words from docstrings, numbers from layers built with the same format."""

import pytest
import torch

import tenfold
from tenfold.format_table import format_table
from tenfold.formats import all_formats

CUBE = (4, 4, 4)


def test_every_format_has_its_words() -> None:
    rows = format_table()
    assert [row.name for row in rows] == sorted((kind.__name__ for kind in all_formats().values()), key=str.lower)
    for row in rows:
        assert row.paper_name and "``" not in row.paper_name, row.name
        assert "->" in row.statement, row.name
        assert row.prefer and not row.prefer.startswith("it "), row.name
        assert (row.parameters, row.reason) == (None, ""), row.name
    words = {row.name: row for row in rows}
    assert words["KCP"].paper_name == "Kronecker CP decomposition"
    assert words["TTM"].formula == "sum of rank x o_k x i_k x rank"


def test_numbers_are_those_of_layers() -> None:
    rows = format_table((64, 64), in_modes=CUBE, out_modes=CUBE, rank=2)
    assert len(rows) == len(all_formats()) and not [row.reason for row in rows if row.reason]
    for row in rows:
        kind = all_formats()[row.name.lower()]
        ranks = dict(row.ranks)
        layer = tenfold.nn.Linear(64, 64, bias=False, format=kind(rank=2), in_modes=CUBE, out_modes=CUBE)
        assert layer.factorized.network.ranks == ranks, row.name
        assert row.parameters == sum(p.numel() for p in layer.parameters()), row.name
        assert row.ratio == pytest.approx(4096 / row.parameters), row.name
        assert row.dense_multiply_adds == 4096
        rank = int(torch.linalg.matrix_rank(layer.double().weight.detach()))
        assert rank <= row.rank_bound <= row.full_rank == 64, row.name
        if len(layer.factorized.network.terms) == 1:
            assert row.multiply_adds == layer.plan(batch=16).flops // 2, row.name
            assert row.is_rebuilt == layer.plan(batch=16).is_dense, row.name


def test_separate_modes_have_a_bottleneck_and_merged_modes_have_none() -> None:
    rows = {row.name: row for row in format_table((64, 64), in_modes=CUBE, out_modes=CUBE, rank=2)}
    assert {name: rows[name].rank_bound for name in ("SVD", "CP", "TT", "TR", "LoHa")} == {"SVD": 2, "CP": 2, "TT": 2, "TR": 4, "LoHa": 4}
    assert {rows[name].rank_bound for name in ("TTM", "TRM", "BT", "HT", "KCP", "FCTN")} == {64}


def test_a_number_of_parameters_gives_the_largest_ranks_within_it() -> None:
    rows = {row.name: row for row in format_table((64, 64), in_modes=CUBE, out_modes=CUBE, params=500)}
    assert dict(rows["KCP"].ranks) == {"r": 10}  # 48 for each
    assert rows["KCP"].parameters == 480
    assert "at rank 1 it has 768 parameters; at most 500 are wanted" in rows["Monarch"].reason
    assert all(row.parameters <= 500 for row in rows.values() if not row.reason)
    assert len([row for row in rows.values() if not row.reason]) > 10


def test_a_convolution_is_counted_for_one_position() -> None:
    rows = {row.name: row for row in format_table((16, 16, 3, 3), rank=3)}
    assert rows["CP"].parameters == 3 * (16 + 16 + 9)
    assert rows["CP"].multiply_adds == 3 * (16 + 16 + 9)
    assert rows["CP"].dense_multiply_adds == 16 * 16 * 9
    assert rows["Tucker"].parameters == 2 * 16 * 3 + 9 * 9


def test_a_format_that_cannot_take_the_shape_says_why() -> None:
    rows = {row.name: row for row in format_table((64, 64), in_modes=(8, 8), out_modes=CUBE)}
    assert rows["TTM"].reason.endswith("there are 3 and 2; pad the shorter list with modes of size 1")
    assert (rows["TTM"].parameters, rows["TTM"].multiply_adds) == (None, None)
    assert rows["TR"].parameters == 4 * 4 * (3 * 4 + 2 * 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (64,)}, "the shape is 64; an output and an input axis of at least 1, .* give for instance 1024x57600"),
        ({"shape": (64, 0)}, "the shape is 64x0"),
        ({"shape": (64, 64), "rank": 4, "params": 9}, "rank=4 and params=9 are both given; each decides the ranks: leave one out"),
        ({"shape": (64, 64), "rank": 0}, r"the table got \{'rank': 0\}; each needs to be at least 1: raise it"),
        ({"shape": (64, 64), "batch": 0}, r"the table got \{'batch': 0\}"),
        ({"rank": 4}, "given without a shape; they count for a shape: give one as 1024x57600"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        format_table(**arguments)
