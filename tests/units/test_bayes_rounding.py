"""Deciding ranks: rounding of trees, components of all other networks, the maps that carry gradients, and selection."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tenfold.bayes.components import slice_gram
from tenfold.bayes.refit import refit, relative_change, squared_norm
from tenfold.bayes.rounding import round_tree, spectra
from tenfold.bayes.shrink import RankedWeight, Rounding, Selection
from tenfold.bayes.weight_moments import relative_spread
from tenfold.bayes.weighting import IdFrequencies, mode_roots
from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.formats import BT, CP, FCTN, HT, KCP, KT, SVD, TR, TRM, TT, TTM, LoHa, LoKr, Monarch, Tucker
from tenfold.network import Network
from tenfold.solvers.quadratic import assemble
from tenfold.weight import FactorizedWeight

TRIPLES = make_fold([("o", 24), ("i", 36)], 3, out_modes=(2, 3, 4), in_modes=(3, 3, 4))
PAIRS = make_fold([("o", 24), ("i", 36)], 2, out_modes=(4, 6), in_modes=(6, 6))
GROUPED = make_fold([("o", 24), ("i", 8), ("k", 3), ("k", 3)], 1, groups=2)
TREES = [(SVD, PAIRS, 3, 8), (Tucker, PAIRS, 2, 4), (TT, TRIPLES, 2, 4), (TTM, TRIPLES, 3, 6), (HT, TRIPLES, 2, 4), (Monarch, PAIRS, 2, 3)]
OTHERS = [(CP, TRIPLES, 3, 7), (KCP, TRIPLES, 3, 6), (TR, PAIRS, 2, 4), (TRM, TRIPLES, 2, 3), (LoHa, PAIRS, 2, 3), (FCTN, TRIPLES, 2, 3)]
GROUPS = [(SVD, GROUPED, 3, 6), (Tucker, GROUPED, 2, 4), (TT, GROUPED, 2, 4), (CP, GROUPED, 2, 4)]


def dense(network: Network, factors: list[Tensor]) -> Tensor:
    return assemble(network, [one[None] for one in factors])[0]


def hidden(small: Format, large: Format, fold: Fold, noise: float = 0.0) -> tuple[Network, Network, list[Tensor]]:
    """Networks of small and large ranks and factors of the large ranks for a weight of the small ones, in a random basis."""
    one, two = small.network(fold), large.network(fold)
    weight = FactorizedWeight(one, fold, dtype=torch.float64)
    weight.init_normal_(1.0)
    factors = []
    for shape, value in zip(two.shapes, weight.factors, strict=True):
        padded = noise * torch.randn(shape, dtype=torch.float64)
        padded[tuple(slice(0, n) for n in value.shape)] += value.detach()
        factors.append(padded)
    for rank, size in two.ranks.items():
        if len(carriers := two.carriers(rank)) == 2:
            basis = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q @ torch.diag(torch.rand(size).double() + 0.5)
            for (number, axis), matrix in zip(carriers, (basis, torch.linalg.inv(basis).T), strict=True):
                factors[number] = (factors[number].movedim(axis, -1) @ matrix).movedim(-1, axis)
    return one, two, factors


@pytest.mark.parametrize(("kind", "fold", "rank", "large"), [*TREES, *OTHERS, *GROUPS])
def test_hidden_ranks_are_found_in_any_basis(kind: type[Format], fold: Fold, rank: int, large: int) -> None:
    small, network, factors = hidden(kind(rank=rank), kind(rank=large), fold, noise=1e-6)
    made = Rounding(0.01).reduce(RankedWeight("w", network, fold, factors))
    assert dict(made.sizes) == small.ranks
    assert made.error < 1e-3
    assert_close(dense(network.resized(made.sizes), list(made.factors)), dense(network, factors), rtol=0, atol=1e-3)


def test_blocks_and_their_ranks_are_found() -> None:
    small, network, factors = hidden(BT(rank=2, blocks=2), BT(rank=3, blocks=3), PAIRS)
    assert dict(Rounding(0.01).reduce(RankedWeight("w", network, PAIRS, factors)).sizes) == small.ranks


def test_trees() -> None:
    assert all(kind(rank=rank).network(fold).is_tree for kind, fold, rank, _ in TREES)
    assert not any(kind(rank=rank).network(fold).is_tree for kind, fold, rank, _ in OTHERS)
    assert TR(rank=(1, 2, 2, 2)).network(PAIRS).is_tree  # a rank of size 1 joins nothing


@pytest.mark.parametrize(("kind", "fold", "rank", "large"), TREES)
@pytest.mark.parametrize("tolerance", [0.5, 0.2, 0.05])
def test_error_of_a_tree_is_within_its_bound(kind: type[Format], fold: Fold, rank: int, large: int, tolerance: float) -> None:
    network = kind(rank=large).network(fold)
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    sizes, _, bound = round_tree(network, factors, tolerance)
    made = Rounding(tolerance).reduce(RankedWeight("w", network, fold, factors))
    assert dict(made.sizes) == sizes
    before, after = dense(network, factors), dense(network.resized(sizes), list(made.factors))
    error = float((before - after).norm() / before.norm())
    assert error <= bound * (1 + 1e-9) + 1e-12 and bound <= tolerance
    assert made.error == pytest.approx(error, abs=1e-7)


def test_spectra_are_those_of_the_unfoldings() -> None:
    network = TT(rank=(3, 4, 2)).network(PAIRS)
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    found, tensor = spectra(network, factors), dense(network, factors)
    for number, rank in enumerate(network.ranks, 1):
        values = torch.linalg.svdvals(tensor.flatten(0, number - 1).flatten(1))[: network.ranks[rank]]
        assert_close(found[rank][: len(values)], values)


@pytest.mark.parametrize(("kind", "fold", "rank", "large"), [*TREES, *GROUPS[:3]])
def test_maps_carry_gradients_by_the_chain_rule(kind: type[Format], fold: Fold, rank: int, large: int) -> None:
    _, network, factors = hidden(kind(rank=rank), kind(rank=large), fold)
    made = Rounding(1e-6).reduce(RankedWeight("w", network, fold, factors))
    direction = torch.randn(network.shape, dtype=torch.float64)

    def gradients(net: Network, values: list[Tensor]) -> list[Tensor]:
        leaves = [one.detach().clone().requires_grad_() for one in values]
        (dense(net, leaves) * direction).sum().backward()
        return [one.grad for one in leaves if one.grad is not None]

    new = gradients(network.resized(made.sizes), list(made.factors))
    for number, old in enumerate(gradients(network, factors)):
        assert_close(made.gradients(number, old), new[number], rtol=1e-6, atol=1e-6)
        assert_close(made.values(number, factors[number]), made.factors[number])
        assert (made.squared_gradients(number, old.square()) >= 0).all()


def test_collinear_components_are_merged() -> None:
    """Two components that differ by 1 % become one whose norm is that of their sum."""
    network = CP(rank=3).network(PAIRS)
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    for factor, (_, axis) in zip(factors, network.carriers("r"), strict=True):
        near = factor.select(axis, 0) + 0.002 * torch.randn(factor.shape[1 - axis], dtype=torch.float64)
        factor.select(axis, 1).copy_(near)
    gram = slice_gram(network, factors, "r")
    assert float(gram[0, 1] / (gram[0, 0] * gram[1, 1]).sqrt()) > 0.99
    made = Rounding(0.02).reduce(RankedWeight("w", network, PAIRS, factors))
    assert made.sizes["r"] == 2 and made.error < 0.01


def test_terms_of_a_sum_are_reduced_each() -> None:
    kind = KT(rank=(1, 2), groups=((2, 1), (1, 2)))
    small, network, factors = hidden(kind, KT(rank=(4, 4), groups=((2, 1), (1, 2))), TRIPLES)
    made = Rounding(0.01).reduce(RankedWeight("w", network, TRIPLES, factors))
    assert dict(made.sizes) == small.ranks and made.error < 1e-3
    factors[2:] = [torch.zeros_like(one) for one in factors[2:]]
    made = Rounding(0.01).reduce(RankedWeight("w", network, TRIPLES, factors))
    assert list(made.sizes.values()) == [1, 1] and not made.is_removed and made.error < 1e-3


def test_factors_that_nothing_joins() -> None:
    small, network, factors = hidden(LoKr(rank=2), LoKr(rank=4), PAIRS)
    assert dict(Rounding(0.01).reduce(RankedWeight("w", network, PAIRS, factors)).sizes) == small.ranks


@pytest.mark.parametrize("kind", [SVD, TT])
def test_inputs_weigh_errors(kind: type[Format]) -> None:
    """Directions in which no input points are free to change: only half of the inputs ever differ from zero."""
    network = kind(rank=8).network(PAIRS)
    matrix = torch.cat([torch.randn(24, 2).double() @ torch.randn(2, 18).double(), torch.randn(24, 18).double()], 1)
    solved = kind(rank=8).solve(PAIRS.fold(matrix)[None], network)
    factors = [one[0] for one in solved.factors]
    moment = torch.cat([torch.ones(18), torch.zeros(18)]).double()
    candidate = RankedWeight("w", network, PAIRS, factors)
    plain, weighted = Rounding(0.05).reduce(candidate), Rounding(0.05, moments={"w": moment}).reduce(candidate)
    after = network.resized(weighted.sizes)
    assert after.numel < network.resized(plain.sizes).numel
    change = PAIRS.unfold(dense(after, list(weighted.factors)) - dense(network, factors))[:, :18]
    assert float(change.norm() / PAIRS.unfold(dense(network, factors))[:, :18].norm()) < 0.06


def test_inputs_weigh_components() -> None:
    """Six of eight components act on inputs that are never seen."""
    network = CP(rank=8).network(PAIRS)
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    number, axis = network.carriers("r")[2]
    assert network.factors[number] == ("r", "i1") and axis == 0
    factors[number][2:, :3] = 0
    moment = torch.cat([torch.ones(18), torch.zeros(18)]).double()
    made = Rounding(0.05, moments={"w": moment}).reduce(RankedWeight("w", network, PAIRS, factors))
    assert made.sizes["r"] == 2
    change = PAIRS.unfold(dense(network.resized(made.sizes), list(made.factors)) - dense(network, factors))[:, :18]
    assert float(change.norm() / PAIRS.unfold(dense(network, factors))[:, :18].norm()) < 0.05


def test_mode_roots_are_those_of_a_kronecker_product() -> None:
    a, b = torch.randn(6, 6).double(), torch.randn(6, 6).double()
    a, b = a @ a.T + torch.eye(6), b @ b.T + torch.eye(6)
    roots = mode_roots(PAIRS, torch.kron(a, b))
    assert_close(roots["i1"] @ roots["i1"], a / a.diagonal().mean(), rtol=1e-3, atol=1e-3)
    assert_close(roots["i2"] @ roots["i2"], b / b.diagonal().mean(), rtol=1e-3, atol=1e-3)
    assert_close(mode_roots(PAIRS, torch.ones(36))["i1"], torch.eye(6).double(), rtol=1e-3, atol=1e-6)


def test_nothing_is_left_of_a_zero_weight_or_of_one_below_its_spread() -> None:
    network = TT(rank=2).network(PAIRS)
    zeros = [torch.zeros(shape, dtype=torch.float64) for shape in network.shapes]
    assert Rounding().reduce(RankedWeight("w", network, PAIRS, zeros)).is_removed
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    wide = [torch.full_like(one, 0.3) for one in factors]
    assert relative_spread(network, factors, wide) > 0.5
    made = Rounding().reduce(RankedWeight("w", network, PAIRS, factors, variances=wide))
    assert made.is_removed and set(made.sizes.values()) == {1} and not any(one.any() for one in made.factors)
    assert not Rounding(n_spreads=0).reduce(RankedWeight("w", network, PAIRS, factors, variances=wide)).is_removed


def test_what_is_not_known_where_inputs_never_are_does_not_count() -> None:
    """Half of the inputs are always zero, and the posterior of their entries is as wide as a prior: it is not read as noise."""
    network = TTM(rank=2).network(PAIRS)
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    wide = [torch.full_like(one, 1e-6) for one in factors]
    for one, indices in zip(wide, network.factors, strict=True):
        if "i1" in indices:
            one.movedim(indices.index("i1"), 0)[3:] = 4.0
    moment = torch.ones(6, 6)
    moment[3:] = 0
    candidate = RankedWeight("w", network, PAIRS, factors, variances=wide)
    assert Rounding().reduce(candidate).is_removed
    assert Rounding(moments={"w": moment.flatten()}).reduce(candidate).sizes == {"r1": 2}
    counted = IdFrequencies({"w": PAIRS})
    counted.add("w", torch.arange(18).reshape(2, 9))
    assert Rounding(moments=counted.moments).reduce(candidate).sizes == {"r1": 2}


def test_counted_digits_are_the_marginals_of_the_ids() -> None:
    ids = torch.randint(0, 36, (500,), generator=torch.Generator().manual_seed(0))
    counted = IdFrequencies({"w": PAIRS})
    for part in ids.split(200):
        counted.add("w", part)
    by_digits, by_ids = mode_roots(PAIRS, counted.moments["w"]), mode_roots(PAIRS, torch.bincount(ids, minlength=36))
    for mode in ("i1", "i2"):
        assert_close(by_digits[mode], by_ids[mode], rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"the moment has the modes \{'i1': 6\}; the weight has \{'i1': 6, 'i2': 6\}: count the ids"):
        mode_roots(PAIRS, {"i1": torch.ones(6)})
    counted.add("w", ids[:0])
    with pytest.raises(ValueError, match="there is no table 'v'; ids can be counted for w: give one of these"):
        counted.add("v", ids)
    for bad in (-1, 36):
        with pytest.raises(IndexError, match=f"IdFrequencies got the id {bad}, but layer 'w' has 36 rows; ids must be 0 to 35: check the"):
            counted.add("w", torch.tensor([3, bad]))
    with pytest.raises(TypeError, match=r"IdFrequencies got ids of the dtype torch.float32; torch.int64 or torch.int32 is needed"):
        counted.add("w", torch.tensor([1.5]))
    padded = IdFrequencies({"w": make_fold([("o", 4), ("i", 10)], 2, in_modes=(3, 4))})
    with pytest.raises(IndexError, match="IdFrequencies got the id 10, but layer 'w' has 10 rows; ids must be 0 to 9: check the"):
        padded.add("w", torch.tensor([10]))


def test_selection_keeps_what_is_marked() -> None:
    network = TT(rank=2).network(PAIRS)
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    marks = {rank: torch.tensor([False, True]) for rank in network.ranks}
    made = Selection().reduce(RankedWeight("w", network, PAIRS, factors, marks))
    assert_close(made.factors[1], factors[1][1:, :, 1:])
    change = dense(network, factors) - dense(network.resized(made.sizes), list(made.factors))
    assert made.error == pytest.approx(float(change.norm() / dense(network, factors).norm()), rel=1e-6)
    marks["r2"] = torch.tensor([False, False])
    assert Selection().reduce(RankedWeight("w", network, PAIRS, factors, marks)).is_removed


def test_refit_never_builds_the_dense_tensor_and_is_exact_where_it_can_be() -> None:
    """10^10 entries, of which the factors hold 200."""
    fold = make_fold([("i", 10**5), ("o", 10**5)], 5, in_modes=(10,) * 5, out_modes=(10,) * 5)
    network = KCP(rank=2).network(fold)
    factors = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    start = [one + 0.1 * torch.randn_like(one) for one in factors]
    fitted, error = refit(network, factors, network, start, sweeps=50)
    assert error / squared_norm(network, factors) < 1e-10
    assert relative_change(network, factors, network, fitted) < 1e-4


def test_bad_settings() -> None:
    for tolerance in (0.0, 1.0, -0.1, 2.0):
        with pytest.raises(ValueError, match=rf"Rounding got the tolerance {tolerance}; it is the relative error .* give one like 0.01"):
            Rounding(tolerance)
    with pytest.raises(ValueError, match="Rounding got n_spreads=-1; it is 0 or a finite number above it: give one like 2.0"):
        Rounding(n_spreads=-1)
    with pytest.raises(ValueError, match=r"the moment has shape \(7,\), .* the weight has 36 inputs and needs \(36,\) or \(36, 36\)"):
        mode_roots(PAIRS, torch.ones(7))
    with pytest.raises(ValueError, match="the weight has 2 groups; weighting by inputs needs one: leave the moment of this layer out"):
        mode_roots(GROUPED, torch.ones(8))
