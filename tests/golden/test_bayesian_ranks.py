"""Numbers that a faithful implementation of arXiv 2010.08689 reproduces: divergence, updates, spreads, counts.

The counts are those of the five embedding tables in the released scripts (Criteo Kaggle): 200 x 220 x 250 rows and so on, 128 columns.
"""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tenfold.bayes import attach
from tenfold.bayes.guards import RanksWarning
from tenfold.bayes.priors import Gamma, HalfCauchy, Hyperprior, LogUniform, Prior
from tenfold.bayes.variances import RankVariances
from tenfold.bayes.weight_moments import tensor_moments
from tenfold.fold import make_fold
from tenfold.format import Format
from tenfold.formats import CP, TT, TTM, Tucker
from tenfold.network import Network
from tenfold.nn import Embedding, Linear
from tenfold.solvers.quadratic import assemble
from tenfold.weight import FactorizedWeight

ROWS = {2: (200, 220, 250), 3: (125, 130, 136), 11: (200, 200, 209), 15: (166, 175, 188), 20: (200, 200, 200)}
VOCABULARY = {2: 10_131_227, 3: 2_202_608, 11: 8_351_593, 15: 5_461_306, 20: 7_046_547}
DENSE = 4_248_739_968


def count(format: Format, table: int) -> int:
    """Chains start at the output columns here, so that rows and ranks are given in the opposite order for TT."""
    rows = ROWS[table][::-1] if isinstance(format, TT) else ROWS[table]
    columns = (4, 4, 8) if isinstance(format, TTM) else (128,)
    return format.network(make_fold([("i", VOCABULARY[table]), ("o", 128)], 1, in_modes=rows, out_modes=columns)).numel


def tt(*ranks: int) -> Format:
    return TT(rank=ranks[::-1])


def tucker(*ranks: int) -> Format:
    return Tucker(rank=(ranks[-1], *ranks[:-1]))


def test_the_tables_if_dense() -> None:
    assert sum(VOCABULARY.values()) * 128 == DENSE


@pytest.mark.parametrize(
    ("formats", "weights", "ratio"),
    [
        ([CP(rank=r) for r in (350, 306, 333, 326, 335)], 1_141_597, 3_722),
        ([TTM(rank=16)] * 5, 1_130_048, 3_760),
        ([tt(24, 24, 24)] * 5, 1_135_752, 3_741),
        ([tucker(r, r, r, r) for r in (22, 20, 22, 21, 22)], 1_131_212, 3_756),
        ([CP(rank=r) for r in (163, 171, 161, 175, 153)], 563_839, 7_535),
        ([CP(rank=r) for r in (166, 181, 154, 164, 169)], 570_685, 7_445),
        ([TTM(rank=r) for r in ((16, 4), (16, 1), (16, 2), (16, 2), (16, 1))], 199_504, 21_297),
        ([TTM(rank=r) for r in ((16, 2), (16, 2), (16, 1), (16, 1), (16, 2))], 163_976, 25_911),
        ([tt(*r) for r in ((23, 5, 7), (20, 3, 5), (15, 6, 4), (22, 6, 5), (23, 6, 7))], 153_582, 27_664),
        ([tt(*r) for r in ((21, 5, 2), (22, 4, 4), (23, 6, 5), (23, 7, 9), (22, 4, 7))], 159_529, 26_633),
        ([tucker(*r) for r in ((18, 17, 20, 21), (19,) * 4, (13, 19, 19, 18), (17, 18, 18, 21), (19, 20, 21, 18))], 666_535, 6_374),
    ],
    ids=["CP", "TTM", "TT", "Tucker", "CP-LU", "CP-HC", "TTM-LU", "TTM-HC", "TT-LU", "TT-HC", "Tucker-LU"],
)
def test_weights_of_the_five_tables(formats: list[Format], weights: int, ratio: int) -> None:
    found = sum(count(format, table) for format, table in zip(formats, ROWS, strict=True))
    assert found == weights
    assert round(DENSE / found) == ratio


def test_weights_of_the_mnist_layers() -> None:
    """784 -> 512 and 512 -> 10 at the largest ranks of the scripts, of which some are above the largest useful ones."""

    def layer(format: Any, rank: int, n_in: tuple[int, ...], n_out: tuple[int, ...]) -> int:
        fold = make_fold([("o", math.prod(n_out)), ("i", math.prod(n_in))], 1, in_modes=n_in, out_modes=n_out)
        network = format(rank=1).network(fold)
        return network.resized(dict.fromkeys(network.ranks, rank)).numel

    assert layer(CP, 50, (28, 28), (16, 32)) == 5_200 and layer(CP, 50, (32, 16), (10,)) == 2_900
    assert layer(TTM, 20, (4, 7, 4, 7), (4, 4, 8, 4)) == 24_880 and layer(TTM, 20, (16, 32), (2, 5)) == 3_840
    assert layer(TT, 20, (28, 28), (32, 16)) == 18_800 and layer(TT, 20, (16, 32), (10,)) == 7_240  # inputs last: reversed
    assert layer(Tucker, 20, (28, 28), (16, 32)) == 162_080 and layer(Tucker, 20, (32, 16), (10,)) == 9_160


# -- divergence and updates -------------------------------------------------------------------------------------------

CHAIN = Network.parse("o1 a, a o2 b, b o3 -> o1 o2 o3", {"o1": 3, "o2": 4, "o3": 5, "a": 2, "b": 3})


def entries(network: Network) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return (
        [torch.randn(shape, dtype=torch.float64) for shape in network.shapes],
        [torch.randn(shape, dtype=torch.float64) - 2 for shape in network.shapes],
    )


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_divergence_equals_torchs(is_symmetric: bool) -> None:
    """Relative tolerance 1e-12: the same numbers, summed in another order."""
    means, logs = entries(CHAIN)
    variances = RankVariances(CHAIN, Prior(is_symmetric=is_symmetric))
    variances.fit(means, [one.exp() for one in logs])
    a, b = variances.values["a"], variances.values["b"]
    v = [a, a[:, None, None] * b, b[:, None]] if is_symmetric else [a, b, b[:, None]]
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, (log / 2).exp()), torch.distributions.Normal(0.0, one.sqrt().expand(mean.shape))
        ).sum()
        for mean, log, one in zip(means, logs, v, strict=True)
    )
    assert_close(variances.divergence(means, logs), expected, rtol=1e-12, atol=0)
    density = sum(
        torch.distributions.Normal(0.0, one.sqrt().expand(mean.shape)).log_prob(mean).sum() for mean, one in zip(means, v, strict=True)
    )
    assert_close(variances.divergence(means), -density, rtol=1e-12, atol=0)


def test_gradient_of_the_divergence_is_mean_over_variance() -> None:
    means, logs = entries(CHAIN)
    variances = RankVariances(CHAIN, Prior())
    variances.fit(means)
    means = [mean.requires_grad_() for mean in means]
    variances.divergence(means, logs).backward()
    for number, mean in enumerate(means):
        assert_close(mean.grad, mean.detach() * variances.precision(number), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prior", [LogUniform(), HalfCauchy(1.0), HalfCauchy(0.01), Gamma(2.0, 0.1)])
@pytest.mark.parametrize(("energy", "size"), [(3.0, 10.0), (1e-4, 800.0), (50.0, 3.0)])
def test_update_is_the_minimum_on_a_grid(prior: Hyperprior, energy: float, size: float) -> None:
    """The grid has steps of 1e-6 in the logarithm of the variance, so the tolerance is 1e-5."""
    m, d = (torch.tensor(value, dtype=torch.float64) for value in (energy, size))
    found = prior.best(m, d)
    grid = found * torch.linspace(-0.1, 0.1, 200_001, dtype=torch.float64).exp()
    cost = m / (2 * grid) + d / 2 * grid.log() + prior.cost(grid)
    assert_close(grid[cost.argmin()], found, rtol=1e-5, atol=0)
    assert 10 < int(cost.argmin()) < len(grid) - 10


def test_gamma_is_the_mode_of_an_inverse_gamma() -> None:
    m, d = torch.tensor(3.0), torch.tensor(10.0)
    assert_close(Gamma(2.0, 0.5).best(m, d), (0.5 + m / 2) / (2.0 + 1 + d / 2))


@pytest.mark.parametrize("energy", [1e-4, 1e-6, 1e-10])
def test_half_cauchy_is_stable_in_float32(energy: float) -> None:
    """The textbook root is 22 % off at a variance of 1e-7 and 0 at 1e-9 (D = 800, scale 1)."""
    prior, size = HalfCauchy(1.0), 800.0
    exact = prior.best(torch.tensor(energy, dtype=torch.float64), torch.tensor(size, dtype=torch.float64))
    found = prior.best(torch.tensor(energy), torch.tensor(size))
    assert found > 0
    assert_close(found.double(), exact, rtol=1e-5, atol=0)
    textbook = (energy - size + math.sqrt(energy**2 + (2 * size + 8) * energy + size**2)) / (2 * size + 4)
    assert_close(float(exact), textbook, rtol=1e-2, atol=0)


def test_half_cauchy_is_log_uniform_at_small_variances() -> None:
    """Where M << D scale^2 its root is M / D, which for D = 800 differs from M / (D + 1) by 1e-3."""
    m, d = torch.tensor(8e-5, dtype=torch.float64), torch.tensor(800.0, dtype=torch.float64)
    assert_close(HalfCauchy(0.1).best(m, d) / LogUniform().best(m, d), torch.ones_like(m), rtol=2e-3, atol=0)


# -- who governs a bond -----------------------------------------------------------------------------------------------


def test_the_last_bond_of_three_cores_is_governed_from_both_sides() -> None:
    """As published: D_1 = m_1 n_1 and D_2 = R_1 m_2 n_2 + m_3 n_3. The released class gives the extra part to the first bond."""
    network = TTM(rank=(4, 5)).network(make_fold([("o", 24), ("i", 60)], 3, out_modes=(2, 3, 4), in_modes=(3, 4, 5)))
    means = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    published = RankVariances(network, Prior(LogUniform(), is_symmetric=False))
    assert published.counts() == {"r1": 6, "r2": 4 * 12 + 20}
    published.update(means)
    assert_close(published.values["r1"], means[0].square().sum((0, 1)) / (6 + 1))
    assert_close(published.values["r2"], (means[1].square().sum((0, 1, 2)) + means[2].square().sum((1, 2))) / (4 * 12 + 20 + 1))
    symmetric = RankVariances(network, Prior(LogUniform()))
    assert symmetric.counts() == {"r1": 6 + 12 * 5, "r2": 4 * 12 + 20}
    symmetric.update(means)
    assert_close(symmetric.values["r1"], (means[0].square().sum((0, 1)) + means[1].square().sum((1, 2, 3))) / (6 + 12 * 5 + 1))


def test_live_ranks_alone_are_counted() -> None:
    network = TTM(rank=(4, 5)).network(make_fold([("o", 24), ("i", 60)], 3, out_modes=(2, 3, 4), in_modes=(3, 4, 5)))
    variances = RankVariances(network, Prior(is_symmetric=False))
    variances.values["r1"] = torch.tensor([1.0, 1.0, 1e-9, 1e-9], dtype=torch.float64)
    assert variances.counts()["r2"] == 2 * 12 + 20


def test_groups_of_cp_and_tucker() -> None:
    fold = make_fold([("o", 12), ("i", 20)], 2, out_modes=(3, 4), in_modes=(4, 5))
    assert RankVariances(CP(rank=3).network(fold), Prior(is_symmetric=False)).counts() == {"r": 3 + 4 + 4 + 5}
    tucker_net = Tucker(rank=2).network(fold)
    published = RankVariances(tucker_net, Prior(is_symmetric=False))
    assert published.counts() == {"r1": 3, "r2": 4, "r3": 4, "r4": 5}
    assert float(published.log_variance(2)) == pytest.approx(math.log(100.0))  # the core: standard deviation 10
    assert RankVariances(tucker_net, Prior()).counts()["r1"] == 3 + 8


# -- spreads, orientation, moments, the floor of Adam -----------------------------------------------------------------


@pytest.mark.parametrize(("format", "rank"), [(CP, 50), (Tucker, 20), (TT, 20), (TTM, 20)])
def test_start_has_the_spread_asked_for(format: Any, rank: int) -> None:
    """sqrt(2 / fan_in) on 784 -> 512 within 10 %, the median of 9 starts; the released code is between 0.92 and 1.08 of it."""
    n_in, n_out = ((4, 7, 4, 7), (4, 4, 8, 4)) if format is TTM else ((28, 28), (16, 32))
    fold = make_fold([("o", 512), ("i", 784)], 1, in_modes=n_in, out_modes=n_out)
    weight = FactorizedWeight(format(rank=rank).network(fold), fold)
    target = math.sqrt(2 / 784)
    spreads = []
    for seed in range(9):
        weight.init_normal_(target, generator=torch.Generator().manual_seed(seed))
        spreads.append(float(weight.dense().detach().std()) / target)
    assert 0.9 < sorted(spreads)[4] < 1.1


def test_a_matrix_of_rank_one_stays_of_rank_one() -> None:
    """The released layer reshapes without a transpose: its 784 x 512 matrix of rank 1 becomes one of rank 80."""
    fold = make_fold([("o", 512), ("i", 784)], 1, in_modes=(28, 28), out_modes=(16, 32))
    matrix = torch.outer(torch.randn(512), torch.randn(784))
    assert int(torch.linalg.matrix_rank(fold.fold(matrix).reshape(512, 784))) == 1
    assert int(torch.linalg.matrix_rank(matrix.T.reshape(512, 784))) > 1
    layer = Linear(784, 512, format=TT(rank=(8, 1, 8)), in_modes=(28, 28), out_modes=(16, 32))
    assert int(torch.linalg.matrix_rank(layer.weight.detach())) == 1


@pytest.mark.parametrize("format", [CP(rank=3), TT(rank=3), TTM(rank=3), Tucker(rank=2)])
def test_variance_of_the_weight(format: Format) -> None:
    """Against 20,000 draws: the sum over all entries within 2 %."""
    network = format.network(make_fold([("o", 8), ("i", 12)], 2, out_modes=(2, 4), in_modes=(3, 4)))
    generator = torch.Generator().manual_seed(3)
    means = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in network.shapes]
    variances = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in network.shapes]
    mean, variance = tensor_moments(network, means, variances)
    draws = [
        one + spread.sqrt() * torch.randn(20_000, *one.shape, generator=generator, dtype=torch.float64)
        for one, spread in zip(means, variances, strict=True)
    ]
    tensors = assemble(network, draws)
    assert_close(tensors.var(0).sum(), variance.sum(), rtol=0.02, atol=0)
    assert float((tensors.mean(0) - mean).norm()) < 5 * math.sqrt(float(variance.sum()) / 20_000)


@pytest.mark.parametrize(("lr", "n_examples"), [(2e-2, 1000), (1e-3, 10)])
def test_without_data_adam_leaves_a_floor_that_its_rate_sets(lr: float, n_examples: int) -> None:
    """s = sqrt(variance) stays at 0.05 to 0.09 of the learning rate whatever the weight of the prior: no threshold may come near it.

    The median over slices; it starts at about 3 learning rates.
    """
    layer = Embedding(1600, 40, format=TT(rank=6), in_modes=(40, 40), out_modes=(40,))
    with torch.no_grad():
        for factor in layer.factorized.factors:
            factor.mul_(3 * lr / factor.std())
    posterior = attach(layer, n_examples=n_examples, kind="map", prior=Prior(is_symmetric=False))
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    with pytest.warns(RanksWarning, match="has collapsed"):
        for _ in range(400):
            posterior.step()
            optimizer.zero_grad()
            posterior.penalty().backward()
            optimizer.step()
    roots = torch.cat(list(posterior.variances["model"].values.values())).sqrt() / lr
    assert 0.05 < float(roots.median()) < 0.1
