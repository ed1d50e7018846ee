"""Stable CP decomposition: what must hold exactly, and numbers to reproduce.

Sources: Phan et al. 2020, arXiv 2008.05441; Phan, Tichavsky, Cichocki 2019, arXiv 1709.08349 (the quadratic programme on the sphere). The
table of the W tensor was derived by hand and checked numerically; it is in no paper. T1 .. T15 number the requirements.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import tenfold.nn
from tenfold import CP
from tenfold.fold import make_fold
from tenfold.layers import all_layers
from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.bounded_step import bounded_step, secular
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.cp_gauss_newton import CPProblem, System
from tenfold.solvers.epc import Correction, epc
from tenfold.solvers.levenberg_marquardt import CPLayout, levenberg_marquardt
from tenfold.solvers.quadratic import Form, assemble, sensitivity_forms
from tenfold.solvers.sensitivity import gauss_newton_product, intensities, rebalance, sensitivity
from tenfold.solvers.tkd_cpd import join_bases, tkd_cpd
from tenfold.solvers.tucker2_bounded import Tucker2Search, tucker2_bounded

CP3 = "k r, i r, o r -> k i o"


def cp(k: int, i: int, o: int, rank: int) -> Network:
    return Network.parse(CP3, {"k": k, "i": i, "o": o, "r": rank})


def drawn(network: Network, batch: int = 1, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in network.shapes]


def kernel(k: int, i: int, o: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Spatial patterns with channel mixers whose spectra fall, and noise: CP fits of it degenerate."""
    generator = torch.Generator().manual_seed(seed)
    spectra = [torch.arange(1, n + 1, dtype=torch.float64) ** -0.6 for n in (i, o)]
    sides = [torch.randn(batch, k, n, n, generator=generator, dtype=torch.float64) * s for n, s in zip((i, o), spectra, strict=True)]
    mixed = sides[0][..., : min(i, o)] @ sides[1][..., : min(i, o)].mT
    patterns = torch.linalg.qr(torch.randn(batch, k, k, generator=generator, dtype=torch.float64)).Q
    tensor = torch.einsum("bkj,bjio->bkio", patterns, mixed)
    tensor = tensor + 0.05 * tensor.std() * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    return tensor / tensor.flatten(1).norm(dim=1)[:, None, None, None]


def degenerate_kernel() -> Tensor:
    """9x14x14: three tensors a.a.b + a.b.a + b.a.a, which two terms fit ever better the larger they are, and 20 % noise."""
    (a, b), noise = (
        (drawn(cp(9, 14, 14, 3), seed=seed) for seed in (0, 1)),
        drawn(Network.parse("k i o -> k i o", {"k": 9, "i": 14, "o": 14})),
    )
    network = cp(9, 14, 14, 3)
    total = assemble(network, [a[0], a[1], b[2]]) + assemble(network, [a[0], b[1], a[2]]) + assemble(network, [b[0], a[1], a[2]])
    total = total / total.norm() + 0.2 * noise[0] / noise[0].norm()
    return total / total.norm()


# -- T1, T2: sensitivity ----------------------------------------------------------------------------------------------


def test_sensitivity_is_what_noise_does():
    """T1: 4,000 draws, ratio within 1 %; the ratio has a standard deviation of about 0.1 % here."""
    network = cp(9, 16, 12, 10)
    factors, sigma = drawn(network), 1e-5
    moved = [f + sigma * noise for f, noise in zip(factors, drawn(network, 4_000, seed=1), strict=True)]
    measured = (assemble(network, moved) - assemble(network, factors)).flatten(1).square().sum(1).mean() / sigma**2
    assert float(measured) == pytest.approx(float(sensitivity(network, factors)), rel=0.01)


def test_sensitivity_of_cp_is_the_published_formula():
    """ss = L sum |a|^2 |b|^2 + I sum |b|^2 |c|^2 + J sum |a|^2 |c|^2, and its gradient 2 A diag(L b + J c)."""
    network = cp(9, 16, 12, 10)
    factors = [f.requires_grad_() for f in drawn(network)]
    a, b, c = (f.square().sum(1) for f in factors)
    torch.testing.assert_close(sensitivity(network, factors), (12 * a * b + 9 * b * c + 16 * a * c).sum(1), rtol=1e-13, atol=0)
    sensitivity(network, factors).sum().backward()
    torch.testing.assert_close(factors[0].grad, (2 * factors[0] * (12 * b + 16 * c)[:, None]).detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("i", "o", "loss"), [(16, 12, 1.03), (512, 512, 2.59)])
def test_rescaling_keeps_the_tensor_and_attains_the_minimum(i: int, o: int, loss: float):
    """T2: tensor to 1e-13, ss = 3 (IJL)^(1/3) sum eta^(4/3); equal norms instead lose (I + J + L) / (3 (IJL)^(1/3))."""
    network = cp(9, i, o, 5)
    factors = [f * scale for f, scale in zip(drawn(network), (1e3, 1e-2, 7.0), strict=True)]
    best, eta = rebalance(network, factors), intensities(network, factors, "r")
    torch.testing.assert_close(assemble(network, best), assemble(network, factors), rtol=1e-13, atol=1e-13 * float(eta.amax()))
    least = 3 * (9 * i * o) ** (1 / 3) * eta.pow(4 / 3).sum(1)
    torch.testing.assert_close(sensitivity(network, best), least, rtol=1e-12, atol=0)
    even = [f / f.norm(dim=1, keepdim=True) * eta[:, None] ** (1 / 3) for f in factors]
    assert float(sensitivity(network, even) / least) == pytest.approx((9 + i + o) / (3 * (9 * i * o) ** (1 / 3)), rel=1e-12)
    assert float(sensitivity(network, even) / least) == pytest.approx(loss, abs=0.005)


# -- T3: the bounded step ---------------------------------------------------------------------------------------------


def sphere_programme(unfolded: Tensor, z: Tensor, weights: Tensor, delta: float) -> Tensor:
    """min sum w_r |a_r|^2 with ||T - A Z'|| = delta, as a quadratic programme on the unit sphere (arXiv 1709.08349)."""
    gram = z.T @ z / weights.sqrt()[:, None] / weights.sqrt()
    s, u = torch.linalg.eigh(gram)
    b = (unfolded @ z) / weights.sqrt() @ u / s.sqrt()
    d = (delta**2 - unfolded.square().sum() + b.square().sum()).sqrt()
    q, c = d / s, b.norm(dim=0) / s
    order = q.argsort()
    scale = c.norm()
    sigma, c_sorted = (q[order] - q[order[0]]) / scale + 1, c[order] / scale
    low, high = sigma[0] - 10 - 10 * c_sorted.norm() * len(s), sigma[0] - c_sorted[0].abs()
    for _ in range(400):  # bisection: the secular function rises up to the first pole
        middle = (low + high) / 2
        low, high = (middle, high) if (c_sorted / (sigma - middle)).square().sum() < 1 else (low, middle)
    z_sorted = c_sorted / (sigma - low)
    length = torch.empty_like(z_sorted)
    length[order] = z_sorted
    x = b - d * b / b.norm(dim=0) * length
    return x / s.sqrt() @ u.T / weights.sqrt()


def step_of(network: Network, target: Tensor, factors: list[Tensor], delta: float) -> tuple[Tensor, Tensor]:
    bound = torch.tensor([delta**2], dtype=torch.float64)
    return bounded_step(network, factors, 0, sensitivity_forms(network), target - assemble(network, factors), bound)


@pytest.mark.parametrize("slack", [1.001, 1.1, 1.5])
def test_ridge_and_sphere_programme_agree(slack: float):
    """T3: the two solutions to 1e-12 (relative), the residual at delta to 1e-10, and no feasible neighbour is better."""
    network = cp(9, 8, 7, 6)
    target = kernel(9, 8, 7)
    factors = cp_als(target, network, sweeps=30).factors
    delta = slack * float((target - assemble(network, [least_squares(network, target, factors), *factors[1:]])).norm())
    new, _ = step_of(network, target, factors, delta)
    _, b, c = (f[0] for f in factors)
    z = torch.einsum("ir,or->ior", b, c).flatten(0, 1)
    weights = 7 * b.square().sum(0) + 8 * c.square().sum(0)
    other = sphere_programme(target[0].flatten(1), z, weights, delta)
    assert float((new[0] - other).norm() / other.norm()) < 1e-12
    residual = (target - assemble(network, [new, *factors[1:]])).norm()
    assert float(residual) == pytest.approx(delta, rel=1e-10)
    charge = float((weights * new[0].square().sum(0)).sum())
    best = least_squares(network, target, factors)
    least = float((target - assemble(network, [best, *factors[1:]])).norm())
    generator = torch.Generator().manual_seed(0)
    for size, _ in itertools.product((1e-1, 1e-2, 1e-3, 1e-4), range(100)):
        near = new + size * float(new.norm()) * torch.randn(new.shape, generator=generator, dtype=torch.float64) / new.numel() ** 0.5
        away = near * (1 - size) - best  # at right angles to the least residual: the squares of both add up to that of the whole
        added = float(assemble(network, [away, *factors[1:]]).norm())
        near = best + min(1.0, (delta**2 - least**2) ** 0.5 / added) * away
        assert float((target - assemble(network, [near, *factors[1:]])).norm()) <= delta * (1 + 1e-12)
        assert float((weights * near[0].square().sum(0)).sum()) >= charge * (1 - 1e-9)


def least_squares(network: Network, target: Tensor, factors: list[Tensor]) -> Tensor:
    z = torch.einsum("ir,or->ior", factors[1][0], factors[2][0]).flatten(0, 1)
    return torch.linalg.lstsq(z, target[0].flatten(1).T).solution.T[None]


def test_the_error_grows_with_the_multiplier_as_its_derivative_says():
    """T3: rho'(mu) = 2 mu sum |f|^2 / (s + mu)^3 against central differences of the explicit residual; secular inverts rho."""
    network = cp(9, 8, 7, 6)
    target, factors = kernel(9, 8, 7), drawn(network)
    gram = Form().matrix(network, factors, 0)[0, 0]
    weight = torch.stack([form.matrix(network, factors, 0) for form in sensitivity_forms(network)[1:]]).sum(0)[0, 0]
    z = torch.einsum("ir,or->ior", factors[1][0], factors[2][0]).flatten(0, 1)
    right = target[0].flatten(1) @ z

    def rho(mu: float) -> float:
        x = torch.linalg.solve(gram + mu * weight, right.T).T
        return float((target[0].flatten(1) - x @ z.T).square().sum())

    root = torch.linalg.cholesky(weight)
    inverse = torch.linalg.inv(root)
    s, u = torch.linalg.eigh(inverse @ gram @ inverse.T)
    f = (right @ inverse.T @ u).square().sum(0)
    for mu in (1e-3, 1e-2, 1e-1):
        slope = float((f * 2 * mu / (s + mu) ** 3).sum())
        assert (rho(mu * 1.0001) - rho(mu * 0.9999)) / (mu * 2e-4) == pytest.approx(slope, rel=1e-6)
        zero = torch.zeros(1, 1, 9, 6, dtype=torch.float64)
        bound = torch.tensor([rho(mu)], dtype=torch.float64)
        _, found = secular(s[None, None], (right @ inverse.T @ u)[None, None], zero, target.flatten(1).square().sum(1), bound)
        assert float(found) == pytest.approx(mu, rel=1e-9)


# -- T4, T5: Gauss-Newton ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(5, 4, 3), (4, 3, 3, 2)])
def test_gauss_newton_products_are_those_of_the_explicit_jacobian(sizes: tuple[int, ...]):
    """T4: to 1e-12, by the formula for CP and by differentiation for any network."""
    names = "abcd"[: len(sizes)]
    network = Network.parse(f"{', '.join(f'{n} r' for n in names)} -> {' '.join(names)}", {**dict(zip(names, sizes, strict=True)), "r": 3})
    factors, vectors = drawn(network), drawn(network, seed=1)
    jacobians = torch.autograd.functional.jacobian(
        lambda *f: assemble(network, [one[None] for one in f]).flatten(), tuple(f[0] for f in factors)
    )
    jacobian = torch.cat([one.flatten(1) for one in jacobians], 1)  # type: ignore[union-attr]
    wanted = jacobian.T @ (jacobian @ torch.cat([v.flatten() for v in vectors]))
    found = torch.cat([part.flatten() for part in gauss_newton_product(network, factors, vectors)])
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12 * float(wanted.norm()))
    problem = CPProblem(assemble(network, factors))
    system = System.at(problem, torch.cat(factors, 1), *torch.zeros(2, 1, dtype=torch.float64))
    torch.testing.assert_close(system.product(torch.cat(vectors, 1)).flatten(), wanted, rtol=1e-12, atol=1e-12 * float(wanted.norm()))


# -- T6 .. T8: correction ---------------------------------------------------------------------------------------------

TABLE = {0.30: 11.69, 0.20: 14.80, 0.10: 20.330, 0.05: 28.49, 0.02: 47.91}  # least sensitivity at a relative error


@pytest.fixture(scope="module")
def corrected_w() -> Correction:
    """The W tensor (border rank 2, rank 3) with two terms at the five errors of the table, from diverging fits."""
    w = torch.zeros(2, 2, 2, dtype=torch.float64)
    w[0, 0, 1] = w[0, 1, 0] = w[1, 0, 0] = 1
    network = Network.parse("a r, b r, c r -> a b c", {"a": 2, "b": 2, "c": 2, "r": 2})
    target = w.expand(len(TABLE), 2, 2, 2).contiguous()
    start = als(target, network, sweeps=300, seed=1, dtype=torch.float64, tolerance=0)
    assert float(start.errors.amax()) < 1e-3 and float(sensitivity(network, start.factors).amin()) > 200
    return epc(target, network, start.factors, delta=torch.tensor(list(TABLE), dtype=torch.float64), sweeps=500)


def test_the_w_tensor_has_the_table_of_least_sensitivities(corrected_w: Correction):
    """T6: within 0.5 %; the multiplier at 0.10 is 6.5175e-3 in all three modes."""
    for found, wanted in zip(corrected_w.objectives[-1].tolist(), TABLE.values(), strict=True):
        assert found == pytest.approx(wanted, rel=5e-3)
    assert float(corrected_w.certificate.amax()) < 1e-3
    at_tenth = corrected_w.multipliers[list(TABLE).index(0.10)]
    torch.testing.assert_close(at_tenth, torch.full_like(at_tenth, 6.5175e-3), rtol=1e-3, atol=0)


def test_errors_of_corrected_fits_are_the_bounds(corrected_w: Correction):
    torch.testing.assert_close(corrected_w.errors[-1], torch.tensor(list(TABLE), dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize("objective", ["sensitivity", "intensity"])
@pytest.mark.parametrize("slack", [1.0, 1.01])
def test_correction_of_a_degenerate_fit_never_rises_and_keeps_the_error(objective: str, slack: float):
    """T7."""
    network, target = cp(9, 14, 14, 6), degenerate_kernel()
    start = levenberg_marquardt(target, network, penalty="ridge", schedule=(1e-9,), steps=40, sweeps=20)
    assert bool(start.is_degenerate.all())
    found = epc(target, network, start.factors, slack=slack, objective=objective, sweeps=60)  # type: ignore[arg-type]
    assert bool((found.objectives.diff(dim=0) <= 0).all())
    assert bool((found.errors <= found.delta * (1 + 1e-9)).all())
    torch.testing.assert_close(found.errors[5:], found.delta.expand_as(found.errors[5:]), rtol=1e-9, atol=0)
    assert float(found.objectives[-1]) < (0.95 if slack == 1.0 else 0.4) * float(found.objectives[0])


def test_multipliers_follow_the_scale_law():
    """T8: mu scales like c^(2/3) where the target scales like c."""
    network, target = cp(9, 8, 7, 6), kernel(9, 8, 7)
    factors = cp_als(target, network, sweeps=30).factors
    one = epc(target, network, factors, delta=0.5, sweeps=30)
    for c in (1e-3, 27.0):
        other = epc(c * target, network, [f * c ** (1 / 3) for f in factors], delta=0.5, sweeps=30)
        torch.testing.assert_close(other.multipliers, one.multipliers * c ** (2 / 3), rtol=1e-6, atol=0)


# -- T9, T12: layers --------------------------------------------------------------------------------------------------

OPTIONS = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2)},
    {"kernel_size": 3, "dilation": 2, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": (2, 1), "padding_mode": "circular", "bias": False},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_three_plain_convolutions_are_the_layer(options: dict[str, object]):
    """T9: 1x1, depthwise with all options, 1x1 with the bias, to 1e-12 of the dense convolution and of ours."""
    layer = tenfold.nn.Conv2d(8, 12, format=CP(rank=5), dtype=torch.float64, **options)  # type: ignore[arg-type]
    c, a, b = (f.detach() for f in layer.factorized.factors)
    g = layer.groups
    c, a, b = (f if g > 1 else f[None] for f in (c, a, b))  # (g, o, r), (g, r, kh, kw), (g, r, i)
    x = torch.randn(2, 8, 11, 12, dtype=torch.float64)
    plain = {key: value for key, value in options.items() if key not in ("kernel_size", "groups", "bias")}
    middle = nn.Conv2d(5 * g, 5 * g, layer.kernel_size, groups=5 * g, bias=False, dtype=torch.float64, **plain)  # type: ignore[arg-type]
    middle.weight.data = a.flatten(0, 1)[:, None]
    y = torch.nn.functional.conv2d(x, b.flatten(0, 1)[:, :, None, None], groups=g)
    y = torch.nn.functional.conv2d(middle(y), c.flatten(0, 1)[:, :, None, None], layer.bias, groups=g)
    torch.testing.assert_close(y, layer.to_dense()(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "size", "kernel_size", "stride", "parameters", "macs"),
    [
        ((3, 64), 224, 7, 2, 81, 75),
        ((64, 64), 56, 3, 1, 269, 269),
        ((64, 128), 56, 3, 2, 367, 188),
        ((128, 128), 28, 3, 1, 556, 556),
        ((128, 256), 28, 3, 2, 750, 380),
        ((256, 256), 14, 3, 1, 1132, 1132),
        ((256, 512), 14, 3, 2, 1518, 764),
        ((512, 512), 7, 3, 1, 2284, 2284),
    ],
)
def test_break_even_ranks_of_resnet18(channels: tuple[int, int], size: int, kernel_size: int, stride: int, parameters: int, macs: int):
    """T12: the largest ranks that store, or multiply, no more than the dense layer."""
    dense = nn.Conv2d(*channels, kernel_size, stride, kernel_size // 2, bias=False, device="meta")
    kind = all_layers()["Conv2d"]
    network = CP(rank=2).network(kind.fold_of(dense, 1))
    out = (size - 1) // stride + 1
    work = kind.workload(dense, (1, channels[0], size, size), (1, channels[1], out, out))
    assert round(dense.weight.numel() / (network.numel / 2)) == parameters
    assert round(work.dense_flops / (work.flops(network) / 2)) == macs


# -- T10, T11: Tucker-2 first -----------------------------------------------------------------------------------------


def test_merged_and_five_layer_blocks_are_the_same_kernel():
    """T10: 1x1, 1x1, depthwise, 1x1, 1x1 and the merged three, to 1e-12; and the sensitivity of the five, in closed form."""
    layout = CPLayout.of(Network.parse("o r, r k, r i -> o k i", {"o": 12, "k": 9, "i": 10, "r": 6}))
    a, b, c = (torch.randn(n, 6, dtype=torch.float64) for n in (9, 4, 5))
    u, v = (torch.linalg.qr(torch.randn(n, q, dtype=torch.float64)).Q for n, q in ((10, 4), (12, 5)))
    three, merged = join_bases(layout, [a, b, c], (u, v), [False, False])
    five, apart = join_bases(layout, [a, b, c], (u, v), [True, True])
    assert (len(three.factors), len(five.factors)) == (3, 5)
    torch.testing.assert_close(assemble(five, apart), assemble(three, merged), rtol=1e-12, atol=1e-12)
    assert five.numel == 10 * 4 + 4 * 6 + 9 * 6 + 6 * 5 + 5 * 12
    x = torch.randn(2, 10, 7, 7, dtype=torch.float64)
    y = torch.nn.functional.conv2d(x, u.T[:, :, None, None])
    y = torch.nn.functional.conv2d(y, b.T[:, :, None, None])
    y = torch.nn.functional.conv2d(y, a.T.reshape(6, 1, 3, 3), groups=6)
    y = torch.nn.functional.conv2d(torch.nn.functional.conv2d(y, c[:, :, None, None]), v[:, :, None, None])
    dense = assemble(three, merged)[0].permute(0, 2, 1).reshape(12, 10, 3, 3)
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, dense), rtol=1e-12, atol=1e-12)
    norms = [f.square().sum(0) for f in (a, b, c)]
    core = torch.einsum("kr,br,cr->kbc", a, b, c).square().sum()
    pairs = 9 * norms[1] * norms[2] + 4 * norms[0] * norms[2] + 5 * norms[0] * norms[1]
    torch.testing.assert_close(sensitivity(five, apart)[0], pairs.sum() + (10 + 12) * core, rtol=1e-12, atol=0)


def alternating_ranks(tensor: Tensor, delta: float) -> tuple[int, int]:
    """Ranks (of axis 0, of axis 1) of (n_a, n_b, n_k), one mode after the other, beginning with no truncation of the second."""
    needed = (1 - delta**2) * tensor.square().sum()
    bases = [torch.eye(n, dtype=torch.float64) for n in tensor.shape[:2]]
    for _ in range(20):
        for axis in (0, 1):
            reduced = torch.einsum("abk,bq->aqk" if axis == 0 else "abk,aq->bqk", tensor, bases[1 - axis]).flatten(1)
            values, vectors = torch.linalg.eigh(reduced @ reduced.T)
            count = int((values.flip(0).cumsum(0) < needed).sum()) + 1
            bases[axis] = vectors.flip(1)[:, :count]
    return bases[0].shape[1], bases[1].shape[1]


@pytest.mark.parametrize(("i", "o", "delta"), [(24, 32, 0.4), (32, 24, 0.25), (16, 40, 0.5), (20, 20, 0.1)])
def test_joint_tucker2_ranks_cost_no_more_than_alternating_ones(i: int, o: int, delta: float):
    """T11, and the error is within its bound."""
    target = kernel(9, i, o)
    network = Network.parse("i p, p q k, o q -> k i o", {"k": 9, "i": i, "o": o, "p": 1, "q": 1})
    found, solution = tucker2_bounded(target, network, delta)
    assert float(solution.errors) <= delta * (1 + 1e-9)
    for axes in ((1, 2, 0), (2, 1, 0)):
        a, b = alternating_ranks(target[0].permute(axes), delta)
        first, second = (i, o) if axes[0] == 1 else (o, i)
        assert found.numel <= first * a + second * b + 9 * a * b


def test_the_bases_of_a_search_meet_the_bound():
    tensor = kernel(9, 24, 32)[0].permute(1, 2, 0)
    search = Tucker2Search(tensor, 0.3, lambda a, b: a + b)
    ranks = search.run()
    u, v = search.bases
    assert (u.shape[1], v.shape[1]) == ranks and search.best == sum(ranks)
    core = torch.einsum("abk,ap,bq->pqk", tensor, u, v)
    assert float((tensor.square().sum() - core.square().sum()).sqrt()) <= 0.3 * float(tensor.norm())
    torch.testing.assert_close(u.T @ u, torch.eye(ranks[0], dtype=torch.float64), rtol=1e-12, atol=1e-12)


# -- T13, T14 ---------------------------------------------------------------------------------------------------------


def test_planted_kernels_are_recovered_exactly():
    """T13: rank 8, 9x20x20, norm 1; ALS 20, then ridge 1e-3, 1e-5, 0 with 40 steps each: relative errors below 1e-9."""
    network = cp(9, 20, 20, 8)
    target = assemble(network, drawn(network, 3))
    target = target / target.flatten(1).norm(dim=1)[:, None, None, None]
    found = levenberg_marquardt(target, network, penalty="ridge", schedule=(1e-3, 1e-5, 0), steps=40, sweeps=20, tolerance=0)
    assert float(found.errors.amax()) < 1e-9


def test_a_bound_out_of_reach_is_told():
    """T14."""
    network, target = cp(9, 10, 10, 4), kernel(9, 10, 10)
    factors = cp_als(target, network, sweeps=30).factors
    with pytest.raises(ValueError, match="delta is 0.01, but the factors of tensor 0 have the relative error"):
        epc(target, network, factors, delta=0.01)
    with pytest.raises(ValueError, match="delta is 0.01 for tensor 0, but the relative error reached is"):
        levenberg_marquardt(target, network, delta=0.01)
    with pytest.raises(ValueError, match="delta is 0.01, but CP of rank 4 on a core of .* does not reach it"):
        tkd_cpd(target, network, delta=0.01)


@pytest.mark.parametrize(
    ("sizes", "rank"), [((9, 8, 7), 1), ((9, 10, 8), 30), ((9, 1, 12), 5), ((1, 12, 10), 6), ((1, 12, 10), 10)], ids=str
)
def test_small_and_odd_kernels(sizes: tuple[int, int, int], rank: int):
    """T14: rank 1, a rank above all sizes, one input channel, a 1x1 kernel: bounds are kept, nothing is lost on the way."""
    network, target = cp(*sizes, rank), kernel(*sizes)
    found = levenberg_marquardt(target, network)
    best = als(target, network, sweeps=100, ridge=1e-6)
    assert float(found.errors) <= float(best.errors) + 0.02
    corrected = epc(target, network, found.factors, slack=1.05, sweeps=30)
    assert float(corrected.errors[-1]) <= float(corrected.delta) * (1 + 1e-9)
    assert float(corrected.objectives[-1]) <= float(corrected.objectives[0])
    block = tkd_cpd(target, network, slack=1.1)
    assert float(block.solution.errors) <= 1.1 * float(cp_als(target, network, sweeps=50).errors) * (1 + 1e-9) + 1e-12


def test_a_zero_kernel_stays_zero():
    """T14."""
    network, target = cp(9, 6, 5, 3), torch.zeros(1, 9, 6, 5, dtype=torch.float64)
    found = levenberg_marquardt(target, network)
    assert all(bool(f.isfinite().all()) for f in found.factors) and float(assemble(network, found.factors).norm()) < 1e-6
    corrected = epc(target, network, [torch.zeros_like(f) for f in found.factors])
    assert all(float(f.abs().sum()) == 0 for f in corrected.factors) and float(corrected.errors[-1]) == 0
    block = tkd_cpd(target, network)
    assert float(assemble(block.network, block.solution.factors).norm()) < 1e-6


def test_make_fold_and_factors_agree_on_the_order_of_kernel_positions():
    """T9: position p of the folded kernel is (p // kw, p % kw)."""
    fold = make_fold([("o", 2), ("i", 3), ("k", 2), ("k", 3)], 1)
    weight = torch.arange(36.0).reshape(2, 3, 2, 3)
    flat = fold.fold(weight).flatten(2)
    assert all(torch.equal(flat[:, :, p], weight[:, :, p // 3, p % 3]) for p in range(6)) and math.prod(flat.shape) == 36
