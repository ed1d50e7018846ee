"""Start values: what `dense()` is like after each of them."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

import tenfold
from tenfold.fold import make_fold
from tenfold.weight import FactorizedWeight


def weight_of(format: tenfold.Format, out: int = 24, inp: int = 24, out_modes=(4, 6), in_modes=(6, 4), **options: int) -> FactorizedWeight:
    fold = make_fold([("o", out), ("i", inp)], 2, in_modes=in_modes, out_modes=out_modes, **options)
    weight = FactorizedWeight(format.network(fold), fold, dtype=torch.float64)
    weight.init_normal_(1.0)
    return weight


def test_one_term_is_an_orthogonal_matrix() -> None:
    dense = tenfold.init.orthogonal_(weight_of(tenfold.KCP(rank=1), in_modes=(4, 6))).dense()
    assert_close(dense @ dense.T, torch.eye(24, dtype=torch.float64))


def test_a_wide_or_tall_term_is_semi_orthogonal() -> None:
    for out, inp, out_modes, in_modes in ((8, 24, (2, 4), (4, 6)), (24, 8, (4, 6), (2, 4))):
        values = torch.linalg.svdvals(tenfold.init.orthogonal_(weight_of(tenfold.KCP(rank=1), out, inp, out_modes, in_modes)).dense())
        assert_close(values, values[:1].expand_as(values))


SUMS = [tenfold.KCP(rank=1), tenfold.KCP(rank=5), tenfold.KT(rank=3)]
TREES = [tenfold.SVD(rank=7), tenfold.Tucker(rank=5), tenfold.TT(rank=3), tenfold.TTM(rank=6), tenfold.HT(rank=3), tenfold.TTM(rank=1)]


@pytest.mark.parametrize("format", [*SUMS, *TREES], ids=repr)
def test_the_standard_deviation_is_that_asked_for(format: tenfold.Format) -> None:
    """Root mean square over 300 starts within 3 %: terms are independent, so its standard error is below 1 %."""
    weight = weight_of(format)
    generator = torch.Generator().manual_seed(0)
    squares = [tenfold.init.orthogonal_(weight, 0.3, generator=generator).dense().detach().square().mean() for _ in range(300)]
    assert float(torch.stack(squares).mean().sqrt()) == pytest.approx(0.3, rel=0.03)


def test_every_gate_is_orthogonal() -> None:
    weight = weight_of(tenfold.KCP(rank=1), 4 * 24, 24, (4, 6), (4, 6), gates=4)
    for gate in tenfold.init.orthogonal_(weight, gates=4).dense().chunk(4):
        assert_close(gate @ gate.T, torch.eye(24, dtype=torch.float64))


def test_groups_are_orthogonal_each() -> None:
    layer = tenfold.nn.Conv1d(16, 16, 1, groups=2, format=tenfold.KCP(rank=1), in_modes=(2, 4), out_modes=(2, 4), dtype=torch.float64)
    for group in tenfold.init.orthogonal_(layer.factorized).dense()[..., 0].chunk(2):
        assert_close(group @ group.T, torch.eye(8, dtype=torch.float64))


def test_the_bases_of_tucker_are_orthonormal_in_every_group() -> None:
    layer = tenfold.nn.Conv2d(16, 24, 3, groups=2, format=tenfold.Tucker(rank=(7, 5)), dtype=torch.float64)
    weight = tenfold.init.orthogonal_(layer.factorized)
    bases = [(f, i) for f, i in zip(weight.factors, weight.network.factors, strict=True) if len(i) == 3]
    assert len(bases) == 2
    for factor, indices in bases:
        rank = next(i for i in indices if i in weight.network.ranks)
        for group in factor.detach().movedim(indices.index("g"), 0):
            matrix = group if [i for i in indices if i != "g"].index(rank) == 1 else group.T
            assert_close(matrix.T @ matrix, torch.eye(matrix.shape[1], dtype=torch.float64))


def test_the_smaller_factor_of_svd_is_orthonormal() -> None:
    weight = tenfold.init.orthogonal_(weight_of(tenfold.SVD(rank=5), 24, 36, (24,), (36,)))
    basis = weight.factors[0].detach()
    assert_close(basis.T @ basis, torch.eye(5, dtype=torch.float64))


def test_full_ranks_start_as_spread_as_a_dense_weight() -> None:
    """The condition number of a square normal matrix of size 24 is about 60 at its median; that of normal Tucker factors is not."""
    weight, generator = weight_of(tenfold.Tucker(rank=24), out_modes=(24,), in_modes=(24,)), torch.Generator().manual_seed(0)

    def median(start: Callable[..., FactorizedWeight]) -> float:
        conditions = [torch.linalg.cond(start(weight, 1.0, generator=generator).dense().detach()) for _ in range(51)]
        return float(torch.stack(conditions).median())

    assert median(tenfold.init.orthogonal_) < 150 < 1000 < median(tenfold.init.normal_)


def test_networks_with_loops_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"an orthogonal start is asked for 'r1 .*needs a tree network.*choose one of these formats, or the"
    ):
        tenfold.init.orthogonal_(weight_of(tenfold.TR(rank=2)))


@pytest.mark.parametrize("start", [tenfold.init.orthogonal_, tenfold.init.normal_])
@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf])
def test_bad_standard_deviations(start: Callable[..., FactorizedWeight], std: float) -> None:
    with pytest.raises(ValueError, match=rf"the standard deviation is {std}; a finite number of at least 0 is needed: give the one"):
        start(weight_of(tenfold.KCP(rank=2)), std)


@pytest.mark.parametrize("format", [tenfold.KCP(rank=3), tenfold.CP(rank=3), tenfold.TTM(rank=2), tenfold.KT(rank=2)], ids=repr)
def test_balance_keeps_the_weight_and_makes_factors_equal(format: tenfold.Format) -> None:
    weight = weight_of(format)
    with torch.no_grad():
        weight.factors[0].mul_(100)
    before = weight.dense().detach()
    tenfold.init.balance_(weight)
    assert_close(weight.dense().detach(), before)
    axes = [axis for _, axis in weight.network.carriers("r")] if "r" in weight.network.ranks else None
    for number, factor in enumerate(weight.factors):
        first = weight.factors[0]
        sizes = factor.square().mean() if axes is None else factor.movedim(axes[number], 0).flatten(1).square().mean(1)
        wanted = first.square().mean() if axes is None else first.movedim(axes[0], 0).flatten(1).square().mean(1)
        assert_close(sizes, wanted)


def test_balance_leaves_an_empty_slice_alone() -> None:
    weight = weight_of(tenfold.KCP(rank=3))
    with torch.no_grad():
        weight.factors[0][1] = 0
    before = weight.dense().detach()
    assert_close(tenfold.init.balance_(weight).dense().detach(), before)
    assert all(bool(torch.isfinite(factor).all()) for factor in weight.factors)


def test_normal_is_exact_for_unequal_ranks() -> None:
    weight = weight_of(tenfold.TTM(rank=(2,)), 24, 24, (4, 6), (6, 4))
    generator = torch.Generator().manual_seed(1)
    squares = [tenfold.init.normal_(weight, 0.5, generator=generator).dense().detach().square().mean() for _ in range(400)]
    assert math.sqrt(float(torch.stack(squares).mean())) == pytest.approx(0.5, rel=0.05)
