"""The fit in the whole metric of outputs: derivatives against autograd, fits against a known best, and what identity metrics leave."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tenfold import CP, SVD, TT, Format, LoHa, Tucker
from tenfold.decompose import batched_factors, decompose, group_tensors, without_groups
from tenfold.fold import Fold, make_fold
from tenfold.network import Network
from tenfold.solvers.output_fit import Metric, OutputFit, fit_outputs
from tenfold.solvers.quadratic import assemble
from tenfold.solvers.sensitivity import sensitivity
from tenfold.solvers.solution import rebuild
from tenfold.solvers.stable_cp import SLACK
from tenfold.solvers.whitening import Whitening

CONV = make_fold([("o", 7), ("i", 6), ("k", 3), ("k", 2)], 1)
GROUPED = make_fold([("o", 8), ("i", 5), ("k", 3)], 1, groups=2)
FORMATS = [CP(rank=4), Tucker(rank=3), TT(rank=3), SVD(rank=3), LoHa(rank=2)]


def moment(size: int, groups: int = 1, seed: int = 0) -> Tensor:
    """Second moments whose eigenvalues fall over two orders of magnitude, and that are no Kronecker products."""
    q = torch.linalg.qr(torch.randn(groups, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return (q * torch.logspace(0, -2, size, dtype=torch.float64)) @ q.mT


def problem(format: Format, fold: Fold = CONV, batch: int = 2) -> tuple[Network, Tensor, list[Tensor], Metric]:
    network = without_groups(format.network(fold))
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(batch, *network.shape, generator=generator, dtype=torch.float64)
    target = target / target.flatten(1).norm(dim=1).reshape(-1, *[1] * (target.dim() - 1))
    factors = [0.5 * torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in network.shapes]
    size = torch.Size(fold.sizes[mode] for role in "ik" for mode in fold.role(role)).numel()
    return network, target, factors, Metric.of(fold, network, moment(size, batch))


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_derivatives_are_autograds(format: Format):
    network, target, factors, metric = problem(format)
    fit = OutputFit(network, target, metric)
    direction = [torch.randn_like(factor) for factor in factors]
    expected = torch.func.jvp(lambda *f: assemble(network, f), tuple(factors), tuple(direction))[1]
    torch.testing.assert_close(fit.along(factors, direction), expected, rtol=1e-9, atol=1e-10)
    residual = torch.randn_like(target)
    _, pull = torch.func.vjp(lambda *f: assemble(network, f), *factors)  # pyright: ignore[reportGeneralTypeIssues]
    for ours, theirs in zip(fit.back(factors, residual), pull(residual), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_errors_are_those_of_the_metric_and_never_rise(format: Format):
    network, target, factors, metric = problem(format)
    found, history = OutputFit(network, target, metric).run(factors, 12)
    modes = [mode for role in "oik" for mode in CONV.role(role)]
    delta = (rebuild(network, found) - target).permute(0, *(network.modes.index(mode) + 1 for mode in modes)).reshape(2, 7, -1)
    torch.testing.assert_close(((delta @ metric.matrix) * delta).sum((1, 2)), history[-1], rtol=1e-9, atol=1e-12)
    assert bool((history[-1] < 0.5 * history[0]).all())
    assert bool((history.diff(dim=0) <= 1e-3 * history[:-1]).all())  # the ridge may trade a little error for smaller factors


def test_planted_factors_are_found():
    network, _, factors, metric = problem(CP(rank=4))
    target = assemble(network, factors)
    norm = target.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1, 1)
    start = [factor + 0.1 * torch.randn_like(factor) for factor in factors]
    start[0] = start[0] / norm.reshape(-1, 1, 1)
    _, history = OutputFit(network, target / norm, metric).run(start, 60)
    assert bool((history[-1] < 1e-6).all())


def test_two_factors_reach_the_best_of_their_rank():
    """Eckart and Young in the metric: from a random start the tail of the singular values of W M^(1/2), but for the ridge."""
    network, target, factors, metric = problem(SVD(rank=3))
    _, history = OutputFit(network, target, metric).run(factors, 100)
    values, vectors = torch.linalg.eigh(metric.matrix)
    root = (vectors * values.sqrt()[:, None, :]) @ vectors.mT
    best = torch.linalg.svdvals(target.reshape(2, 7, -1) @ root)[:, 3:].square().sum(1)
    torch.testing.assert_close(history[-1], best, rtol=0.05, atol=0)


@pytest.mark.parametrize("fold", [CONV, GROUPED], ids=["conv", "grouped"])
@pytest.mark.parametrize("format", [CP(rank=4), Tucker(rank=3)], ids=str)
def test_the_whole_metric_beats_its_kronecker_approximation(fold: Fold, format: Format):
    weight = torch.randn(fold.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    metric = Whitening(moment(weight[0].numel(), fold.groups))
    errors = []
    for steps in (0, 30):
        [made] = decompose([weight], fold, format.network(fold), format, whitenings=[metric], warn=False, fit_steps=steps)
        errors.append(made.error_of(metric, weight))
    assert errors[1] < 0.97 * errors[0]


@pytest.mark.parametrize("fold", [CONV, GROUPED], ids=["conv", "grouped"])
def test_corrected_factors_are_less_sensitive_within_the_slack(fold: Fold):
    weight = torch.randn(fold.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    metric = Whitening(moment(weight[0].numel(), fold.groups))
    network = CP(rank=6).network(fold)
    options: Any = {"whitenings": [metric], "warn": False}
    fitted, stable = (
        decompose([weight], fold, network, CP(rank=6, stable=True), **options, correct=correct)[0] for correct in (False, True)
    )
    before, after = (sensitivity(*batched_factors(made.weight)) for made in (fitted, stable))
    assert bool((after < 0.95 * before).all())
    assert stable.error_of(metric, weight) == pytest.approx(SLACK * fitted.error_of(metric, weight), rel=5e-3)
    assert stable.error_of(metric, weight) <= SLACK * fitted.error_of(metric, weight) * (1 + 1e-9)


@pytest.mark.parametrize("format", [CP(rank=3), Tucker(rank=2), SVD(rank=2), TT(rank=2)], ids=str)
def test_an_identity_moment_is_the_plain_decomposition(format: Format):
    """T15 of the reference: with the identity for the second moment nothing is left to the fit, and the error is that of the weight."""
    weight = torch.randn(CONV.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    metric = Whitening(2.5 * torch.eye(weight[0].numel(), dtype=torch.float64)[None])
    network = format.network(CONV)
    [plain] = decompose([weight], CONV, network, format, warn=False)
    [white] = decompose([weight], CONV, network, format, whitenings=[metric], warn=False)
    torch.testing.assert_close(white.weight.dense(), plain.weight.dense(), rtol=0, atol=1e-6)
    assert white.error_of(metric, weight) == pytest.approx(white.error, rel=1e-6)
    single = without_groups(network)
    tensor = group_tensors(CONV, weight)
    factors = [torch.randn(1, *shape, dtype=torch.float64) for shape in single.shapes]
    assert fit_outputs(CONV, single, tensor, factors, [torch.eye(36, dtype=torch.float64)[None]]) is None


@pytest.mark.parametrize("is_stable", [False, True], ids=["plain", "stable"])
@pytest.mark.parametrize("kind", ["zero", "huge", "tiny", "exact"])
def test_targets_and_metrics_at_the_edge(kind: str, is_stable: bool):
    scale: Any = {"zero": 0.0, "huge": 1e20, "tiny": 1e-20, "exact": 1.0}[kind]
    weight = scale * torch.randn(CONV.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    metric = Whitening(moment(36) * (scale or 1.0))
    if kind == "exact":
        network = CP(rank=4).network(CONV)
        weight = CONV.unfold(rebuild(network, [torch.randn(1, *shape, dtype=torch.float64) for shape in network.shapes])[0])
    format = CP(rank=4, stable=is_stable)
    [made] = decompose([weight], CONV, format.network(CONV), format, whitenings=[metric], warn=False)
    assert all(bool(torch.isfinite(factor).all()) for factor in made.weight.factors) and made.error_of(metric, weight) < 1
