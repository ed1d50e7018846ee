"""Embedding and EmbeddingBag: padding rows, bags, pretrained tables, options that cannot be honoured."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tenfold
import tenfold.nn as tnn
from tenfold.embeddings.hot_rows import HotRows
from tenfold.embeddings.shared_rows import HashEmbedding
from tenfold.formats import SVD, TR, TTM

LOOKUPS = pytest.mark.parametrize("kind", [tnn.Embedding, tnn.EmbeddingBag])


def double(layer: Any) -> Any:
    return layer.to(torch.float64)


def test_padding_row_is_zero_and_untrained() -> None:
    """Outputs and gradients are those of the torch layer whose padding row is zero."""
    layer = double(tnn.Embedding(29, 20, padding_idx=-26, format=TTM(rank=3)))
    assert layer.padding_idx == 3
    ids = torch.tensor([[3, 1, 3], [28, 3, 0]])
    output = layer(ids)
    assert output[ids == 3].eq(0).all()
    assert layer.weight[3].eq(0).all() and not layer.factorized.dense()[3].eq(0).all()
    dense = layer.to_dense()
    assert dense.padding_idx == 3 and dense.weight[3].eq(0).all()
    layer(torch.tensor([3, 3])).sum().backward()
    assert all(factor.grad.eq(0).all() for factor in layer.factorized.factors)


def test_tied_weights_see_the_padding_row_as_zero() -> None:
    """A language model that uses `embedding.weight` for its logits gets the table that the lookup stands for, kept in eval."""
    layer = tnn.Embedding(29, 20, padding_idx=0, format=TTM(rank=3)).eval()
    with torch.no_grad():
        assert layer.weight is layer.weight
        assert_close(layer.weight, layer(torch.arange(29)))


def test_a_dense_padding_row_that_is_not_zero_is_taken_as_zero_with_a_warning() -> None:
    dense = nn.Embedding.from_pretrained(torch.randn(12, 8), padding_idx=2)
    message = r"has a row of padding_idx=2 that is not zero; a factorised table has zeros there, .*: set padding_idx to None first"
    with pytest.warns(UserWarning, match=message):
        layer = tnn.Embedding.from_dense(dense, SVD(rank=8))
    expected = dense.weight.clone()
    expected[2] = 0
    assert_close(layer.weight.detach(), expected, rtol=1e-5, atol=1e-5)
    model = nn.Sequential(dense)
    with pytest.warns(UserWarning, match=f"^0 {message}"):
        assert_close(tenfold.compress(model, SVD(rank=8))[0].weight, expected, rtol=1e-5, atol=1e-5)  # type: ignore[index]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tnn.EmbeddingBag.from_dense(nn.EmbeddingBag.from_pretrained(dense.weight, padding_idx=2), SVD(rank=8))
        dense.padding_idx = None
        assert_close(tenfold.compress(model, SVD(rank=8))[0].weight, dense.weight, rtol=1e-5, atol=1e-5)  # type: ignore[index]


@LOOKUPS
def test_from_pretrained(kind: Any) -> None:
    table = torch.randn(12, 8, dtype=torch.float64)
    layer = kind.from_pretrained(table, format=SVD(rank=8))
    assert_close(layer.weight, table)
    assert not any(p.requires_grad for p in layer.parameters())
    table[5] = 0
    layer = kind.from_pretrained(table, freeze=False, padding_idx=5, format=TTM(rank=2), in_modes=(3, 4), out_modes=(2, 4))
    assert layer.padding_idx == 5 and all(p.requires_grad for p in layer.parameters())
    assert layer.factorized.network.ranks == {"r1": 2}


@LOOKUPS
def test_a_pretrained_table_is_fitted_as_long_as_a_dense_layer(kind: Any) -> None:
    table, format = torch.randn(60, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64), TR(rank=4)
    same, shorter = (kind.from_pretrained(table, format=format, **given) for given in ({}, {"sweeps": 100}))
    dense = kind.from_dense(kind.dense_type.from_pretrained(table), format)
    assert_close(same.weight, dense.weight, rtol=0, atol=0)
    assert not torch.equal(same.weight, shorter.weight), "100 sweeps are not enough here, so the test can fail"


@LOOKUPS
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_norm": 1.0}, "max_norm=1.0, which rescales single rows of the table in place; factors are shared by many rows"),
        ({"scale_grad_by_freq": True}, "scale_grad_by_freq=True, which rescales gradients of single rows"),
        ({"sparse": True}, "sparse=True, which asks for sparse gradients; those of factors are dense"),
    ],
    ids=["max_norm", "scale_grad_by_freq", "sparse"],
)
def test_options_of_single_rows(kind: Any, options: dict[str, Any], reason: str) -> None:
    name = kind.__name__
    with pytest.raises(ValueError, match=rf"{name} got {reason}.*; leave the option out, or keep the torch layer"):
        kind(12, 8, **options, format=SVD(rank=2))
    dense = kind.dense_type(12, 8, **options)
    with pytest.raises(ValueError, match=rf"{name}.from_dense got a layer with {reason}.*; leave the option out, or keep the torch layer"):
        kind.from_dense(dense, SVD(rank=2))
    row, other = tenfold.plan(nn.Sequential(dense, nn.Linear(8, 8)), SVD(rank=2)).layers
    assert row.format is None and reason in row.reason
    assert other.format is not None


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 4])
def test_bags(mode: str, padding_idx: int | None) -> None:
    """Empty bags, bags of nothing but padding, repeated ids, an offset at the end; also of no ids at all."""
    layer = double(tnn.EmbeddingBag(12, 8, mode=mode, padding_idx=padding_idx, format=TTM(rank=3)))
    dense = layer.to_dense()
    ids = torch.tensor([4, 4, 7, 7, 4, 1, 0, 11])
    for offsets in ([0, 2, 2, 5], [0], [0, 0, 8], [0, 1, 2, 3, 4, 5, 6, 7]):
        starts = torch.tensor(offsets)
        mine, other = layer(ids, starts), dense(ids, starts)
        assert_close(mine, other)
        flow = torch.randn_like(mine)
        got = torch.autograd.grad(mine, list(layer.factorized.factors), flow)
        (through,) = torch.autograd.grad(other, dense.weight, flow)
        wanted = torch.autograd.grad(layer.weight, list(layer.factorized.factors), through)
        for one, two in zip(got, wanted, strict=True):
            assert_close(one, two)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert_close(layer(nothing, torch.tensor([0, 0])), torch.zeros(2, 8, dtype=torch.float64))
    assert layer(ids.reshape(2, 4)[:0]).shape == (0, 8)


def test_last_offset_and_weights() -> None:
    layer = double(tnn.EmbeddingBag(12, 8, mode="sum", include_last_offset=True, padding_idx=1, format=SVD(rank=3)))
    dense = layer.to_dense()
    assert dense.include_last_offset
    ids, offsets = torch.tensor([1, 2, 3, 1, 5]), torch.tensor([0, 2, 5])
    weights = [torch.arange(5, dtype=torch.float64).requires_grad_() for _ in range(2)]
    mine, other = layer(ids, offsets, weights[0]), dense(ids, offsets, weights[1])
    assert_close(mine, other)
    mine.square().sum().backward()
    other.square().sum().backward()
    assert_close(weights[0].grad, weights[1].grad)


def test_weights_of_a_mean() -> None:
    layer = tnn.EmbeddingBag(12, 8, padding_idx=1, format=SVD(rank=3))
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(
        NotImplementedError, match=r"per_sample_weights were given to bags of mode 'mean'; they need mode='sum': leave them out"
    ):
        layer(ids, None, torch.ones(2, 3))


def test_ids_are_checked_before_the_padding_of_the_table() -> None:
    """29 rows stored as 30: id 29 exists among the factors, but not in the table."""
    layer = tnn.Embedding(29, 20, format=TTM(rank=2), in_modes=(5, 6), out_modes=(4, 5))
    with pytest.raises(IndexError, match=r"the input has the id 29, but the table has 29 rows; ids must be 0 to 28: check the vocabulary"):
        layer(torch.tensor([1, 29]))
    with pytest.raises(IndexError, match=r"the input has the id -2, but the table has 29 rows"):
        layer(torch.tensor([[1], [-2]], dtype=torch.int32))
    bag = tnn.EmbeddingBag(29, 20, format=TTM(rank=2))
    with pytest.raises(RuntimeError, match=r"the input has the id 31, but the table has 29 rows"):
        bag(torch.tensor([[31]]))
    with pytest.raises(
        RuntimeError, match=r"the ids have the dtype torch.float32; a lookup needs torch.int64 or torch.int32: convert them"
    ):
        layer(torch.tensor([1.0]))


def bag_layers(mode: str) -> list[Any]:
    torch.manual_seed(0)
    bag: Any = tnn.EmbeddingBag(29, 8, mode=mode, format=TTM(rank=2))
    last: Any = tnn.EmbeddingBag(29, 8, mode=mode, format=TTM(rank=2), include_last_offset=True)
    return [bag, last] if mode == "max" else [bag, last, HotRows(bag, 3), HotRows(last, 3), HashEmbedding(29, 8, 5, mode=mode)]  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("n_ids", [40, 400])
def test_ids_after_the_last_offset_are_in_no_bag(mode: str, n_ids: int) -> None:
    """torch adds their gradients beyond its memory, which gave wrong gradients, or ended the process."""
    layer = bag_layers(mode)[1]
    ids, offsets, given = torch.arange(n_ids) % 29, torch.tensor([0, 3, 3, 8]), list(layer.parameters())
    found = layer(ids, offsets)
    wanted = layer(ids[:8], offsets)
    assert_close(found, wanted)
    flow = torch.randn_like(found)
    for mine, other in zip(torch.autograd.grad(found, given, flow), torch.autograd.grad(wanted, given, flow), strict=True):
        assert_close(mine, other)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_no_ids_are_zero(mode: str) -> None:
    """torch takes them with offsets only."""
    for layer in bag_layers(mode):
        found = layer(torch.zeros(3, 0, dtype=torch.int64), None, torch.zeros(3, 0) if mode == "sum" else None)
        assert_close(found, torch.zeros(3, 8))
        found.sum().backward()


@pytest.mark.parametrize("n_ids", [10, 300])
@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        ([0, 4, 2], ValueError, "an offset is smaller than the one before it; bags follow each other: sort the ids by their bags"),
        ([0, -3], ValueError, "an offset is smaller than the one before it"),
        ([1, 2], RuntimeError, "the first offset is 1; the first bag needs to start at 0: give the places at which bags start"),
        ([0, 301], RuntimeError, r"the last offset is 301, but there are (10|300) ids; offsets may be 0 to (10|300): give all ids"),
        ([], (ValueError, RuntimeError), r"(10|300) ids were given with no offsets; the first bag needs one, at 0: give the places"),
        ([[0, 2]], ValueError, r"the offsets have the shape \(1, 2\); bags need a vector \(bags\) of them: give their starts alone"),
    ],
    ids=["decreasing", "negative", "first", "last", "none", "two axes"],
)
def test_offsets_that_torch_reads_beyond_the_ids_are_refused(n_ids: int, offsets: Any, error: Any, message: str) -> None:
    """On every path: few ids and many, dense rows, shared rows. Maxima without offsets ended the process."""
    ids, starts = torch.arange(n_ids) % 29, torch.tensor(offsets, dtype=torch.int64)
    for mode in ("sum", "mean", "max"):
        for layer in bag_layers(mode):
            with pytest.raises(error, match=message):
                layer(ids, starts)


def test_bags_of_other_types() -> None:
    ids, starts = torch.arange(10), torch.tensor([0, 4])
    for layer in bag_layers("sum"):
        with pytest.raises(TypeError, match=r"a lookup got a list; it needs a tensor of ids: convert it with torch.as_tensor"):
            layer([1, 2], starts)
        with pytest.raises(TypeError, match=r"the offsets are a list; bags need a tensor of them: convert it with torch.as_tensor"):
            layer(ids, [0, 4])
        with pytest.raises(RuntimeError, match=r"the offsets have the dtype torch.float32; bags need torch.int64 or torch.int32: convert"):
            layer(ids, starts.float())
        with pytest.raises(ValueError, match=r"per_sample_weights have the shape \(5,\), the ids \(10,\); each id needs a weight: give as"):
            layer(ids, starts, torch.ones(5))
        with pytest.raises(RuntimeError, match=r"per_sample_weights have the dtype torch.float64; the table has torch.float32, and needs"):
            layer(ids, starts, torch.ones(10, dtype=torch.float64))
    for rows in (tnn.Embedding(29, 8, format=TTM(rank=2)), HotRows(tnn.Embedding(29, 8, format=TTM(rank=2)), 3), HashEmbedding(29, 8, 5)):
        with pytest.raises(TypeError, match=r"a lookup got a list; it needs a tensor of ids: convert it with torch.as_tensor"):
            rows([1, 2])


def test_memory_of_a_large_vocabulary() -> None:
    """A million rows of 256 would be 1 GB; the factors are 0.3 MB, and a lookup touches only what it needs."""
    layer = tnn.Embedding(1_000_000, 256, format=TTM(rank=16), in_modes=(100, 100, 100), out_modes=(4, 8, 8))
    assert sum(p.numel() for p in layer.parameters()) == 16 * 400 + 16 * 16 * 800 + 16 * 800 < 1_000_000
    layer.eval()
    with torch.no_grad():
        assert layer(torch.tensor([0, 999_999])).shape == (2, 256)
    assert not layer.factorized._prepared, "the table was never built"


def test_workload_counts_ids() -> None:
    dense = nn.Embedding(12, 8)
    assert tnn.Embedding.workload(dense, (4, 7), (4, 7, 8)).n_rows == 7
    assert tnn.Embedding.workload(dense, (4, 7), (4, 7, 8)).dense_flops == 0
    assert tnn.EmbeddingBag.workload(nn.EmbeddingBag(12, 8), (4, 7), (4, 8)).n_rows == 7
    assert tnn.EmbeddingBag.workload(nn.EmbeddingBag(12, 8), (10,), (4, 8)).n_rows == 3, "10 ids in 4 bags, rounded up"
