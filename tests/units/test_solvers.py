"""Solvers against planted tensors, theorems, each other and tensorly."""

import warnings

import pytest
import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.hosvd import hosvd
from tenfold.solvers.solution import rebuild, relative_errors
from tenfold.solvers.tt_svd import truncated_svd, tt_svd

CP3 = "o r, r k, r i -> o k i"
RING = "a x b, b y c, c z a -> x y z"
TRAIN = "x a, a y b, b z -> x y z"
TUCKER = "o a, a b k, b i -> o k i"


def cp(o: int, k: int, i: int, rank: int) -> Network:
    return Network.parse(CP3, {"o": o, "k": k, "i": i, "r": rank})


def planted(network: Network, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return rebuild(network, [torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in network.shapes])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("statement", [CP3, RING, TRAIN, TUCKER])
def test_als_recovers_planted_tensors_of_any_network(statement: str):
    names = set(statement.replace(",", " ").replace("->", " ").split())
    network = Network.parse(statement, {name: 2 if name in "abcr" else 6 for name in names})
    assert float(als(planted(network), network, sweeps=300).errors.max()) < 1e-5


SUM = "x a, a y z + x b y, b z + x y c, z c -> x y z"


@pytest.mark.parametrize("statement", [SUM, "r x y, r z + s x, s y z -> x y z", "x a, y a, z a + x b, b y z -> x y z"])
def test_als_recovers_planted_sums_of_networks(statement: str):
    names = set(statement.replace(",", " ").replace("+", " ").replace("->", " ").split())
    network = Network.parse(statement, {name: 6 if name in "xyz" else 2 for name in names})
    solution = als(planted(network, 2), network, sweeps=300, tolerance=1e-12)
    assert float(solution.errors.max()) < 1e-5
    assert bool((solution.history.diff(dim=0) <= 1e-12).all())
    torch.testing.assert_close(solution.errors, relative_errors(planted(network, 2), network, solution.factors))


def test_a_sum_of_two_products_is_one_product_of_both_ranks():
    """Alternating over the terms reaches the singular value decomposition of the sum of the ranks."""
    network = Network.parse("o r, r i + o s, s i -> o i", {"o": 9, "i": 8, "r": 2, "s": 1})
    target = noise(2, 9, 8)
    best = torch.linalg.svdvals(target)[:, 3:].square().sum(1).sqrt() / target.flatten(1).norm(dim=1)
    torch.testing.assert_close(als(target, network, sweeps=500, tolerance=1e-12).errors, best, rtol=1e-4, atol=0)


def test_als_goes_on_from_the_factors_of_a_sum():
    """Of another scale than one: the first factor of each term takes it."""
    network = Network.parse(SUM, {**dict.fromkeys("xyz", 5), **dict.fromkeys("abc", 2)})
    factors = [100 ** (1 / 2) * noise(1, *shape, seed=k) for k, shape in enumerate(network.shapes)]
    target = rebuild(network, factors)
    assert float(als(target, network, sweeps=2, start=factors).history[0]) < 1e-4
    assert float(als(target, network, sweeps=2).history[0]) > 0.01


def test_cp_als_recovers_planted_kernels():
    network = cp(12, 9, 10, 4)
    assert float(cp_als(planted(network, 3), network, sweeps=300).errors.max()) < 1e-3  # the ridge keeps it from being exact


@pytest.mark.parametrize("solver", [als, cp_als])
def test_iterative_solvers_are_deterministic_and_never_rise(solver):
    network = cp(12, 9, 8, 6)
    target = noise(2, 12, 9, 8)
    one, two = solver(target, network, sweeps=40, seed=3), solver(target, network, sweeps=40, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.factors, two.factors, strict=True))
    assert bool((one.history.diff(dim=0) <= 1e-6).all()) and len(one.history) > 3
    torch.testing.assert_close(one.errors, relative_errors(target, network, one.factors))


def test_a_batch_is_solved_as_well_as_its_tensors_one_by_one():
    network, target = cp(12, 9, 8, 10), noise(3, 12, 9, 8)
    together = cp_als(target, network, sweeps=100).errors
    alone = torch.cat([cp_als(one[None], network, sweeps=100).errors for one in target])
    torch.testing.assert_close(together, alone, rtol=0.05, atol=0)


def test_float32_sweeps_are_harmless():
    network, target = cp(16, 9, 16, 20), noise(1, 16, 9, 16)
    fast, exact = (float(cp_als(target, network, dtype=dtype, ridge=1e-5).errors) for dtype in (torch.float32, torch.float64))
    assert fast == pytest.approx(exact, rel=0.02)


def test_a_border_rank_tensor_is_called_degenerate():
    """W = a.a.b + a.b.a + b.a.a has rank 3 but is a limit of rank 2: two huge terms cancel (de Silva and Lim 2008)."""
    a, b = torch.eye(2, dtype=torch.float64)
    w = sum(torch.einsum("i,j,k->ijk", *v) for v in ((a, a, b), (a, b, a), (b, a, a)))[None]
    network = cp(2, 2, 2, 2)
    free = als(w, network, sweeps=2000, tolerance=0.0, seed=1)
    assert bool(free.is_degenerate[0])
    with pytest.warns(
        UserWarning, match="is degenerate: its terms cancel each other; fine-tuning may be unstable: lower the rank, correct"
    ):
        free.warn(["conv"])
    assert not bool(cp_als(w, network, sweeps=300, ridge=1e-2).is_degenerate[0])


def test_a_fit_that_did_not_converge_warns_and_one_that_did_does_not():
    network = cp(16, 9, 16, 24)
    with pytest.warns(UserWarning, match="conv did not converge; allow more sweeps"):
        cp_als(noise(1, 16, 9, 16), network, sweeps=3).warn(["conv"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        truncated_svd(noise(1, 6, 5), Network.parse("o r, r i -> o i", {"o": 6, "i": 5, "r": 2})).warn(["linear"])


@pytest.mark.parametrize("solver", [als, cp_als])
@pytest.mark.parametrize("rank", [1, 40])
def test_rank_one_and_ranks_above_all_sizes(solver, rank: int):
    solution = solver(noise(1, 5, 4, 6), cp(5, 4, 6, rank), sweeps=60)
    assert torch.isfinite(solution.errors).all() and float(solution.errors) < (1.0 if rank == 1 else 0.1)


@pytest.mark.parametrize("solver", [als, cp_als])
def test_a_zero_tensor_has_no_error(solver):
    solution = solver(torch.zeros(1, 5, 4, 6), cp(5, 4, 6, 3))
    assert float(solution.errors) < 1e-6 and all(torch.isfinite(factor).all() for factor in solution.factors)


def test_direct_solvers_are_exact_at_full_rank_and_within_their_bounds():
    target = noise(2, 6, 5, 7)
    train = Network.parse(TRAIN, {"x": 6, "y": 5, "z": 7, "a": 6, "b": 7})
    assert float(tt_svd(target, train).errors.max()) < 1e-10
    tails = [target.flatten(2), target.flatten(1, 2)]  # the two bonds
    last = 1.0
    for rank in (1, 2, 4, 6):
        found = tt_svd(target, train.resized({"a": rank, "b": rank})).errors
        cut = sum(torch.linalg.svdvals(matrix)[:, rank:].square().sum(1) for matrix in tails)
        assert bool((found <= (cut / target.flatten(1).square().sum(1)).sqrt() + 1e-9).all())
        assert float(found.max()) <= last + 1e-9
        last = float(found.max())


def test_hosvd_is_within_its_bound_and_orthogonal_iteration_improves_it():
    target, network = noise(1, 8, 4, 7), Network.parse(TUCKER, {"o": 8, "k": 4, "i": 7, "a": 3, "b": 3})
    plain, improved = hosvd(target, network, sweeps=0).errors, hosvd(target, network, sweeps=20).errors
    unfoldings = target.flatten(2), target.movedim(3, 1).flatten(2)
    cut = sum(torch.linalg.svdvals(matrix)[:, 3:].square().sum(1) for matrix in unfoldings)
    assert float(improved) <= float(plain) + 1e-12
    assert float(plain) <= float((cut / target.square().sum()).sqrt()) + 1e-9


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"the tensors have shape \(5, 4\), but .* needs \(5, 4, 6\); fold them first"):
        als(noise(1, 5, 4), cp(5, 4, 6, 2))
    with pytest.raises(ValueError, match="the tensor has 1 values that are NaN or infinite of 120; all must be finite"):
        bad = noise(1, 5, 4, 6)
        bad[0, 0, 0, 0] = torch.nan
        cp_als(bad, cp(5, 4, 6, 2))
    with pytest.raises(ValueError, match="is not a chain"):
        tt_svd(noise(1, 5, 4, 6), cp(5, 4, 6, 2))
    with pytest.raises(ValueError, match="is not a Tucker network"):
        hosvd(noise(1, 5, 4, 6), cp(5, 4, 6, 2))


def test_als_reaches_the_error_of_tensorly():
    tensorly = pytest.importorskip("tensorly", reason="the oracle is tensorly")
    from tensorly.decomposition import parafac

    tensorly.set_backend("pytorch")
    target, network = noise(1, 16, 9, 12), cp(16, 9, 12, 14)
    cp_theirs = parafac(target[0], 14, n_iter_max=100, init="svd", random_state=0, tol=0)
    theirs = float((tensorly.cp_to_tensor(cp_theirs) - target[0]).norm() / target.norm())
    for solver in (als, cp_als):
        assert float(solver(target, network, sweeps=100, ridge=1e-7).errors) <= theirs * 1.005
