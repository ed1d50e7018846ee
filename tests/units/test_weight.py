"""FactorizedWeight: what its verbs refuse, what it keeps, ranks of its slices."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from tenfold.buckets import bucket
from tenfold.contract import Positions
from tenfold.fold import make_fold
from tenfold.formats import CP, KT, STT, SVD, TT, TTM
from tenfold.network import Network
from tenfold.weight import FactorizedWeight

MATRIX = make_fold([("o", 20), ("i", 30)], 2)
PADDED = make_fold([("o", 20), ("i", 29)], 2, in_modes=(5, 6), out_modes=(3, 7))
TABLE = make_fold([("i", 29), ("o", 20)], 2, in_modes=(5, 6), out_modes=(4, 5))
KERNEL = make_fold([("o", 12), ("i", 5), ("k", 3), ("k", 3)], 1, groups=2)


def weight_of(fold: Any, format: Any) -> FactorizedWeight:
    weight = FactorizedWeight(format.network(fold), fold, dtype=torch.float64)
    weight.init_normal_(1.0)
    return weight


def test_construction() -> None:
    network = SVD(rank=2).network(MATRIX)
    factors = [torch.randn(shape) for shape in network.shapes]
    weight = FactorizedWeight(network, MATRIX, factors)
    assert_close(weight.dense(), (factors[0].flatten(0, 1) @ factors[1].flatten(1)))
    assert [name for name, _ in weight.named_parameters()] == ["factors.0", "factors.1"]
    assert repr(network.statement) in repr(weight) and "numel=100" in repr(weight)
    assert FactorizedWeight(network, MATRIX, device="meta", dtype=torch.bfloat16).factors[0].dtype == torch.bfloat16


def test_construction_errors() -> None:
    network = SVD(rank=2).network(MATRIX)
    with pytest.raises(
        ValueError, match=r"has the modes .* but the weight of shape \(20, 29\) is folded to .*; build the network from this fold"
    ):
        FactorizedWeight(network, PADDED)
    with pytest.raises(ValueError, match=r"factor 1 of 'o1 o2 r, r i1 i2 .* has shape \(2, 30\); it needs \(2, 5, 6\)"):
        FactorizedWeight(network, MATRIX, [torch.zeros(4, 5, 2), torch.zeros(2, 30)])
    with pytest.raises(ValueError, match=r"1 factors are given; 'o1 o2 r, r i1 i2 .* has 2: give one for each"):
        FactorizedWeight(network, MATRIX, [torch.zeros(4, 5, 2)])
    for batch in (0, -1):
        with pytest.raises(ValueError, match=rf"a plan is asked for a batch of {batch}; one of at least 1 is needed: give the rows"):
            FactorizedWeight(network, MATRIX).plan_apply(batch)


def test_wrong_inputs_name_both_numbers() -> None:
    weight = weight_of(PADDED, TT(rank=2))
    with pytest.raises(RuntimeError, match=r"the input has 30 features, but this weight of shape \(20, 29\) needs 29"):
        weight.apply(torch.zeros(2, 30, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"the input has no features"):
        weight.apply(torch.tensor(1.0))
    with pytest.raises(RuntimeError, match=r"the input has the dtype torch.float32, but the weight has torch.float64; convert one of them"):
        weight.apply(torch.zeros(2, 29))


def test_apply_is_also_torchs() -> None:
    """Models initialise themselves with `Module.apply(function)`, which reaches every submodule by this name."""
    seen: list[Any] = []
    weight = weight_of(MATRIX, SVD(rank=1))
    assert weight.apply(seen.append) is weight
    assert weight in seen and weight.factors in seen


def test_padding_of_grouped_channels() -> None:
    """Every group of the input gets its own padding, also where the groups stand on the output axis of the weight."""
    for transposed in (False, True):
        roles = [("i", 14), ("o", 11)] if transposed else [("o", 22), ("i", 7)]
        fold = make_fold([*roles, ("k", 3)], 1, in_modes=(2, 4), out_modes=(3, 4), groups=2, grouped_role=roles[0][0])
        assert fold.axis("i").padding == fold.axis("o").padding == 1
        weight = weight_of(fold, TTM(rank=3))
        convolution = F.conv_transpose1d if transposed else F.conv1d

        def spatial(x: Tensor, kernel: Tensor, groups: int, convolution: Callable[..., Tensor] = convolution) -> Tensor:
            return convolution(x, kernel, groups=groups)

        x = torch.randn(3, 14, 9, dtype=torch.float64)
        assert_close(weight.convolve(x, spatial, Positions(9, 7, (3,), transposed)), convolution(x, weight.dense(), groups=2))


def test_rows_refuse_other_ids() -> None:
    """Without a look at the values, the gather itself refuses ids below 0 and beyond the padded table."""
    weight = weight_of(TABLE, TTM(rank=2))
    assert_close(weight.rows(torch.arange(29)), weight.dense())
    for ids in ([-1], [30], [10**9]):
        with pytest.raises(IndexError, match=r"index out of range"):
            weight.rows(torch.tensor(ids))


def test_start() -> None:
    """The variance of a sum of prod(ranks) products of as many factors is the one asked for; a generator makes it repeatable."""
    weight = FactorizedWeight(SVD(rank=64).network(big := make_fold([("o", 256), ("i", 256)], 1)), big)
    weight.init_normal_(0.05, generator=torch.Generator().manual_seed(3))
    first = weight.dense().detach()
    assert float(first.std()) == pytest.approx(0.05, rel=0.05)
    weight.init_normal_(0.05, generator=torch.Generator().manual_seed(3))
    assert_close(weight.dense().detach(), first, rtol=0, atol=0)


def test_what_is_kept() -> None:
    weight = weight_of(MATRIX, TT(rank=2))
    assert weight.dense() is not weight.dense(), "nothing in training"
    weight.eval()
    assert weight.dense() is not weight.dense(), "nothing where gradients may be asked for"
    with torch.no_grad():
        first = weight.dense()
        assert weight.dense() is first
        weight.factors[0].add_(1)
        second = weight.dense()
        assert second is not first and weight.dense() is second
        weight.to(torch.float32)
        assert weight.dense().dtype == torch.float32
        weight.train()
        assert weight.dense() is not weight.dense()
    assert not copy.deepcopy(weight)._prepared


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
@pytest.mark.parametrize("verb", ["apply", "rows"])
def test_what_is_kept_is_dropped_where_a_fused_optimizer_trains_in_eval(optimizer: Any, verb: str) -> None:
    weight = weight_of(MATRIX, TT(rank=2)).eval()
    x = torch.randn(3, 30, dtype=torch.float64) if verb == "apply" else torch.arange(30)
    step = optimizer(weight.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            weight.dense()
        getattr(weight, verb)(x).square().sum().backward()
        step.step()
    with torch.no_grad():
        assert_close(weight.dense(), copy.deepcopy(weight).dense(), rtol=0, atol=0)


def test_eval_drops_what_is_kept_after_writes_through_data() -> None:
    weight = weight_of(MATRIX, TT(rank=2)).eval()
    with torch.no_grad():
        before = weight.dense()
        weight.factors[0].data.mul_(2)
        assert_close(weight.eval().dense(), 2 * before)


def test_kept_results_of_inference_mode_serve_outside() -> None:
    weight = weight_of(MATRIX, TT(rank=2)).eval()
    x = torch.randn(3, 30, dtype=torch.float64)
    with torch.inference_mode():
        first = weight.apply(x)
    with torch.no_grad():
        assert_close(weight.apply(x), first.clone())
    weight.apply(x).sum().backward()
    with torch.inference_mode():
        inside = weight_of(MATRIX, TT(rank=2)).eval()
        assert_close(inside.apply(x), x @ inside.dense().mT)


def test_truncation() -> None:
    weight = weight_of(KERNEL, CP(rank=3))
    with torch.no_grad():
        weight.factors[1][:, 1] = 0
    weight.factors[1].requires_grad_(False)
    smaller = weight.eval().truncated("r", [2, 0])
    assert not smaller.training
    assert [factor.requires_grad for factor in smaller.factors] == [factor.requires_grad for factor in weight.factors]
    assert smaller.network.ranks == {"r": 2}
    assert_close(smaller.dense(), weight.dense())
    assert_close(smaller.factors[0][:, :, 0], weight.factors[0][:, :, 2])


@pytest.mark.parametrize(
    ("rank", "keep", "message"),
    [
        ("r", [], r"the slices \[\] are to be kept of rank 'r', which has 3; give different ones below that"),
        ("r", [0, 3], r"the slices \[0, 3\] are to be kept of rank 'r', which has 3"),
        ("r", [1, 1], r"the slices \[1, 1\] are to be kept"),
        ("o1", [0], r"'o1' is no rank of 'g o1 r, .*; its ranks are \['r'\]: name one of them"),
    ],
)
def test_bad_truncation(rank: str, keep: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weight_of(KERNEL, CP(rank=3)).truncated(rank, keep)


@pytest.mark.parametrize(
    ("batch", "nominal"), [(0, 1), (1, 1), (4, 1), (5, 16), (64, 16), (65, 256), (1024, 256), (1025, 4096), (10**6, 4096)]
)
def test_few_plans_serve_all_batches(batch: int, nominal: int) -> None:
    assert bucket(batch) == nominal


def test_any_network_is_a_weight() -> None:
    """A statement that is no format of the library: LoHa, the elementwise product of two low-rank matrices."""
    fold = make_fold([("o", 8), ("i", 6)], 1)
    network = Network.parse("o1 r, r i1, o1 s, s i1 -> o1 i1", {**fold.sizes, "r": 2, "s": 3})
    weight = FactorizedWeight(network, fold, dtype=torch.float64)
    weight.init_normal_(1.0)
    a, b, c, d = weight.factors
    assert_close(weight.dense(), (a @ b) * (c @ d))
    x = torch.randn(5, 6, dtype=torch.float64)
    assert_close(weight.apply(x), x @ weight.dense().mT)


SUM = make_fold([("o", 23), ("i", 29)], 3, in_modes=(2, 5, 3), out_modes=(3, 2, 4))
GROUPS = KT(rank=(2, 3), groups=((2, 1), (1, 2)))


def test_a_sum_of_networks_is_the_sum_of_its_terms() -> None:
    """All verbs, with padding, and the gradients of every term."""
    weight = weight_of(SUM, GROUPS)
    parts = [
        FactorizedWeight(term, SUM, [factor.detach() for factor in weight.factors[part]])
        for term, part in zip(weight.network.terms, weight.network.term_slices, strict=True)
    ]
    total = parts[0].dense() + parts[1].dense()
    assert_close(weight.dense(), total)
    x = torch.randn(5, 29, dtype=torch.float64)
    flow = torch.randn(5, 23, dtype=torch.float64)
    assert_close(weight.apply(x), x @ total.mT)
    weight.apply(x).backward(flow)
    (x @ total.mT).backward(flow)
    for mine, other in zip(weight.factors, [factor for part in parts for factor in part.factors], strict=True):
        assert_close(mine.grad, other.grad)
    with torch.no_grad():
        weight.eval()
        for _ in range(2):
            assert_close(weight.apply(x), x @ total.mT)
        assert weight.dense() is weight.dense()
        assert str(weight.plan_apply(16, True, 0)) != str(weight.plan_apply(16, True, 1))


def test_rows_and_convolutions_of_a_sum() -> None:
    table = weight_of(make_fold([("i", 29), ("o", 23)], 3, in_modes=(2, 5, 3), out_modes=(3, 2, 4)), GROUPS)
    assert_close(table.rows(torch.arange(29)), table.dense())
    fold = make_fold([("o", 24), ("i", 8), ("k", 3)], 3, in_modes=(2, 2, 2), out_modes=(3, 1, 4), groups=2)
    kernel = weight_of(fold, GROUPS)
    x = torch.randn(3, 16, 9, dtype=torch.float64)
    found = kernel.convolve(x, lambda x, w, groups: F.conv1d(x, w, groups=groups), Positions(9, 7, (3,), False))
    assert_close(found, F.conv1d(x, kernel.dense(), groups=2))


def test_start_and_truncation_of_a_sum() -> None:
    """Each of two terms has half of the variance; a slice is cut from its own term only."""
    weight = weight_of(SUM, GROUPS)
    squares = torch.zeros(2, dtype=torch.float64)
    for seed in range(200):
        weight.init_normal_(0.5, generator=torch.Generator().manual_seed(seed))
        for number, part in enumerate(weight.network.term_slices):
            term = FactorizedWeight(weight.network.terms[number], SUM, [factor.detach() for factor in weight.factors[part]])
            squares[number] += term.dense().detach().square().mean() / 200
    assert_close(squares, torch.full((2,), 0.125, dtype=torch.float64), rtol=0.1, atol=0)
    with torch.no_grad():
        weight.factors[2][1] = 0
    smaller = weight.truncated("r2", [0, 2])
    assert smaller.network.ranks == {"r1": 2, "r2": 2} and smaller.network.term_lengths == (2, 2)
    assert_close(smaller.dense(), weight.dense())


def test_a_weight_keeps_the_modes_of_its_fold_without_the_hints() -> None:
    format = STT(rank=2)
    gated = make_fold([("o", 24), ("i", 12)], 2, out_modes=(2, 3), in_modes=(4, 3), gates=4)
    for one, fold in ((format, format.fold(MATRIX)), (TTM(rank=2), gated)):
        weight = weight_of(fold, one)
        assert weight.fold == fold.plain and weight.fold.sizes == fold.sizes
        x = torch.randn(3, fold.shape[1], dtype=torch.float64)
        assert_close(weight.apply(x), x @ weight.dense().mT)
