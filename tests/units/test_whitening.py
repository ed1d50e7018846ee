"""The output-space metric: an identity moment changes nothing, a real one lowers the error on outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import CP, SVD, TT, TTM, Format, Tucker
from tenfold.decompose import batched_factors, decompose, group_tensors, without_groups
from tenfold.fold import Fold
from tenfold.layers import all_layers
from tenfold.solvers.sensitivity import rebalance, sensitivity
from tenfold.solvers.solution import rebuild
from tenfold.solvers.whitening import Whitening


@dataclass(frozen=True)
class Hadamard(Format):
    """Two low-rank matrices multiplied entry by entry: two factors carry the input modes."""

    def factors(self, fold: Fold) -> Sequence[Sequence[str]]:
        inner = (*fold.role("i"), *fold.role("k"))
        return [(*fold.role("o"), "r"), ("r", *inner), (*fold.role("o"), "s"), ("s", *inner)]


def spd(n: int, groups: int = 1, decay: float = 2.0) -> Tensor:
    """Moments with eigenvalues that fall like those of natural signals."""
    q = torch.linalg.qr(torch.randn(groups, n, n, dtype=torch.float64)).Q
    return (q * (torch.arange(1, n + 1, dtype=torch.float64) ** -decay)) @ q.mT


def fold_for(dense: nn.Module, format: Format) -> Fold:
    kind = all_layers()[type(dense).__name__]
    return kind.fold_of(dense, kind.modes_of(format))


torch.manual_seed(0)  # these are made before any test, and have to be the same ones every time
LAYERS = {
    "linear": nn.Linear(18, 14, dtype=torch.float64),
    "conv": nn.Conv2d(6, 10, 3, dtype=torch.float64),
    "grouped": nn.Conv1d(8, 12, 5, groups=2, dtype=torch.float64),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6, dtype=torch.float64),
}


def size_of(fold: Fold) -> int:
    """Values in a patch of one group."""
    out = fold.axis("o")
    return torch.Size(fold.sizes.values()).numel() // fold.groups // (out.size // out.groups)


def solved(dense: Any, format: Format, metric: Whitening | None, sweeps: int = 60) -> tuple[float, float]:
    """Relative error of the weight, and of the outputs under the metric."""
    fold = fold_for(dense, format)
    [made] = decompose([dense.weight], fold, format.network(fold), format, whitenings=[metric], sweeps=sweeps, warn=False)
    return made.error, made.error_of(metric, dense.weight)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("format", [SVD(rank=0.3), TT(rank=0.3), TTM(rank=0.3), Tucker(rank=0.3), CP(rank=0.3)], ids=str)
def test_an_identity_moment_changes_nothing(name: str, format: Format):
    dense = LAYERS[name]
    fold = fold_for(dense, format)
    plain, _ = solved(dense, format, None)
    eye = torch.eye(size_of(fold), dtype=torch.float64).expand(fold.groups, -1, -1)
    white, output = solved(dense, format, Whitening(eye * 3.7))
    # the refit of the output factor may improve on solvers that are not exact, and on the ridge of CP
    torch.testing.assert_close(white, plain, rtol=1e-7 if isinstance(format, SVD) else 0.05, atol=2e-4 if isinstance(format, CP) else 1e-7)
    assert white < plain * (1 + 1e-7) + 1e-8
    torch.testing.assert_close(output, white, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "conv", "grouped"])
@pytest.mark.parametrize("format", [SVD(rank=2), Tucker(rank=2), CP(rank=2)], ids=str)
def test_a_real_moment_lowers_the_error_of_outputs(name: str, format: Format):
    dense = LAYERS[name]
    fold = fold_for(dense, format)
    metric = Whitening(spd(size_of(fold), fold.groups))
    [plain] = decompose([dense.weight], fold, format.network(fold), format, warn=False)
    weight_error, output_error = solved(dense, format, metric)
    assert output_error < 0.95 * plain.error_of(metric, dense.weight)
    assert weight_error > plain.error


def test_svd_is_the_best_of_its_rank_under_a_full_moment():
    """Eckart and Young in the metric: the error is the tail of the singular values of W S^(1/2)."""
    dense, moment = LAYERS["linear"], spd(18)
    values, vectors = torch.linalg.eigh(moment[0])
    spectrum = torch.linalg.svdvals(dense.weight.detach() @ (vectors * values.sqrt()) @ vectors.T)
    _, error = solved(dense, SVD(rank=5), Whitening(moment))
    torch.testing.assert_close(error, (spectrum[5:].norm() / spectrum.norm()).item(), rtol=1e-3, atol=0)


def test_svd_of_a_convolution_is_the_best_under_a_moment_that_is_no_kronecker_product():
    dense, moment = LAYERS["conv"], spd(54)
    values, vectors = torch.linalg.eigh(moment[0])
    spectrum = torch.linalg.svdvals(dense.weight.detach().flatten(1) @ (vectors * values.sqrt()) @ vectors.T)
    _, error = solved(dense, SVD(rank=5), Whitening(moment))
    torch.testing.assert_close(error, (spectrum[5:].norm() / spectrum.norm()).item(), rtol=1e-2, atol=0)


def test_a_free_mean_does_not_count():
    x = torch.randn(400, 18, dtype=torch.float64) * torch.logspace(0, -2, 18, dtype=torch.float64) + 5
    moment, mean = (x.T @ x / 400)[None], x.mean(0)[None]
    centred = Whitening(moment, mean, True)
    torch.testing.assert_close(centred.metric[0], x.T.cov(correction=0), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(Whitening(moment, mean).metric, moment, rtol=0, atol=0)
    dense = LAYERS["linear"]
    # a low rank that need not carry the mean has all of it for what varies
    fold = fold_for(dense, SVD(rank=4))
    errors = []
    for metric in (centred, Whitening(moment, mean)):
        [made] = decompose([dense.weight], fold, SVD(rank=4).network(fold), SVD(rank=4), whitenings=[metric], warn=False)
        errors.append(made.error_of(centred, dense.weight))
    assert errors[0] < 0.99 * errors[1]
    constant = torch.full((5, 18), 3.0, dtype=torch.float64)
    still = Whitening((constant.T @ constant / 5)[None], constant[:1].clone(), True)
    torch.testing.assert_close(still.damped[0], torch.eye(18, dtype=torch.float64), rtol=0, atol=0)  # no input varies


def test_whitened_factors_are_of_the_whitened_weight():
    """Without noise and with full rank the way there and back gives the weight itself."""
    dense, format = LAYERS["conv"], SVD(rank=1.0)
    fold = fold_for(dense, format)
    moment = torch.kron(spd(6)[0], spd(9)[0])[None]  # exactly a Kronecker product of channels and positions
    assert solved(dense, format, Whitening(moment))[0] < 1e-6
    single = without_groups(format.network(fold))
    tensor = group_tensors(fold, dense.weight.detach())
    metric = Whitening(moment)
    white = metric.whiten(fold, single, tensor)
    w = metric.matrices(fold, tensor)
    torch.testing.assert_close(white.square().sum(), ((w @ metric.damped) * w).sum(), rtol=1e-3, atol=0)


def test_modes_on_several_factors_are_not_whitened():
    dense, format = LAYERS["linear"], Hadamard(rank=(2, 2))
    fold = fold_for(dense, format)
    network, metric = format.network(fold), Whitening(spd(18))
    tensor = group_tensors(fold, dense.weight.detach())
    torch.testing.assert_close(metric.whiten(fold, network, tensor), tensor, rtol=0, atol=0)
    factors = [torch.randn(1, *shape, dtype=torch.float64) for shape in network.shapes]
    torch.testing.assert_close(rebuild(network, metric.unwhiten(fold, network, factors, tensor)), rebuild(network, factors))


@pytest.mark.parametrize("format", [CP(rank=40), Tucker(rank=5), TT(rank=5)], ids=str)
def test_factors_come_back_with_the_least_sensitivity_of_any_scaling(format: Format):
    """Inputs that are small make S^(-1/2) large, and not all terms alike; half precision and training need even factors."""
    dense = LAYERS["conv"]
    fold = fold_for(dense, format)
    [made] = decompose([dense.weight], fold, format.network(fold), format, whitenings=[Whitening(1e-8 * spd(54))], warn=False)
    network, factors = batched_factors(made.weight, torch.float64)
    torch.testing.assert_close(sensitivity(network, factors), sensitivity(network, rebalance(network, factors)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("moment", ["zero", "one group zero", "rank one", "tiny", "huge"])
@pytest.mark.parametrize("format", [SVD(rank=2), CP(rank=2), Tucker(rank=2)], ids=str)
def test_moments_at_the_edge(moment: str, format: Format):
    dense = LAYERS["grouped"]
    fold = fold_for(dense, format)
    x = torch.randn(2, 20, 1, dtype=torch.float64)
    full = spd(20, 2)
    values = {
        "zero": torch.zeros(2, 20, 20, dtype=torch.float64),
        "one group zero": full * torch.tensor([0.0, 1.0])[:, None, None],
        "rank one": x @ x.mT,
        "tiny": full * 1e-30,
        "huge": full * 1e30,
    }[moment]
    metric = Whitening(values)
    [made] = decompose([dense.weight], fold, format.network(fold), format, whitenings=[metric], warn=False)
    assert made.error < 5 and all(bool(torch.isfinite(factor).all()) for factor in made.weight.factors)
    assert 0 <= made.error_of(metric, dense.weight) < 1


@pytest.mark.parametrize("is_mean_free", [True, False])
def test_the_metric_of_few_rows_is_drawn_towards_even_variances(is_mean_free: bool):
    """It is nearer to the covariance that the rows are drawn from than theirs is, and keeps their power; of many rows little changes."""
    truth = spd(40, decay=0.5)[0]
    root = torch.linalg.cholesky(truth)
    for n_rows, at_most in ((10, 0.8), (100_000, 1.01)):
        gaps = []
        for _ in range(20):
            rows = torch.randn(n_rows, 40, dtype=torch.float64) @ root.T + 2
            moment, mean = rows.T @ rows / n_rows, rows.mean(0)
            plain, drawn = (Whitening(moment[None], mean[None], is_mean_free, n).metric[0] for n in (None, n_rows))
            torch.testing.assert_close(drawn.trace(), plain.trace())
            shift = torch.zeros(()) if is_mean_free else torch.outer(mean, mean)
            gaps.append([float((one - shift - truth).norm()) for one in (drawn, plain)])
        ours, theirs = map(sum, zip(*gaps, strict=True))
        assert ours < at_most * theirs


def test_one_row_and_rows_that_never_vary_have_a_metric():
    for rows in (torch.ones(1, 6, dtype=torch.float64), torch.full((50, 6), 0.1, dtype=torch.float64)):
        moment, mean = rows.T @ rows / len(rows), rows.mean(0)
        for is_mean_free in (True, False):
            metric = Whitening(moment[None], mean[None], is_mean_free, len(rows))
            assert bool(torch.isfinite(metric.metric).all()) and float(torch.linalg.eigvalsh(metric.damped).min()) > 0
