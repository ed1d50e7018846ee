"""Hierarchical SVD: any tree, exact at full rank, within the theorem's bound, and what it refuses."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tenfold.fold import Fold, make_fold
from tenfold.formats import HT
from tenfold.formats.ht import parse_tree
from tenfold.network import Network
from tenfold.solvers.ht_svd import ht_svd
from tenfold.solvers.solution import rebuild, relative_errors

TREES = [None, "((1 2) 3) (4 5)", "1 (2 (3 (4 5)))", "(5 1) (2 (4 3))"]
FIVE = make_fold([("o", 48), ("i", 72)], 5, out_modes=(2, 3, 2, 2, 2), in_modes=(3, 2, 3, 2, 2))
THREE = "x a, y b, z c, a b p, p c -> x y z"


def noise(fold: Fold, batch: int = 1, seed: int = 0) -> Tensor:
    """Tensors whose spectra fall, as those of trained weights do."""
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(batch, *fold.sizes.values(), generator=generator, dtype=torch.float64)
    for axis, size in enumerate(fold.sizes.values(), 1):
        tensor = tensor * (torch.arange(1, size + 1) ** -1.0).reshape(-1, *[1] * (tensor.dim() - axis - 1))
    return tensor


def node_tails(fold: Fold, target: Tensor, tree: str | None, network: Network) -> float:
    """What the ranks of all nodes but the root cut from the unfoldings of the tensor itself, relative to its squared norm."""
    pairs = fold.pairs
    total = 0.0

    def walk(node, is_root: bool = False) -> list[int]:
        nonlocal total
        leaves = [node] if isinstance(node, int) else [leaf for child in node for leaf in walk(child)]
        if not is_root:
            side = [mode for leaf in leaves for mode in pairs[leaf - 1]]
            order = [network.modes.index(m) for m in (*side, *(m for m in network.modes if m not in side))]
            matrix = target[0].permute(order).reshape(int(torch.tensor([fold.sizes[m] for m in side]).prod()), -1)
            rank = network.ranks["r" + "_".join(map(str, leaves))]
            total += float(torch.linalg.svdvals(matrix)[rank:].square().sum() / target.square().sum())
        return leaves

    walk(parse_tree(tree or "((1 2) 3) (4 5)", 5), True)
    return total


@pytest.mark.parametrize("tree", TREES)
def test_any_tree_is_within_its_bound_and_exact_at_full_rank(tree: str | None):
    target = noise(FIVE)
    last = 1.0
    for rank in (1, 2, 3, 5):
        network = HT(rank=rank, tree=tree).network(FIVE)
        error = float(ht_svd(target, network).errors)
        assert error**2 <= node_tails(FIVE, target, tree, network) + 1e-12
        assert error <= last + 1e-12
        last = error
    assert float(ht_svd(target, HT(rank=1.0, tree=tree).network(FIVE)).errors) < 1e-10


@pytest.mark.parametrize("tree", TREES)
def test_planted_ranks_are_recovered(tree: str | None):
    network = HT(rank=2, inner_rank=3, tree=tree).network(FIVE)
    planted = rebuild(network, [torch.randn(2, *shape, dtype=torch.float64) for shape in network.shapes])
    solution = ht_svd(planted, network)
    assert float(solution.errors.max()) < 1e-10
    assert_close(solution.errors, relative_errors(planted, network, solution.factors), rtol=1e-9, atol=1e-14)
    assert bool(solution.is_converged.all()) and not bool(solution.is_degenerate.any())


def test_a_batch_is_solved_as_its_tensors_one_by_one():
    network, target = HT(rank=2).network(FIVE), noise(FIVE, 3)
    alone = torch.cat([ht_svd(one[None], network).errors for one in target])
    assert_close(ht_svd(target, network).errors, alone)


def test_factors_have_equal_root_mean_squares():
    factors = ht_svd(noise(FIVE), HT(rank=3).network(FIVE)).factors
    sizes = torch.stack([factor.square().mean().sqrt() for factor in factors])
    assert_close(sizes, sizes[:1].expand_as(sizes))


def test_axes_may_stand_in_any_order():
    """Ranks before the modes, a joint whose own rank comes first, factors in any order."""
    sizes = {"x": 4, "y": 5, "z": 6, "a": 4, "b": 5, "c": 6, "p": 6}
    network = Network.parse("p c, p b a, c z, b y, x a -> x y z", sizes)
    target = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    assert float(ht_svd(target, network).errors) < 1e-12


@pytest.mark.parametrize("statement", ["x a, a y b, b z -> x y z", "x a, y b, z c, a b c -> x y z", "x a y, a z -> x y z"])
def test_every_network_without_loops_is_a_tree(statement: str):
    network = Network.parse(statement, dict.fromkeys("xyzabc", 4))
    assert float(ht_svd(torch.randn(1, 4, 4, 4, dtype=torch.float64), network).errors) < 1e-12


@pytest.mark.parametrize("statement", ["a x b, b y c, c z a -> x y z", "x r, y r, z r -> x y z", "x a, y a, z -> x y z"])
def test_loops_hyper_edges_and_loose_factors_are_refused(statement: str):
    network = Network.parse(statement, dict.fromkeys("xyzabcr", 3))
    with pytest.raises(ValueError, match="is not a tree with a root; use als for other networks"):
        ht_svd(torch.randn(1, 3, 3, 3, dtype=torch.float64), network)


def test_what_does_not_fit_is_refused():
    network = Network.parse(THREE, {"x": 3, "y": 3, "z": 3, "a": 2, "b": 2, "c": 2, "p": 2})
    with pytest.raises(ValueError, match=r"the tensors have shape \(3, 3\), but .* needs \(3, 3, 3\); fold them first"):
        ht_svd(torch.zeros(1, 3, 3), network)
    with pytest.raises(ValueError, match="the tensor has 1 values that are NaN or infinite of 27; all must be finite"):
        bad = torch.zeros(1, 3, 3, 3)
        bad[0, 0, 0, 0] = torch.inf
        ht_svd(bad, network)
