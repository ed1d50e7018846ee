"""Priors: which ranks govern which factors, and the closed-form updates of the variances."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from tenfold.bayes.priors import Gamma, HalfCauchy, LogUniform, Prior
from tenfold.bayes.variances import FLOOR, RELATIVE_FLOOR, RankVariances
from tenfold.bayes.warmup import Warmup, as_warmup
from tenfold.fold import make_fold
from tenfold.formats import BT, CP, HT, TR, TT, Tucker, all_formats
from tenfold.network import Network

FOLD = make_fold([("o", 24), ("i", 36)], 3, out_modes=(2, 3, 4), in_modes=(3, 3, 4))
KERNEL = make_fold([("o", 12), ("i", 6), ("k", 3), ("k", 3)], 2)


@pytest.mark.parametrize("name", sorted(all_formats()))
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_every_rank_of_every_format_is_governed(name: str, is_symmetric: bool) -> None:
    kind = all_formats()[name]
    for fold in (FOLD, KERNEL):
        network = kind(rank=2).network(kind().fold(fold))
        governing = Prior(is_symmetric=is_symmetric).governing_ranks(network)
        assert {rank for one in governing for rank in one} == set(network.ranks)
        assert all(set(one) <= set(indices) for one, indices in zip(governing, network.factors, strict=True))


def test_published_groups() -> None:
    prior = Prior(is_symmetric=False)
    pairs = make_fold([("o", 6), ("i", 12)], 2, out_modes=(2, 3), in_modes=(3, 4))
    assert prior.governing_ranks(CP(rank=2).network(pairs)) == (("r",),) * 4
    assert prior.governing_ranks(TT(rank=2).network(pairs)) == (("r1",), ("r2",), ("r3",), ("r3",))
    assert prior.governing_ranks(TR(rank=2).network(pairs)) == (("r2",), ("r3",), ("r4",), ("r1",))
    assert prior.governing_ranks(Tucker(rank=2).network(pairs)) == (("r1",), ("r2",), (), ("r3",), ("r4",))
    assert prior.governing_ranks(Tucker(rank=2).network(make_fold([("o", 6), ("i", 4), ("k", 3)], 1))) == (("r1",), (), ("r2",))
    assert prior.governing_ranks(BT(rank=2).network(pairs)) == (("r1",), ("r2",), ("b",))
    assert prior.governing_ranks(HT(rank=2).network(FOLD)) == (("r1",), ("r2",), ("r3",), ("r1_2",), ())


@pytest.mark.parametrize("prior", [LogUniform(), HalfCauchy(0.1), Gamma()])
def test_updates_never_raise_the_objective(prior: LogUniform | HalfCauchy | Gamma) -> None:
    network = TT(rank=3).network(FOLD)
    means = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    logs = [torch.full_like(mean, -3.0) for mean in means]
    variances = RankVariances(network, Prior(prior))
    values = []
    for _ in range(6):
        values.append(float(variances.divergence(means, logs) + variances.cost()))
        variances.update(means, [one.exp() for one in logs])
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(values))
    assert values[-1] < values[0] - 1


def test_damping_goes_part_of_the_way() -> None:
    network = Network.parse("o r, r i -> o i", {"o": 4, "i": 6, "r": 2})
    means = [torch.randn(4, 2), torch.randn(2, 6)]
    full, half = RankVariances(network, Prior()), RankVariances(network, Prior())
    full.update(means)
    half.update(means, damping=0.5)
    assert_close(half.values["r"], (1 + full.values["r"]) / 2)


def test_variances_have_a_floor() -> None:
    network = Network.parse("o r, r i -> o i", {"o": 4, "i": 6, "r": 2})
    variances = RankVariances(network, Prior())
    variances.update([torch.tensor([[1.0, 0.0]] * 4), torch.tensor([[1.0] * 6, [0.0] * 6])])
    assert float(variances.values["r"][1]) == pytest.approx(RELATIVE_FLOOR * float(variances.values["r"][0]))
    variances.update([torch.zeros(4, 2), torch.zeros(2, 6)])
    assert variances.values["r"].tolist() == [FLOOR, FLOOR]
    assert torch.isfinite(variances.divergence([torch.ones(4, 2), torch.ones(2, 6)]))


def test_divergence_of_factors_that_no_rank_governs() -> None:
    network = Tucker(rank=2).network(FOLD)
    means = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    logs = [torch.full_like(mean, -3.0) for mean in means]
    variances = RankVariances(network, Prior(is_symmetric=False))
    variances.update(means, [one.exp() for one in logs])
    q = [torch.distributions.Normal(mean, (one / 2).exp()) for mean, one in zip(means, logs, strict=True)]
    p = [torch.distributions.Normal(0.0, variances.precision(number).rsqrt()) for number in range(len(means))]
    expected = sum(torch.distributions.kl_divergence(one, other).sum() for one, other in zip(q, p, strict=True))
    assert float(variances.divergence(means, logs)) == pytest.approx(float(expected), rel=1e-12)
    assert variances.prior.governing_ranks(network)[3] == ()
    assert float(variances.precision(3)) == pytest.approx(0.01, rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_divergence_in_half_precision(dtype: torch.dtype) -> None:
    """A slice that is gone has a precision beyond float16."""
    network = Network.parse("o r, r i -> o i", {"o": 4, "i": 6, "r": 2})
    means = [torch.tensor([[1.0, 1e-4]] * 4, dtype=dtype), torch.tensor([[1.0] * 6, [1e-4] * 6], dtype=dtype)]
    logs = [torch.full_like(mean, -18.0) for mean in means]
    variances = RankVariances(network, Prior())
    variances.update(means, [one.exp() for one in logs])
    wide = variances.divergence([mean.double() for mean in means], [one.double() for one in logs])
    assert float(variances.divergence(means, logs)) == pytest.approx(float(wide), rel=1e-6)


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"HalfCauchy got scale=0; it needs a finite number above 0: give one like 0.1"):
        HalfCauchy(0)
    with pytest.raises(ValueError, match="Gamma got rate=-1.0; it needs a finite number above 0"):
        Gamma(1.0, -1.0)
    with pytest.raises(ValueError, match="Prior got core_variance=inf; it needs a finite number above 0"):
        Prior(core_variance=float("inf"))
    with pytest.raises(
        ValueError, match=r"Warmup got start=5, end=3; it needs 0 <= start <= end < inf, in steps: give one like \(500, 3000\)"
    ):
        as_warmup((5, 3))


def test_warmup_is_a_line_in_steps() -> None:
    assert [Warmup(10, 30).factor(step) for step in (0, 10, 20, 30, 99)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert Warmup().factor(0) == 1.0


def test_warmup_may_be_a_jump() -> None:
    assert [Warmup(10, 10).factor(step) for step in (0, 9, 10, 99)] == [0.0, 0.0, 1.0, 1.0]
