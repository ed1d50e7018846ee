"""Format: ranks as numbers, tuples and fractions, and the errors of bad ones."""

import dataclasses

import pytest

from tenfold.fold import Fold, make_fold
from tenfold.format import Format, round_rank
from tenfold.formats import CP, SVD, TT, TTM, Tucker, all_formats

MATRIX = make_fold([("o", 24), ("i", 30)], 2, out_modes=(4, 6), in_modes=(5, 6))
TABLE = make_fold([("i", 24), ("o", 30)], 1)


def test_ranks() -> None:
    assert TT(rank=3).network(MATRIX).ranks == {"r1": 3, "r2": 3, "r3": 3}
    assert TT(rank=(2, 9, 5)).network(MATRIX).ranks == {"r1": 2, "r2": 9, "r3": 5}
    assert TT(rank=20).network(MATRIX).ranks == {"r1": 4, "r2": 20, "r3": 6}, "an int is cut where a smaller rank is enough"
    assert TT(rank=0.5).network(MATRIX).ranks == {"r1": 2, "r2": 12, "r3": 3}
    assert TT(rank=0.01).network(MATRIX).ranks == {"r1": 1, "r2": 1, "r3": 1}, "a fraction never leaves nothing"
    assert SVD(rank=1.0).network(TABLE).ranks == {"r": 24}
    assert TT().widest(MATRIX).ranks == {"r1": 4, "r2": 24, "r3": 6}


@pytest.mark.parametrize(
    ("format", "message"),
    [
        (TT(), r"TT\(\) has no rank; a layer needs one: give TT\(rank=8\), or let tenfold.plan choose"),
        (TT(rank=0), "TT got rank 0; every rank must be at least 1"),
        (SVD(rank=-3), "SVD got rank -3; every rank must be at least 1"),
        (TT(rank=(2, 0, 2)), r"TT got rank \(2, 0, 2\); every rank must be at least 1"),
        (TT(rank=25), "TT got rank 25, but ranks above 24 add nothing here; choose at most that"),
        (TT(rank=(5, 2, 2)), r"TT got ranks above the largest useful ones: \{'r1': '5 > 4'\}; choose at most those"),
        (TT(rank=(2, 2)), r"TT got 2 ranks \(2, 2\), but has the 3 rank indices \['r1', 'r2', 'r3'\]; give one each"),
        (TT(rank=1.5), "TT got the rank 1.5; a fraction must be above 0 and at most 1; for a whole rank give an int"),
        (TT(rank=0.0), "TT got the rank 0.0; a fraction must be above 0 and at most 1"),
        (SVD(rank=25), "SVD got rank 25, but ranks above 24 add nothing here"),
    ],
)
def test_bad_ranks(format: Format, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        format.network(MATRIX)


def test_modes_that_a_format_cannot_take() -> None:
    uneven = make_fold([("o", 24), ("i", 30)], 1, out_modes=(4, 6), in_modes=(30,))
    with pytest.raises(ValueError, match=r"as many output modes as input modes, but there are 2 and 1"):
        TTM(rank=2).network(uneven)
    assert TT(rank=2).network(uneven).numel == 4 * 2 + 2 * 6 * 2 + 2 * 30
    with pytest.raises(ValueError, match=r"TTM has no rank with the modes .*: its one factor is the dense weight; give more modes"):
        TTM(rank=2).network(make_fold([("o", 24), ("i", 30)], 1))


def test_statements() -> None:
    """The statements of the docstrings."""
    kernel = make_fold([("o", 8), ("i", 6), ("k", 3), ("k", 3)], 1)
    assert SVD(rank=2).network(kernel).statement == "o1 r, r i1 k1 k2 -> o1 i1 k1 k2"
    assert CP(rank=2).network(kernel).statement == "o1 r, r k1 k2, r i1 -> o1 i1 k1 k2"
    assert Tucker(rank=2).network(kernel).statement == "o1 r1, r1 r2 k1 k2, r2 i1 -> o1 i1 k1 k2"
    assert Tucker(rank=2, all_modes=True).network(kernel).statement == "o1 r1, r1 r2 r3, r3 k1 k2, r2 i1 -> o1 i1 k1 k2"
    assert TT(rank=2).network(kernel).statement == "o1 r1, r1 r2 k1 k2, r2 i1 -> o1 i1 k1 k2"
    assert TTM(rank=2).network(kernel).statement == "o1 i1 r1, r1 k1 k2 -> o1 i1 k1 k2"


def test_groups_are_on_every_factor() -> None:
    grouped = make_fold([("o", 8), ("i", 3), ("k", 3)], 1, groups=4)
    network = CP(rank=2).network(grouped)
    assert network.statement == "g o1 r, g r k1, g r i1 -> g o1 i1 k1"
    assert network.numel == 4 * 2 * (2 + 3 + 3)
    assert network.ranks == {"r": 2}, "groups are no rank"


@pytest.mark.parametrize("name", all_formats())
def test_formats_are_frozen_values(name: str) -> None:
    format = all_formats()[name](rank=2)
    assert format == all_formats()[name](rank=2) and hash(format) == hash(all_formats()[name](rank=2))
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"cannot assign to field 'rank'"):
        format.rank = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", all_formats())
def test_rank_choices_are_networks_of_growing_size(name: str) -> None:
    format = all_formats()[name]()
    choices = format.rank_choices(MATRIX)
    assert len(choices) > 3 and len(set(choices)) == len(choices)
    counts = [dataclasses.replace(format, rank=choice).network(MATRIX).numel for choice in choices]
    assert counts == sorted(counts)
    assert dataclasses.replace(format, rank=2).rank_choices(MATRIX) == [
        tuple(dataclasses.replace(format, rank=2).network(MATRIX).ranks.values())
    ]


@pytest.mark.parametrize(("rank", "rounded"), [(0.2, 1), (1.4, 1), (15.6, 16), (17, 16), (18.1, 20), (33, 32), (37, 40), (200.9, 200)])
def test_round_rank(rank: float, rounded: int) -> None:
    assert round_rank(rank) == rounded
    assert round_rank(rank, 11) == min(rounded, 11)


class Ring(Format):
    """A format of somebody else."""

    def factors(self, fold: Fold) -> list[tuple[str, ...]]:
        return [("a", *fold.role("o"), "b"), ("b", *fold.role("i"), "a")]


def test_a_format_of_one_method() -> None:
    """A format needs no more than the indices of its factors; a ring of two cores."""
    network = Ring(rank=2).network(TABLE)
    assert network.statement == "a o1 b, b i1 a -> i1 o1"
    assert network.numel == 2 * 2 * (24 + 30)
    assert Ring(rank=(3, 1)).network(TABLE).ranks == {"a": 3, "b": 1}
