"""EVBMF: planted ranks come out of noise, the formulas agree with a direct search of the free energy, and plans never have rank 0."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import CP, SVD, Tucker, plan
from tenfold.ranks.evbmf import _tau, evbmf, evbmf_plan, weakened_ranks
from tenfold.selection import Choice
from tenfold.survey import survey


def planted(rows: int, columns: int, rank: int, noise: float, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    u, v, e = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((rows, rank), (rank, columns), (rows, columns)))
    return u @ v + noise * e


@pytest.mark.parametrize(
    ("rows", "columns", "rank", "noise"), [(60, 200, 5, 0.5), (200, 60, 5, 0.5), (64, 576, 10, 1.0), (100, 100, 8, 0.7)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_planted_rank_and_the_noise_are_found(rows: int, columns: int, rank: int, noise: float, seed: int):
    found = evbmf(planted(rows, columns, rank, noise, seed))
    assert found.rank == rank
    assert abs(found.noise_variance / noise**2 - 1) < 4 * math.sqrt(2 / (rows * columns)) + 0.03  # shrinking moves a little to the noise


def test_pure_noise_has_rank_0_and_a_matrix_without_noise_its_own():
    assert evbmf(planted(40, 150, 1, 1.0, 3) - planted(40, 150, 1, 0.0, 3)).rank == 0
    assert evbmf(planted(20, 50, 3, 0.0, 4)).rank == 3
    assert evbmf(torch.zeros(3, 4)).rank == 0


def test_the_rank_does_not_depend_on_the_scale_and_noise_scales_with_it():
    small, large = (evbmf(c * planted(50, 80, 4, 0.6, 5)) for c in (1e-4, 1e4))
    assert small.rank == large.rank == 4
    torch.testing.assert_close(large.noise_variance / small.noise_variance, 1e16, rtol=1e-6, atol=0)


def test_the_threshold_constant_is_the_published_approximation():
    assert abs(_tau(1.0) - 2.5129) < 1e-4
    for alpha in (0.9, 0.5, 0.3):
        assert abs(_tau(alpha) / (2.5129 * math.sqrt(alpha)) - 1) < 0.012  # it is one: within about a per cent


def test_a_kept_singular_value_minimises_the_free_energy_of_one_component():
    """One component of a diagonal matrix: the variational free energy, minimised over (a, b, variances) by brute force, against the formula.

    Source: the one-component free energy of Nakajima et al. 2013, with empirical priors c_a c_b eliminated by their optimum.
    """
    n_rows, n_columns, s2 = 20, 50, 1.0
    value = 14.0
    found = evbmf(torch.diag(torch.tensor([value] + [0.0] * (n_rows - 1), dtype=torch.float64)) @ torch.eye(n_rows, n_columns, dtype=torch.float64),
                  noise_variance=s2)  # fmt: skip
    x = torch.zeros(4, dtype=torch.float64)  # log of mean a = mean b, of variances a, b, and of the ratio of the means
    x[0] = 0.5 * math.log(value)
    x.requires_grad_(True)
    optimizer = torch.optim.LBFGS([x], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-14)

    def energy() -> Tensor:
        a2, b2 = (x[0] + x[3]).exp() ** 2, (x[0] - x[3]).exp() ** 2
        va, vb = x[1].exp(), x[2].exp()
        ca, cb = (a2 + n_columns * va) / n_columns, (b2 + n_rows * vb) / n_rows  # the best priors
        fit = (value**2 - 2 * value * (a2 * b2).sqrt() + (a2 + n_columns * va) * (b2 + n_rows * vb)) / s2
        return fit + n_columns * (ca / va).log() + n_rows * (cb / vb).log()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = energy()
        loss.backward()
        return loss

    for _ in range(20):
        optimizer.step(closure)
    mean = float((2 * x[0]).detach().exp())
    assert found.rank == 1
    torch.testing.assert_close(float(found.singular_values[0]), mean, rtol=1e-5, atol=0)


class Planted(nn.Module):
    """A convolution of planted Tucker-2 ranks (6, 3), one of pure noise, and a linear layer of rank 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.noise, self.linear = nn.Conv2d(24, 32, 3), nn.Conv2d(32, 32, 3), nn.Linear(64, 48)
        g = torch.Generator().manual_seed(0)
        core, u, v = torch.randn(6, 3, 9, generator=g), torch.randn(32, 6, generator=g), torch.randn(24, 3, generator=g)
        weight = torch.einsum("abk,oa,ib->oik", core, u, v).reshape(32, 24, 3, 3)
        with torch.no_grad():
            self.conv.weight.copy_(weight + 0.3 * torch.randn(weight.shape, generator=g))
            self.noise.weight.copy_(torch.randn(32, 32, 3, 3, generator=g))
            self.linear.weight.copy_(planted(48, 64, 4, 0.2, 7))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.noise(self.conv(x)).flatten(1)[:, :64])


def test_plans_have_the_ranks_found_and_never_0():
    made = {one.name: one for one in evbmf_plan(Planted(), inputs=torch.zeros(2, 24, 6, 6)).layers}
    assert made["conv"].format == Tucker(rank=(6, 3))
    assert made["noise"].format == Tucker(rank=(1, 1))
    assert made["linear"].format == SVD(rank=4)
    assert {one.name: one.format for one in evbmf_plan(Planted(), SVD()).layers}["linear"] == SVD(rank=4)


def test_where_no_layer_gets_smaller_all_stay_dense_with_a_reason():
    x = torch.zeros(2, 24, 6, 6)
    made = evbmf_plan(Planted(), weakening=0.0, inputs=x, filter=["conv", "noise"])
    dense = "with the ranks that EVBMF finds it has as many values or more"
    assert [(one.format, one.reason) for one in made.layers] == [(None, dense), (None, dense), (None, "left out by the filter")]
    assert made.params_after == made.params_before > 0 and made.flops_after == made.flops_before
    assert made.flops_before == plan(Planted(), SVD(rank=1), inputs=x).flops_before
    mixed = evbmf_plan(Planted(), weakening=0.3, filter=["conv", "linear"])
    assert [(one.format is None, one.reason) for one in mixed.layers] == [(False, ""), (True, "left out by the filter"), (True, dense)]


def test_weakened_ranks_lie_between_all_and_those_found():
    one = next(found for found in survey(Planted()) if found.name == "conv")
    fold = Choice(Tucker()).fold(one)
    assert [weakened_ranks(Tucker(), fold, one.weight, w) for w in (0.0, 0.5, 1.0)] == [(32, 24), (19, 14), (6, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": CP()}, "evbmf_plan got cp; it finds the ranks of SVD.. and of Tucker.., .*: give one of them"),
        ({"format": SVD(rank=3)}, "evbmf_plan got svd:rank=3; it finds the ranks"),
        ({"weakening": 1.5}, r"weakening is 1.5; it needs 0 .* to 1 .*: give one in between"),
    ],
)
def test_plans_of_other_kinds_are_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        evbmf_plan(Planted(), **arguments)


@pytest.mark.parametrize(
    ("matrix", "noise", "message"),
    [
        (torch.zeros(3), None, r"evbmf got a tensor of shape \(3,\); a matrix with values is needed: unfold it"),
        (torch.full((2, 2), math.nan), None, "values that are NaN or infinite; finite ones are needed"),
        (torch.ones(2, 2), 0.0, "the noise variance is 0.0; a number above 0 is needed"),
    ],
)
def test_matrices_that_are_none_are_refused(matrix: Tensor, noise: float | None, message: str):
    with pytest.raises(ValueError, match=message):
        evbmf(matrix, noise_variance=noise)
