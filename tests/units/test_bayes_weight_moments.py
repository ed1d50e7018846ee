"""Moments of the weight: exact for every format, against draws of the factors."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tenfold.bayes.weight_moments import relative_spread, row_moments, sampled_rows, tensor_moments, weight_moments
from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.formats import KT, TT, TTM, all_formats
from tenfold.network import Network
from tenfold.solvers.quadratic import assemble

TABLE = make_fold([("i", 11), ("o", 8)], 2, out_modes=(2, 4), in_modes=(3, 4))
FORMATS = [kind(rank=2) for kind in all_formats().values()]


def entries(format: Format, fold: Fold) -> tuple[Network, Fold, list[Tensor], list[Tensor]]:
    fold = format.fold(fold)
    network = format.network(fold)
    return (
        network,
        fold,
        [torch.randn(shape, dtype=torch.float64) for shape in network.shapes],
        [torch.rand(shape, dtype=torch.float64) for shape in network.shapes],
    )


@pytest.mark.parametrize("format", FORMATS, ids=lambda one: type(one).__name__)
def test_moments_of_every_format(format: Format) -> None:
    """Against 10,000 draws: the sum of the variances within 6 %, their heavy-tailed spread being about 2 %."""
    network, fold, means, variances = entries(format, TABLE)
    mean, variance = tensor_moments(network, means, variances)
    draws = [one + two.sqrt() * torch.randn(10_000, *one.shape, dtype=torch.float64) for one, two in zip(means, variances, strict=True)]
    tensors = assemble(network, draws)
    assert_close(tensors.var(0).sum(), variance.sum(), rtol=0.06, atol=0)
    assert_close(assemble(network, [one[None] for one in means])[0], mean)
    weight_mean, weight_variance = weight_moments(network, fold, means, variances)
    assert weight_mean.shape == weight_variance.shape == (11, 8)
    ids = torch.tensor([[0, 10], [3, 3]])
    row_mean, row_variance = row_moments(network, fold, means, variances, ids)
    assert_close(row_mean, weight_mean[ids])
    assert_close(row_variance, weight_variance[ids])


def test_terms_of_a_sum_are_independent() -> None:
    fold = make_fold([("o", 8), ("i", 12)], 3, out_modes=(2, 2, 2), in_modes=(2, 3, 2))
    network, _, means, variances = entries(KT(rank=(2, 2), groups=((2, 1), (1, 2))), fold)
    parts = [tensor_moments(term, means[part], variances[part]) for term, part in zip(network.terms, network.term_slices, strict=True)]
    mean, variance = tensor_moments(network, means, variances)
    assert_close(mean, parts[0][0] + parts[1][0])
    assert_close(variance, parts[0][1] + parts[1][1])


def test_sampled_rows_have_the_moments_and_a_gradient() -> None:
    network, fold, means, variances = entries(TTM(rank=2), TABLE)
    mean, variance = row_moments(network, fold, means, variances, torch.tensor([5]))
    rows = sampled_rows(network, fold, means, variances, torch.full((20_000,), 5), torch.Generator().manual_seed(1))
    assert_close(rows.mean(0), mean[0], rtol=0, atol=5 * math.sqrt(float(variance.max()) / 20_000))
    assert_close(rows.var(0), variance[0], rtol=0.06, atol=0)
    spread = [one.requires_grad_() for one in variances]
    sampled_rows(network, fold, means, spread, torch.tensor([1, 2]), torch.Generator().manual_seed(1)).sum().backward()
    assert all(one.grad is not None and bool(one.grad.isfinite().all()) for one in spread)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("format", FORMATS, ids=lambda one: type(one).__name__)
def test_small_variances_are_exact_in_any_precision(format: Format, dtype: torch.dtype) -> None:
    """Deviations of 1e-4 of the entries, as data of many million examples leave: squares of weights hide them in float32."""
    network, fold, means, variances = entries(format, TABLE)
    means, variances = [one.to(dtype) for one in means], [(1e-8 * one).to(dtype) for one in variances]
    _, exact = row_moments(network, fold, [one.double() for one in means], [one.double() for one in variances], torch.arange(11))
    _, variance = row_moments(network, fold, means, variances, torch.arange(11))
    assert variance.dtype == dtype
    assert_close(variance.double(), exact, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)


@pytest.mark.parametrize("format", FORMATS, ids=lambda one: type(one).__name__)
def test_relative_spread_is_exact_to_leading_order(format: Format) -> None:
    """Variances of 1e-6 of the mean squares: what is left out is of that order, relative."""
    network, _, means, variances = entries(format, TABLE)
    small = [1e-6 * one for one in variances]
    mean, variance = tensor_moments(network, means, small)
    exact = float(variance.sum().sqrt() / mean.norm())
    assert relative_spread(network, means, small) == pytest.approx(exact, rel=1e-4)


def test_relative_spread_of_nothing_is_infinite() -> None:
    network, _, means, variances = entries(TT(rank=2), TABLE)
    assert relative_spread(network, [torch.zeros_like(one) for one in means], variances) == math.inf
