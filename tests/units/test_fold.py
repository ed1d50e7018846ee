"""Fold: axes to modes and back, mode sizes, and padding."""

import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tenfold.fold import Axis, Fold, make_fold
from tenfold.mode_sizes import PADDING_LIMIT, balanced_modes

SIZES = [1, 2, 7, 64, 997, 1000, 1024, 3072, 33_278, 50_257, 57_600, 128_256, 10_000_000, 10_000_019, 99_999_989]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_balanced_modes(size: int, count: int) -> None:
    """So many modes, in increasing order, which hold the size with at most 5 % of padding."""
    modes = balanced_modes(size, count)
    assert len(modes) == count
    assert list(modes) == sorted(modes)
    assert size <= math.prod(modes) <= size * PADDING_LIMIT
    if count > 1 and size > 900:
        assert max(modes) <= 2.5 * min(modes), "an awkward size is padded until its modes are about equal"


@given(st.integers(1, 5000), st.integers(1, 5))
def test_balanced_modes_are_no_worse_than_an_exact_split(size: int, count: int) -> None:
    modes = balanced_modes(size, count)
    assert len(modes) == count and size <= math.prod(modes) <= size * PADDING_LIMIT
    assert sum(modes) <= size + count - 1  # the split into the size itself and ones


def test_balanced_modes_known() -> None:
    assert balanced_modes(1000, 3) == (10, 10, 10)
    assert balanced_modes(1024, 3) == (8, 8, 16), "no padding where it gains next to nothing"
    assert balanced_modes(997, 3) == (10, 10, 10), "a prime is padded"
    assert balanced_modes(33_278, 3) == (30, 30, 37)
    assert balanced_modes(7, 2) == (1, 7), "padding 7 would cost more than 5 %"


def test_balanced_modes_of_large_tables_are_quick() -> None:
    """A table of 10 million rows; 1 s leaves room for a busy machine, the search itself takes a few hundredths."""
    balanced_modes.cache_clear()
    start = time.perf_counter()
    balanced_modes(9_999_991, 4)
    assert time.perf_counter() - start < 1


def test_make_fold() -> None:
    fold = make_fold([("o", 24), ("i", 10), ("k", 3), ("k", 1)], 2, in_modes=(2, 5))
    assert fold.shape == (24, 10, 3, 1)
    assert fold.sizes == {"o1": 4, "o2": 6, "i1": 2, "i2": 5, "k1": 3, "k2": 1}
    assert fold.modes == ("o1", "o2", "i1", "i2", "k1", "k2")
    assert (fold.role("o"), fold.role("k"), fold.role("g")) == (("o1", "o2"), ("k1", "k2"), ())
    assert fold.legs == (("o1",), ("o2",), ("k1", "k2"), ("i1",), ("i2",))
    assert fold.pairs == (("o1", "i1"), ("o2", "i2"), ("k1", "k2"))
    assert fold.axis("i").modes == (2, 5) and fold.groups == 1


def test_given_modes_set_the_number_of_the_others() -> None:
    """Three input modes ask for three output modes, also of a format that would use one."""
    assert len(make_fold([("o", 24), ("i", 30)], 1, in_modes=(2, 3, 5)).role("o")) == 3


def test_groups_lead_the_modes() -> None:
    fold = make_fold([("o", 12), ("i", 5), ("k", 3)], 1, groups=3)
    assert fold.groups == 3
    assert fold.sizes == {"g": 3, "o1": 4, "i1": 5, "k1": 3}
    transposed = make_fold([("i", 12), ("o", 5), ("k", 3)], 1, groups=3, grouped_role="i")
    assert transposed.sizes == {"g": 3, "i1": 4, "o1": 5, "k1": 3}


@given(st.data())
def test_fold_and_unfold(data: st.DataObject) -> None:
    """Unfolding a folded weight gives it back, padding being zero, also with groups."""
    groups = data.draw(st.integers(1, 3))
    axes = []
    for role in data.draw(st.sampled_from(["oi", "io", "oik", "iokk"])):
        modes = (2,) if role == "k" else tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
        split = groups if not axes else 1
        size = math.prod(modes) if role == "k" else data.draw(st.integers(1, math.prod(modes)))
        axes.append(Axis(role, split * size, modes, split))
    fold = Fold(tuple(axes))
    dense = torch.randn(fold.shape)
    tensor = fold.fold(dense)
    assert tuple(tensor.shape) == tuple(fold.sizes.values())
    assert_close(fold.unfold(tensor), dense, rtol=0, atol=0)
    assert_close(tensor.square().sum(), dense.square().sum())


def test_fold_places_values() -> None:
    """The first mode is the slowest; the padding of an axis stands at its end, in every group."""
    fold = Fold((Axis("o", 4, (3,), groups=2), Axis("i", 2, (2,))))
    tensor = fold.fold(torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]]))
    assert tensor.tolist() == [[[1, 2], [3, 4], [0, 0]], [[5, 6], [7, 8], [0, 0]]]
    split = Fold((Axis("o", 4, (2, 2)), Axis("i", 1, (1,))))
    assert split.fold(torch.tensor([[1.0], [2], [3], [4]])).flatten(2).tolist() == [[[1], [2]], [[3], [4]]]


def test_the_gates_are_a_mode_of_their_own() -> None:
    """They stand on the factor of one pair, by default the one with the largest input for its output; the axis holds gate after gate."""
    fold = make_fold([("o", 4 * 24), ("i", 90)], 2, out_modes=(4, 6), in_modes=(5, 18), gates=4)
    assert fold.gate == 1 and fold.axis("o").modes == (4, 4, 6)
    assert fold.sizes == {"o1": 4, "o2": 4, "o3": 6, "i1": 5, "i2": 18}
    assert fold.pairs == (("o2", "i1"), ("o1", "o3", "i2"))
    assert fold.legs == (("o2",), ("o1", "o3"), ("i1",), ("i2",))
    first = make_fold([("o", 4 * 24), ("i", 90)], 2, out_modes=(4, 6), in_modes=(5, 18), gates=4, gate_mode=0)
    assert first.pairs == (("o1", "o2", "i1"), ("o3", "i2"))
    dense = torch.randn(96, 90)
    tensor = fold.fold(dense)
    assert_close(fold.unfold(tensor), dense, rtol=0, atol=0)
    assert_close(tensor[2], make_fold([("o", 24), ("i", 90)], 2, out_modes=(4, 6), in_modes=(5, 18)).fold(dense[48:72]), rtol=0, atol=0)


def test_gates_without_modes_that_are_given() -> None:
    fold = make_fold([("o", 3 * 20), ("i", 30)], 2, gates=3)
    assert fold.axis("o").modes == (3, 4, 5) and fold.axis("i").modes == (5, 6)
    assert fold.gate == 0, "of pairs that are alike the first one"
    assert make_fold([("o", 60), ("i", 30)], 2, gates=1) == make_fold([("o", 60), ("i", 30)], 2)
    uneven = make_fold([("o", 60), ("i", 30)], 1, in_modes=(30,), out_modes=(4, 5), gates=3)
    assert uneven.gate == 0 and uneven.legs == (("o1", "o2"), ("o3",), ("i1",))


def test_modes_that_hold_the_gates_already() -> None:
    """The packing of the field, in which the gate multiplies the first output mode."""
    packed = make_fold([("o", 4 * 24), ("i", 90)], 2, out_modes=(16, 6), in_modes=(5, 18), gates=4)
    assert packed.gate is None and packed.sizes == {"o1": 16, "o2": 6, "i1": 5, "i2": 18}


def test_inner_modes() -> None:
    """Every mode that it divides is two, others are (n, 1); the kernel's are left alone, and names count on."""
    fold = Fold((Axis("o", 12, (4, 3)), Axis("i", 10, (10,)), Axis("k", 4, (4,))), inner=2)
    assert fold.sizes == {"o1": 2, "o2": 2, "o3": 3, "o4": 1, "i1": 5, "i2": 2, "k1": 4}
    assert fold.legs == (("o1", "o2"), ("o3", "o4"), ("k1",), ("i1", "i2"))
    with pytest.raises(ValueError, match="as many output modes as input modes, but there are 2 and 1"):
        _ = fold.pairs
    even = Fold((Axis("o", 12, (4, 3)), Axis("i", 10, (10, 1))), inner=2)
    assert even.pairs == (("o1", "o2", "i1", "i2"), ("o3", "o4", "i3", "i4"))
    dense = torch.randn(12, 10, 4)
    assert_close(fold.unfold(fold.fold(dense)), dense, rtol=0, atol=0)


def test_plain_folds_have_the_same_modes_without_hints() -> None:
    axes = (Axis("o", 24, (4, 3, 2), 1), Axis("i", 12, (4, 3)))
    for fold in (Fold(axes), Fold(axes, gate=1), Fold(axes, inner=3), Fold(axes, gate=0, inner=2)):
        plain = fold.plain
        assert (plain.gate, plain.inner) == (None, 1)
        assert plain.sizes == fold.sizes and plain.shape == fold.shape and plain.groups == fold.groups
        dense = torch.randn(24, 12)
        assert_close(plain.fold(dense), fold.fold(dense), rtol=0, atol=0)
    assert Fold(axes).plain == Fold(axes)
    grouped = Fold((Axis("o", 12, (3, 2), groups=2), Axis("i", 4, (4,)), Axis("k", 3, (3,))), inner=2)
    assert grouped.plain.sizes == grouped.sizes and grouped.plain.axis("o") == Axis("o", 12, (3, 1, 1, 2), 2)


def test_gates_and_inner_modes_together() -> None:
    fold = Fold((Axis("o", 24, (4, 3, 2)), Axis("i", 12, (4, 3))), gate=0, inner=2)
    assert fold.sizes == {"o1": 2, "o2": 2, "o3": 3, "o4": 1, "o5": 1, "o6": 2, "i1": 2, "i2": 2, "i3": 3, "i4": 1}
    assert fold.pairs == (("o1", "o2", "o3", "o4", "i1", "i2"), ("o5", "o6", "i3", "i4"))


def test_errors_of_gates() -> None:
    with pytest.raises(ValueError, match=r"4 gates do not divide the output axis of size 90; choose an axis of gates x hidden features"):
        make_fold([("o", 90), ("i", 12)], 2, gates=4)
    with pytest.raises(
        ValueError,
        match=r"the modes \(16, 6\) of the output hold all 4 gates, but gate_mode=1 asks for a mode of their own; give modes whose product is 24",
    ):
        make_fold([("o", 96), ("i", 12)], 2, out_modes=(16, 6), in_modes=(4, 3), gates=4, gate_mode=1)
    for number in (2, -1):
        with pytest.raises(ValueError, match=rf"gate_mode={number} names no output mode of \(4, 6\); give a number from 0 to 1"):
            make_fold([("o", 96), ("i", 12)], 2, out_modes=(4, 6), in_modes=(4, 3), gates=4, gate_mode=number)
    with pytest.raises(ValueError, match=r"the modes \(4, 5\) of the o axis have the product 20, which does not fit its size 24"):
        make_fold([("o", 96), ("i", 12)], 2, out_modes=(4, 5), in_modes=(4, 3), gates=4)


def test_errors() -> None:
    with pytest.raises(
        ValueError, match=r"the modes \(3, 3\) of the i axis have the product 9, which does not fit its size 10; choose modes"
    ):
        Axis("i", 10, (3, 3))
    with pytest.raises(ValueError, match=r"the o axis of size 6 has the modes \(0,\) in 1 groups; sizes must be at least 1"):
        Axis("o", 6, (0,))
    with pytest.raises(ValueError, match=r"the o axis of size 7 has the modes \(4,\) in 2 groups; .* groups must divide the axis"):
        Axis("o", 7, (4,), groups=2)
    with pytest.raises(ValueError, match=r"4 groups do not divide the o axis of size 6; choose groups that divide it"):
        make_fold([("o", 6), ("i", 2)], 1, groups=4)
    with pytest.raises(ValueError, match=r"the i axis of size 4 has the modes \(\) in 1 groups; sizes must be at least 1"):
        make_fold([("o", 6), ("i", 4)], 2, in_modes=())
    for size in (0, -3, 12.0, "12"):
        with pytest.raises(
            ValueError, match=rf"the i axis has the size {size!r}; a whole number, 1 at least, is needed: check the layer's sizes"
        ):
            make_fold([("o", 6), ("i", size)], 2)  # type: ignore[list-item]
    for modes in (4, (2.5, 2), ("2", "2"), "22"):
        with pytest.raises(
            TypeError, match=r"out_modes is .*2.*|out_modes is 4; a tuple of whole numbers is needed: give the sizes of the"
        ):
            make_fold([("o", 4), ("i", 4)], 2, out_modes=modes)  # type: ignore[arg-type]
    fold = make_fold([("o", 6), ("i", 4)], 1, out_modes=(2, 3), in_modes=(4,))
    with pytest.raises(
        ValueError, match=r"as many output modes as input modes, but there are 2 and 1; pad the shorter list with modes of size 1"
    ):
        _ = fold.pairs
    with pytest.raises(ValueError, match=r"the weight has shape \(4, 6\), but this fold is for \(6, 4\); make a fold for its shape"):
        fold.fold(torch.zeros(4, 6))
