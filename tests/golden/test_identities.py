"""Formats that are special cases of each other, and the rank that the matrix of a format can have.

For a sum of Kronecker products KCP(R):  W = sum_r A_r1 (x) A_r2 (x) A_r3  is TTM with diagonal cores, BT of rank-one blocks, HT and
merged Tucker with superdiagonal tensors; CP is KCP whose matrices have rank one. Van Loan and Pitsianis 1993 give two factors' best fit.
"""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tenfold.fold import Fold, make_fold
from tenfold.format import Format
from tenfold.formats import BT, CP, FCTN, HT, KCP, KT, LMTN, STR, STT, SVD, TR, TRM, TT, TTM, LoHa, LoKr, Monarch, STTu, Tucker
from tenfold.network import Network
from tenfold.solvers.solution import rebuild
from tenfold.weight import FactorizedWeight

OUT, IN, R = (2, 3, 2), (3, 2, 4), 3
FOLD = make_fold([("o", 12), ("i", 24)], 3, out_modes=OUT, in_modes=IN)
PAIR = make_fold([("o", 24), ("i", 30)], 2, out_modes=(4, 6), in_modes=(5, 6))


def matrices(rank: int = R) -> list[Tensor]:
    """A_k of shape (R, o_k, i_k)."""
    return [torch.randn(rank, o, i, dtype=torch.float64) for o, i in zip(OUT, IN, strict=True)]


def kronecker(factors: Sequence[Tensor]) -> Tensor:
    """The sum over r of torch.kron of the matrices."""
    terms = []
    for parts in zip(*factors, strict=True):
        term = parts[0]
        for part in parts[1:]:
            term = torch.kron(term, part)
        terms.append(term)
    return torch.stack(terms).sum(0)


def dense(format: Format, factors: Sequence[Tensor], fold: Fold = FOLD) -> Tensor:
    return FactorizedWeight(format.network(fold), fold, [factor.contiguous() for factor in factors]).dense().detach()


def superdiagonal(order: int, rank: int = R) -> Tensor:
    tensor = torch.zeros((rank,) * order, dtype=torch.float64)
    for r in range(rank):
        tensor[(r,) * order] = 1
    return tensor


def test_kcp_is_a_sum_of_kronecker_products() -> None:
    factors = matrices()
    assert_close(dense(KCP(rank=R), factors), kronecker(factors))
    assert_close(dense(KT(rank=R), factors), kronecker(factors))
    assert KCP(rank=R).network(FOLD) == KT(rank=R).network(FOLD)


def test_kcp_is_ttm_with_diagonal_cores() -> None:
    a, b, c = matrices()
    middle = torch.einsum("roi,rs->rois", b, superdiagonal(2))
    assert_close(dense(TTM(rank=R), [a.movedim(0, -1), middle, c]), kronecker([a, b, c]))


def test_kcp_is_bt_of_rank_one() -> None:
    factors = matrices()
    blocks = BT(rank=1, blocks=R)
    core = torch.ones(R, 1, 1, 1, dtype=torch.float64)
    assert_close(dense(blocks, [*(factor[..., None] for factor in factors), core]), kronecker(factors))
    assert blocks.network(FOLD).numel == KCP(rank=R).network(FOLD).numel + R, "one scale for each term"


@pytest.mark.parametrize("tree", [None, "(1 2) 3", "1 (2 3)", "(3 1) 2"])
def test_kcp_is_ht_with_superdiagonal_tensors(tree: str | None) -> None:
    factors = matrices()
    tensors = [*(factor.movedim(0, -1) for factor in factors), superdiagonal(3), superdiagonal(2)]
    assert_close(dense(HT(rank=R, tree=tree), tensors), kronecker(factors))


def test_kcp_is_merged_tucker_with_a_superdiagonal_core() -> None:
    factors = matrices()
    network = Network.parse("o1 i1 a, o2 i2 b, o3 i3 c, a b c -> o1 o2 o3 i1 i2 i3", {**FOLD.sizes, "a": R, "b": R, "c": R})
    tensors = [*(factor.movedim(0, -1) for factor in factors), superdiagonal(3)]
    assert_close(rebuild(network, [tensor[None] for tensor in tensors])[0].reshape(12, 24), kronecker(factors))


def test_cp_is_kcp_of_inner_rank_one() -> None:
    left = [torch.randn(R, o, 1, dtype=torch.float64) for o in OUT]
    right = [torch.randn(R, 1, i, dtype=torch.float64) for i in IN]
    kcp = dense(KCP(rank=R, inner_rank=1), [factor for pair in zip(left, right, strict=True) for factor in pair])
    cp = dense(CP(rank=R), [*(one[..., 0].T for one in left), *(one[:, 0] for one in right)])
    assert_close(kcp, cp)
    assert_close(kcp, kronecker([a @ b for a, b in zip(left, right, strict=True)]))
    assert KCP(rank=R, inner_rank=1).network(FOLD).numel == CP(rank=R).network(FOLD).numel == R * (sum(OUT) + sum(IN))


def test_lokr_is_kcp_of_rank_one_with_a_low_rank_factor() -> None:
    c, a, b = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, 5), (6, 2), (2, 6)))
    assert_close(dense(LoKr(rank=2), [c, a, b], PAIR), dense(KCP(rank=1), [c[None], (a @ b)[None]], PAIR))


def test_loha_is_a_product_entry_by_entry() -> None:
    a, b, c, d = (torch.randn(*shape, dtype=torch.float64) for shape in ((24, 3), (3, 30), (24, 2), (2, 30)))
    fold = make_fold([("o", 24), ("i", 30)], 1)
    assert_close(dense(LoHa(rank=(3, 2)), [a, b, c, d], fold), (a @ b) * (c @ d))


def test_a_fully_connected_network_of_three_is_a_ring() -> None:
    first, second, third = (torch.randn(2, 2, o, i, dtype=torch.float64) for o, i in zip(OUT, IN, strict=True))
    ring = [first.movedim(1, -1), second.movedim(1, -1), third.movedim(1, -1)]  # (before, o, i, after)
    connected = [first.transpose(0, 1), second, third.transpose(0, 1)]  # (r1_2, r1_3), (r1_2, r2_3), (r1_3, r2_3)
    assert_close(dense(TRM(rank=2), ring), dense(FCTN(rank=2), connected))


def test_a_ring_with_one_bond_of_size_one_is_a_chain() -> None:
    cores = [torch.randn(*shape, dtype=torch.float64) for shape in ((1, 4, 2), (2, 6, 3), (3, 5, 4), (4, 6, 1))]
    chain = [cores[0][0], cores[1], cores[2], cores[3][..., 0]]
    assert_close(dense(TR(rank=(1, 2, 3, 4)), cores, PAIR), dense(TT(rank=(2, 3, 4)), chain, PAIR))


def test_monarch_is_a_product_of_block_diagonal_matrices() -> None:
    """W = P' L P R (Dao et al. 2022, section 3.1) for rank 1: R has a block for each i1, L one for each o2, P regroups the features."""
    o1, o2, i1, i2 = 4, 6, 5, 6
    first = torch.randn(o1, o2, i1, 1, dtype=torch.float64)
    second = torch.randn(1, o2, i1, i2, dtype=torch.float64)
    right = torch.block_diag(*(second[0, :, a] for a in range(i1)))  # (i1 o2) x (i1 i2)
    left = torch.block_diag(*(first[:, b, :, 0] for b in range(o2)))  # (o2 o1) x (o2 i1)
    regroup = torch.eye(i1 * o2, dtype=torch.float64).reshape(i1, o2, -1).transpose(0, 1).reshape(i1 * o2, -1)  # to (o2 i1)
    back = torch.eye(o2 * o1, dtype=torch.float64).reshape(o2, o1, -1).transpose(0, 1).reshape(o2 * o1, -1)  # to (o1 o2)
    assert_close(dense(Monarch(rank=1), [first, second], PAIR), back @ left @ regroup @ right)


def test_semi_tensor_products_are_products_with_an_identity() -> None:
    """STTu is Tucker whose matrices are U (x) I; a chain of two STT cores is (A (x) I_t) times B."""
    fold = make_fold([("o", 8), ("i", 6)], 1)
    format = STTu(rank=(3, 2))
    network = format.network(fold)
    u, core, v = (torch.randn(*shape, dtype=torch.float64) for shape in network.shapes)
    eye = torch.eye(2, dtype=torch.float64)
    wanted = torch.kron(u, eye) @ core.reshape(6, 4) @ torch.kron(v, eye)
    assert_close(FactorizedWeight(network, format.fold(fold), [u, core, v]).dense().detach(), wanted)
    assert network.numel == 4 * 3 + 6 * 4 + 2 * 3
    chain = STT(rank=2)
    network = chain.network(fold)
    a, b = (torch.randn(*shape, dtype=torch.float64) for shape in network.shapes)
    assert_close(FactorizedWeight(network, chain.fold(fold), [a, b]).dense().detach(), torch.kron(a, eye) @ b.reshape(4, 6))


def test_multi_group_kt_is_a_sum() -> None:
    format = KT(rank=(2, 3), groups=((2, 1), (1, 2)))
    a, b, c, d = (torch.randn(*shape, dtype=torch.float64) for shape in format.network(FOLD).shapes)
    first = kronecker([a.permute(0, 1, 3, 2, 4).reshape(2, 6, 6), b])
    second = kronecker([c, d.permute(0, 1, 3, 2, 4).reshape(3, 6, 8)])
    assert_close(dense(format, [a, b, c, d]), first + second)


@pytest.mark.parametrize("format", [KT(), KCP()], ids=repr)
def test_two_kronecker_factors_are_fitted_by_an_svd(format: Format) -> None:
    """The squared error at rank r is the sum of the squared singular values that r leaves out of the (o1 i1) x (o2 i2) matrix."""
    weight = torch.randn(24, 30, dtype=torch.float64)
    unfolded = weight.reshape(4, 6, 5, 6).permute(0, 2, 1, 3).reshape(20, 36)
    squared = torch.linalg.svdvals(unfolded).square()
    for rank in (1, 2, 7, 20):
        ranked = dataclasses.replace(format, rank=rank)
        solution = ranked.solve(PAIR.fold(weight)[None], ranked.network(PAIR))
        left_out = float(squared[rank:].sum() / squared.sum())
        assert float(solution.errors) ** 2 == pytest.approx(left_out, rel=1e-9, abs=1e-24)
        if rank == 20:
            assert_close(kronecker([factor[0] for factor in solution.factors]), weight)


# -- the rank of the matrix -------------------------------------------------------------------------------------------

RANKS = [
    (SVD(rank=5), 5),
    (CP(rank=3), 3),
    (Tucker(rank=(2, 4, 3, 2)), 6),  # min(2 * 4, 3 * 2): the product of the ranks of one side
    (TT(rank=(3, 5, 4)), 5),  # the bond between output and input
    (TR(rank=(2, 3, 3, 4)), 6),  # the two bonds between output and input
    (LoHa(rank=(3, 2)), 6),  # r s
    (LoKr(rank=2), 4 * 2),  # min(o1, i1) r
    (KCP(rank=1), 4 * 6),  # prod min(o_k, i_k)
    (KCP(rank=2), 24),
    (TTM(rank=1), 24),
    (TRM(rank=1), 24),
    (BT(rank=1, blocks=1), 24),
    (HT(rank=1), 24),
    (FCTN(rank=1), 24),
    (LMTN(rank=1), 24),
    (Monarch(rank=1), 24),
    (STTu(rank=(1, 1, 1, 1)), 2),  # Tucker of nominal ranks (2, 2; 1, 2): t divides all modes but the 5
    (STTu(rank=(1, 1, 2, 1)), 4),
    (STT(rank=(1, 2, 1)), 4),  # the bond between output and input: 2 stored, times t
    (STR(rank=(1, 2, 1, 1)), 4),
]


@pytest.mark.parametrize(("format", "bound"), RANKS, ids=lambda one: repr(one))
def test_rank_of_the_matrix(format: Format, bound: int) -> None:
    """The bound from the statement is the known one, and generic values reach it."""
    weight = FactorizedWeight(format.network(PAIR), format.fold(PAIR), dtype=torch.float64)
    weight.init_normal_(1.0)
    assert weight.network.matrix_rank_bound() == bound
    assert int(torch.linalg.matrix_rank(weight.dense().detach())) == bound


def test_a_kronecker_term_that_expands_a_mode_has_lower_rank() -> None:
    """With (8, 20, 20, 18) -> (16, 4, 4, 4) a term has at most the rank 8 4 4 4 of 1,024; with the gates on another mode it is full."""
    fold = make_fold([("o", 1024), ("i", 57_600)], 4, in_modes=(8, 20, 20, 18), out_modes=(16, 4, 4, 4))
    assert KCP(rank=1).network(fold).matrix_rank_bound() == 512
    gated = make_fold([("o", 1024), ("i", 57_600)], 4, in_modes=(8, 20, 20, 18), out_modes=(4, 4, 4, 4), gates=4)
    assert KCP(rank=1).network(gated).matrix_rank_bound() == 1024


def test_rank_of_the_tr_lstm() -> None:
    """Bonds of 10 and 5 between output and input: at most 50 of 1,024."""
    fold = make_fold([("o", 1024), ("i", 57_600)], 1, in_modes=(4, 2, 5, 8, 6, 5, 3, 2), out_modes=(16, 4, 2, 4, 2))
    assert TR(rank=(5,) * 5 + (10,) + (5,) * 7).network(fold).matrix_rank_bound() == 50


def test_groups_of_a_kronecker_decomposition_add_their_ranks() -> None:
    fold = make_fold([("o", 8), ("i", 8)], 3, out_modes=(4, 1, 2), in_modes=(1, 4, 2))
    for groups, bound in ((((1, 2),), 2), (((1, 1, 1),), 2), (((1, 2), (1, 1, 1)), 4), (((2, 1),), 8)):
        weight = FactorizedWeight(KT(rank=1, groups=groups).network(fold), fold, dtype=torch.float64)
        weight.init_normal_(1.0)
        assert int(torch.linalg.matrix_rank(weight.dense().detach())) == weight.network.matrix_rank_bound() == bound


@pytest.mark.parametrize(
    "kind", [CP, TT, TR, TTM, KCP, HT, BT, LoHa, LoKr, STT, STTu, Tucker, FCTN, LMTN, Monarch, KT], ids=lambda one: one.__name__
)
def test_no_value_exceeds_the_bound(kind: type[Format]) -> None:
    """Uneven modes and ranks: the measured rank is at most the bound of the statement."""
    fold = make_fold([("o", 12), ("i", 12)], 2, out_modes=(2, 6), in_modes=(4, 3))
    for rank in (1, 2):
        format = kind(rank=rank)
        weight = FactorizedWeight(format.network(fold), format.fold(fold), dtype=torch.float64)
        weight.init_normal_(1.0)
        assert int(torch.linalg.matrix_rank(weight.dense().detach())) <= weight.network.matrix_rank_bound() <= math.prod((2, 6))
