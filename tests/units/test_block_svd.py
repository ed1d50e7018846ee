"""Blockwise SVD: the best fit of two cores, the bound of longer chains, balance, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tenfold.fold import make_fold
from tenfold.formats import Monarch
from tenfold.network import Network
from tenfold.solvers.block_svd import block_svd
from tenfold.solvers.solution import rebuild, relative_errors
from tenfold.solvers.tt_svd import tt_svd

TWO = make_fold([("o", 24), ("i", 30)], 2, out_modes=(4, 6), in_modes=(5, 6))
THREE = make_fold([("o", 27), ("i", 27)], 3, out_modes=(3, 3, 3), in_modes=(3, 3, 3))
CHAIN = "x a, a y b, b z -> x y z"


def heavy(*shape: int, seed: int = 0) -> Tensor:
    """Cubes of normal numbers: a few entries dominate, so that blocks differ much in size."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3


def block_tails(target: Tensor, shared: list[int], rows: list[int], rank: int) -> float:
    """The squared singular values beyond the rank, of all blocks, relative to the squared norm; axes without the batch."""
    array = target[0].numpy()
    rest = [axis for axis in range(array.ndim) if axis not in (*shared, *rows)]
    sizes = [int(np.prod([array.shape[axis] for axis in group])) for group in (shared, rows)]
    values = np.linalg.svd(array.transpose([*shared, *rows, *rest]).reshape(*sizes, -1), compute_uv=False)
    return float((values[:, rank:] ** 2).sum() / (array**2).sum())


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_two_cores_are_fitted_best(rank: int):
    """The squared error is what the rank cuts from the blocks (o1, i2) of all (o2, i1); modes are o1 o2 i1 i2."""
    network, target = Monarch(rank=rank).network(TWO), heavy(1, 4, 6, 5, 6)
    error = float(block_svd(target, network).errors)
    assert error**2 == pytest.approx(block_tails(target, [1, 2], [0], rank), rel=1e-9, abs=1e-24)


@pytest.mark.parametrize("ranks", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_longer_chains_are_within_the_sum_over_all_bonds(ranks: tuple[int, int]):
    """Blocks of unlike sizes: singular values that are shared out before the next cut would break the bound by up to a quarter."""
    network = Monarch(rank=ranks).network(THREE)
    for seed in range(20):
        target = heavy(1, *[3] * 6, seed=seed)
        cut = block_tails(target, [1, 2, 3], [0], ranks[0]), block_tails(target, [2, 3, 4], [0, 1], ranks[1])
        error = float(block_svd(target, network).errors)
        assert max(cut) - 1e-12 <= error**2 <= sum(cut) + 1e-12


def test_full_rank_is_exact_and_larger_ranks_are_no_worse():
    target, last = heavy(2, *[3] * 6), 1.0
    for fraction in (0.1, 0.4, 0.7, 1.0):
        solution = block_svd(target, Monarch(rank=fraction).network(THREE))
        assert float(solution.errors.max()) <= last + 1e-12
        last = float(solution.errors.max())
    assert last < 1e-10


def test_planted_ranks_are_recovered_and_others_left_empty():
    small, wide = Monarch(rank=1).network(THREE), Monarch(rank=3).network(THREE)
    planted = rebuild(small, [torch.randn(1, *shape, dtype=torch.float64) for shape in small.shapes])
    assert float(block_svd(planted, small).errors) < 1e-12
    solution = block_svd(planted, wide)
    assert_close(solution.errors, relative_errors(planted, wide, solution.factors), rtol=1e-9, atol=1e-14)
    for rank in wide.ranks:
        for k, axis in wide.carriers(rank):
            sizes = solution.factors[k].movedim(axis + 1, 0).flatten(1).norm(dim=1)
            assert bool((sizes[1:] <= 1e-5 * sizes[0]).all())


def test_sizes_are_shared_by_the_cores():
    """Each block's singular values go to both sides alike, and all cores have the same root mean square."""
    first, second = block_svd(heavy(1, 4, 6, 5, 6), Monarch(rank=2).network(TWO)).factors
    left, right = first.square().sum(1), second.square().sum(-1)  # (1, o2, i1, r1) and (1, r1, o2, i1)
    ratio = left / right.movedim(1, -1)
    assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio))
    assert_close(first.square().mean(), second.square().mean())


def test_without_shared_modes_it_is_tt_svd():
    network = Network.parse(CHAIN, {"x": 4, "y": 5, "z": 6, "a": 3, "b": 4})
    target = heavy(2, 4, 5, 6)
    mine, other = block_svd(target, network), tt_svd(target, network)
    assert_close(mine.errors, other.errors)
    assert_close(rebuild(network, mine.factors), rebuild(network, other.factors))


def test_a_rank_above_that_of_the_blocks_and_a_zero_block_are_harmless():
    network = Network.parse("s x r, s r y -> s x y", {"s": 3, "x": 2, "y": 5, "r": 4})
    target = heavy(1, 3, 2, 5)
    target[:, 1] = 0
    solution = block_svd(target, network)
    assert float(solution.errors) < 1e-12 and all(torch.isfinite(factor).all() for factor in solution.factors)
    assert float(block_svd(torch.zeros_like(target), network).errors) == 0


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("x r, y r, z r -> x y z", r"is not a chain: neighbours share the ranks \['r'\]; use als for other networks"),
        ("x a, y b, z a b -> x y z", r"is not a chain: neighbours share the ranks \[\]; use als for other networks"),
        ("a x b, b y c, c z a -> x y z", r"is not a chain: its ranks are \['a', 'b', 'c'\]; use als for other networks"),
        ("s x a, a y b, b s z -> s x y z", r"is not a chain: 's' stands on the factors \[0, 2\], which are no neighbours; use als"),
    ],
)
def test_what_is_no_chain_is_refused(statement: str, message: str):
    network = Network.parse(statement, dict.fromkeys("xyzsabcr", 3))
    with pytest.raises(ValueError, match=message):
        block_svd(torch.zeros(1, *network.shape), network)


def test_what_does_not_fit_is_refused():
    network = Monarch(rank=2).network(TWO)
    with pytest.raises(ValueError, match=r"the tensors have shape \(24, 30\), but .* needs \(4, 6, 5, 6\); fold them first"):
        block_svd(torch.zeros(1, 24, 30), network)
    with pytest.raises(ValueError, match="the tensor has 720 values that are NaN or infinite of 720; all must be finite"):
        block_svd(torch.full((1, 4, 6, 5, 6), torch.nan), network)
