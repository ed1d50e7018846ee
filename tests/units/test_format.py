"""Format: ranks as numbers, tuples and fractions, and the errors of bad ones."""

import dataclasses
from typing import Any

import pytest

from tenfold.fold import Fold, make_fold
from tenfold.format import Format, round_rank
from tenfold.formats import BT, CP, FCTN, HT, KCP, KT, LMTN, STR, STT, SVD, TR, TRM, TT, TTM, LoHa, LoKr, Monarch, STTu, Tucker, all_formats
from tenfold.network import Network

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


@pytest.mark.parametrize("format", [TR, TRM, FCTN, LMTN, STR])
def test_ranks_of_loops(format: Any) -> None:
    """One bond of a loop can be of use beyond the rank at which bonds of equal size represent everything; all of them together cannot."""
    assert FCTN().largest_rank(FCTN().widest(CUBE)) == 9, "the second largest of the cores of 10, 9 and 8 values"
    fold = format().fold(make_fold([("o", 64), ("i", 64)], format.n_modes))
    least = 64 if format in (TR, STR) else 16
    with pytest.raises(ValueError, match=f"{format.__name__} got rank {least + 1}, but ranks above {least} add nothing here"):
        format(rank=least + 1).network(fold)
    assert set(format(rank=least).network(fold).ranks.values()) == {least}
    assert format(rank=1.0).network(fold) == format(rank=least).network(fold)
    assert set(format(rank=0.25).network(fold).ranks.values()) == {least // 4}
    wider = (least + 1, *(2 for _ in range(len(format(rank=1).network(fold).ranks) - 1)))
    if format is not LMTN:  # its first rank is that of a latent matrix
        assert max(format(rank=wider).network(fold).ranks.values()) == least + 1


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        ("a", "TT got the rank 'a', with 'a' a str; an int is needed.*: give for instance TT.rank=8."),
        ([2, 2, 2], r"TT got the rank \[2, 2, 2\], with \[2, 2, 2\] a list; an int is needed, a fraction as a float, or a tuple"),
        ((2, 2.5, 2), r"TT got the rank \(2, 2.5, 2\), with 2.5 a float"),
    ],
)
def test_ranks_that_are_no_numbers(rank: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        TT(rank=rank).network(MATRIX)


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


KERNEL = make_fold([("o", 8), ("i", 6), ("k", 3), ("k", 3)], 2, out_modes=(2, 4), in_modes=(3, 2))
CUBE = make_fold([("o", 24), ("i", 30)], 3, out_modes=(2, 3, 4), in_modes=(5, 3, 2))
MERGED = "o1 o2 o3 i1 i2 i3"


@pytest.mark.parametrize(
    ("format", "fold", "statement"),
    [
        (TR(rank=1), KERNEL, "r1 o1 r2, r2 o2 r3, r3 k1 k2 r4, r4 i1 r5, r5 i2 r1 -> o1 o2 i1 i2 k1 k2"),
        (TRM(rank=1), KERNEL, "r1 o1 i1 r2, r2 o2 i2 r3, r3 k1 k2 r1 -> o1 o2 i1 i2 k1 k2"),
        (BT(rank=1), MATRIX, "b o1 i1 r1, b o2 i2 r2, b r1 r2 -> o1 o2 i1 i2"),
        (HT(rank=1), CUBE, f"o1 i1 r1, o2 i2 r2, o3 i3 r3, r1 r2 r1_2, r1_2 r3 -> {MERGED}"),
        (HT(rank=1, tree="1 (2 3)"), CUBE, f"o1 i1 r1, o2 i2 r2, o3 i3 r3, r2 r3 r2_3, r1 r2_3 -> {MERGED}"),
        (KT(rank=1), KERNEL, "r o1 i1, r o2 i2 k1 k2 -> o1 o2 i1 i2 k1 k2"),
        (KT(rank=1, groups=((2, 1), (1, 2))), CUBE, f"r1 o1 i1 o2 i2, r1 o3 i3 + r2 o1 i1, r2 o2 i2 o3 i3 -> {MERGED}"),
        (KT(rank=1, groups=((2, 1),)), CUBE, f"r o1 i1 o2 i2, r o3 i3 -> {MERGED}"),
        (KCP(rank=1), CUBE, f"r o1 i1, r o2 i2, r o3 i3 -> {MERGED}"),
        (KCP(rank=1, inner_rank=1), KERNEL, "r o1 s1, r s1 i1, r o2 s2, r s2 i2, r k1 k2 -> o1 o2 i1 i2 k1 k2"),
        (FCTN(rank=1), CUBE, f"r1_2 r1_3 o1 i1, r1_2 r2_3 o2 i2, r1_3 r2_3 o3 i3 -> {MERGED}"),
        (LMTN(rank=1), CUBE, f"o1 i1 m1, o2 i2 m2, o3 i3 m3, r1_2 r1_3 m1, r1_2 r2_3 m2, r1_3 r2_3 m3 -> {MERGED}"),
        (LoHa(rank=1), KERNEL, "o1 o2 r, r i1 i2 k1 k2, o1 o2 s, s i1 i2 k1 k2 -> o1 o2 i1 i2 k1 k2"),
        (LoKr(rank=1), KERNEL, "o1 i1, o2 r, r i2 k1 k2 -> o1 o2 i1 i2 k1 k2"),
        (LoKr(rank=1, both=True), MATRIX, "o1 s, s i1, o2 r, r i2 -> o1 o2 i1 i2"),
        (Monarch(rank=1), KERNEL, "o1 o2 i1 r1, r1 o2 i1 i2 k1 k2 -> o1 o2 i1 i2 k1 k2"),
        (Monarch(rank=1), CUBE, f"o1 o2 o3 i1 r1, r1 o2 o3 i1 i2 r2, r2 o3 i1 i2 i3 -> {MERGED}"),
        (STTu(rank=1), make_fold([("o", 8), ("i", 6), ("k", 3)], 1), "o1 r1, r1 o2 r2 i2 k1, r2 i1 -> o1 o2 i1 i2 k1"),
        (STT(rank=1), MATRIX, "o1 r1, r1 o2 o3 r2, r2 o4 i1 r3, r3 i2 i3 i4 -> o1 o2 o3 o4 i1 i2 i3 i4"),
        (STT(rank=1), make_fold([("o", 8), ("i", 6), ("k", 3)], 1), "o1 r1, r1 o2 k1 r2, r2 i1 i2 -> o1 o2 i1 i2 k1"),
        (STR(rank=1), make_fold([("o", 8), ("i", 6)], 1), "r1 i2 o1 r2, r2 o2 i1 r1 -> o1 o2 i1 i2"),
    ],
    ids=repr,
)
def test_statements_with_merged_and_inner_modes(format: Format, fold: Fold, statement: str) -> None:
    """Those of the docstrings, also with a kernel."""
    assert format.network(fold).statement == statement


def test_sizes_that_another_field_gives() -> None:
    """They are not counted among the ranks, and are cut where less represents everything."""
    assert BT(rank=(2, 3), blocks=5).network(MATRIX).ranks == {"b": 5, "r1": 2, "r2": 3}
    assert BT(rank=1.0, blocks=3).network(MATRIX).ranks == {"b": 3, "r1": 20, "r2": 20}
    assert HT(rank=2, inner_rank=3).network(CUBE).ranks == {"r1": 2, "r2": 2, "r3": 2, "r1_2": 3}
    assert HT(rank=(4, 3, 2), inner_rank=99).network(CUBE).ranks == {"r1": 4, "r2": 3, "r3": 2, "r1_2": 8}
    assert KCP(rank=3, inner_rank=2).network(MATRIX).ranks == {"r": 3, "s1": 2, "s2": 2}
    assert KCP(rank=3, inner_rank=5).network(MATRIX).ranks == {"r": 3, "s1": 4, "s2": 5}
    assert KCP(rank=60, inner_rank=1).network(MATRIX).ranks["r"] == 60, "matrices of lower rank need more terms"
    assert KCP(rank=1.0, inner_rank=6).network(MATRIX).ranks["r"] == KCP(rank=1.0).network(MATRIX).ranks["r"] == 20
    assert KCP(rank=(3,), inner_rank=5).rank_choices(MATRIX) == [(3,)]
    assert LMTN(rank=2, latent_rank=4).network(MATRIX).ranks == {"m1": 4, "m2": 4, "r1_2": 2}
    assert HT(rank=2).network(CUBE).ranks == {"r1": 2, "r2": 2, "r3": 2, "r1_2": 2}, "left out, `rank` sizes all"
    free = HT(inner_rank=2)
    assert free.free_ranks(free.widest(CUBE)).keys() == {"r1", "r2", "r3"}
    assert len(free.rank_choices(CUBE)[0]) == 3


@pytest.mark.parametrize(
    ("format", "fold", "message"),
    [
        (
            BT(rank=2, blocks=0),
            MATRIX,
            r"BT got the sizes \{'b': 0\}; they must be from 1 to the largest useful ones, \{'b': \d+\}: choose others",
        ),
        (BT(rank=(2, 2, 2)), MATRIX, r"BT got 3 ranks \(2, 2, 2\), but has the 2 rank indices \['r1', 'r2'\]; give one each"),
        (HT(rank=2, inner_rank=0), CUBE, r"HT got the sizes \{'r1_2': 0\}; they must be from 1"),
        (HT(rank=2, tree="1 (2 3"), CUBE, r"the tree '1 \(2 3' does not hold each of the pairs of modes 1 to 3 once; write it as in"),
        (HT(rank=2, tree="1 2"), CUBE, r"the tree '1 2' does not hold each of the pairs of modes 1 to 3 once"),
        (HT(rank=2, tree="1 (2 2)"), CUBE, r"the tree '1 \(2 2\)' does not hold each of the pairs"),
        (HT(rank=2, tree="1 2 3"), CUBE, r"the tree '1 2 3' joins 3 nodes at once; a binary tree joins two: add brackets"),
        (HT(rank=2, tree="1 ()"), CUBE, r"the tree '1 \(\)' joins 0 nodes at once; a binary tree joins two"),
        (HT(rank=2, tree="1 (2 x)"), CUBE, r"the tree '1 \(2 x\)' has a 'x' that does not fit; write numbers and brackets, as in"),
        (HT(rank=2, tree="1) (2 3"), CUBE, r"the tree '1\) \(2 3' has a '\)' that does not fit; write numbers and brackets"),
        (HT(rank=2, tree="1 (2 3)"), KERNEL.__class__(KERNEL.axes[:2]), r"does not hold each of the pairs of modes 1 to 2 once"),
        (
            KT(rank=2, groups=((1, 1),)),
            CUBE,
            r"KT got the group \(1, 1\) for 3 pairs of modes; a group needs two factors or more that take all pairs",
        ),
        (
            KT(rank=2, groups=((2, 1), (3,))),
            CUBE,
            r"KT got the group \(3,\) for 3 pairs of modes; .* write for instance groups=\(\(2, 1\),\)",
        ),
        (KT(rank=2, groups=((4, -1),)), CUBE, r"KT got the group \(4, -1\) for 3 pairs"),
        (KT(rank=(2, 2, 2), groups=((2, 1), (1, 2))), CUBE, r"KT got 3 ranks \(2, 2, 2\), but has the 2 rank indices \['r1', 'r2'\]"),
        (KCP(rank=2, inner_rank=0), MATRIX, r"KCP got the sizes \{'s1': 0, 's2': 0\}; they must be from 1"),
        (LMTN(rank=2, latent_rank=-1), MATRIX, r"LMTN got the sizes \{'m1': -1, 'm2': -1\}; they must be from 1"),
        (
            STT(rank=2, t=1),
            MATRIX,
            r"STT got t=1; a semi-tensor product needs an identity of size 2 or more: give t=2, or choose TT, which is t=1",
        ),
        (STR(rank=2, t=0), MATRIX, r"STR got t=0; .*or choose TR, which is t=1"),
        (STTu(rank=2, t=-2), MATRIX, r"STTu got t=-2; .*or choose Tucker, which is t=1"),
    ],
    ids=repr,
)
def test_bad_options(format: Format, fold: Fold, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        format.network(fold)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BT(rank=2, blocks=2.5), r"BT got the sizes \{'b': 2.5\}; whole numbers are needed: round them"),  # type: ignore[arg-type]
        (lambda: KCP(rank=2, inner_rank=1.5), r"KCP got the sizes \{'s1': 1.5, 's2': 1.5\}; whole numbers"),  # type: ignore[arg-type]
        (lambda: STT(rank=2, t=2.5), "STT got t=2.5; a whole number is needed, as modes are divided by it"),  # type: ignore[arg-type]
        (lambda: KT(rank=2, groups=(1, 1)), r"KT got the groups \(1, 1\); a tuple with a tuple of whole numbers for"),  # type: ignore[arg-type]
        (lambda: KT(rank=2, groups=((),)), r"KT got the groups \(\(\),\); .*: write for instance groups=\(\(2, 1\),\)"),
        (
            lambda: HT(rank=2, tree=""),
            r"HT got the tree ''; a text with numbers and brackets is needed: write it as '\(\(1 2\) 3\) \(4 5\)'",
        ),
        (lambda: HT(rank=2, tree=5), "HT got the tree 5; a text with numbers and brackets is needed"),  # type: ignore[arg-type]
    ],
)
def test_options_of_another_type(make: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make().network(MATRIX)


@pytest.mark.parametrize(
    "format", [KT(rank=1), KCP(rank=1), TTM(rank=1), HT(rank=1), Monarch(rank=1), LoKr(rank=1), LMTN(rank=1)], ids=repr
)
def test_one_pair_of_modes_is_no_format(format: Format) -> None:
    with pytest.raises(ValueError, match=r"has no rank with the modes .*: its one factor is the dense weight; give more modes"):
        format.network(make_fold([("o", 24), ("i", 30)], 1))


def test_modes_that_t_does_not_divide_are_kept_whole() -> None:
    network = STT(rank=1, t=4).network(make_fold([("o", 8), ("i", 6)], 1))
    assert {mode: network.sizes[mode] for mode in network.modes} == {"o1": 2, "o2": 4, "i1": 6, "i2": 1}


def test_a_rank_index_of_a_field_of_somebody_else() -> None:
    assert Sized(rank=2).network(TABLE).ranks == {"a": 2, "b": 3}
    with pytest.raises(
        ValueError, match=r"Sized got the sizes \{'b': 700\}; they must be from 1 to the largest useful ones, \{'b': 24\}: choose others"
    ):
        Sized(rank=2, width=700).network(TABLE)


@dataclasses.dataclass(frozen=True)
class Sized(Format):
    """A product of three matrices, whose second rank is a field."""

    width: int = 3

    def factors(self, fold: Fold) -> list[tuple[str, ...]]:
        return [(*fold.role("o"), "a"), ("a", "b"), ("b", *fold.role("i"))]

    def other_ranks(self, network: Network) -> dict[str, int]:
        return {"b": self.width}


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
    assert len(choices) > 2 and len(set(choices)) == len(choices)
    counts = [dataclasses.replace(format, rank=choice).network(MATRIX).numel for choice in choices]
    assert counts == sorted(counts)
    fixed = dataclasses.replace(format, rank=2)
    assert fixed.rank_choices(MATRIX) == [fixed.ranks_of(fixed.network(MATRIX))]


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


def test_a_plan_tries_no_tucker_rank_beyond_what_the_other_can_fill() -> None:
    """Of 3 input ranks and 3 positions no more than 9 output ranks are anything; (48, 3) had four times the values of (9, 3)."""
    fold = make_fold([("o", 48), ("i", 32), ("k", 3)], 1)
    choices = Tucker().rank_choices(fold)
    assert (9, 3) in choices and (48, 32) in choices and len(choices) == len(set(choices))
    assert all(r1 <= 3 * r2 and r2 <= 3 * r1 for r1, r2 in choices)
