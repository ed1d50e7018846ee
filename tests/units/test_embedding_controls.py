"""The controls of equal size: tables whose rows many ids share."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tenfold.embeddings.shared_rows import HashEmbedding, QuotientRemainderEmbedding


def test_hash_by_remainder() -> None:
    table = HashEmbedding(29, 4, 10)
    ids = torch.tensor([[0, 10, 20], [3, 28, 13]])
    assert torch.equal(table.places(ids), torch.tensor([[0, 0, 0], [3, 8, 3]]))
    assert_close(table(ids), table.weight[ids % 10])
    assert sum(p.numel() for p in table.parameters()) == 40
    assert repr(table) == "HashEmbedding(29, 4, stored=40, ratio=2.9)"


def test_hash_by_multiplication_spreads_what_a_remainder_does_not() -> None:
    """Multiples of 1000 have one remainder; their hashes fill 1000 rows as random ones do: 1 - 1/e of them, within 4 deviations of 0.01."""
    ids = torch.arange(1000) * 1000
    places = HashEmbedding(10**6, 1, 1000, hash="multiply").places(ids)
    assert 0 <= int(places.min()) and int(places.max()) < 1000
    assert abs(len(places.unique()) / 1000 - 0.632) < 0.04
    assert len(HashEmbedding(10**6, 1, 1000).places(ids).unique()) == 1
    assert torch.equal(HashEmbedding(10**6, 1, 1000, hash="multiply").places(ids), places), "deterministic"
    assert not torch.equal(HashEmbedding(10**6, 1, 1000, hash="multiply", seed=1).places(ids), places)
    large = HashEmbedding(1 << 40, 1, 97, hash="multiply").places(torch.tensor([(1 << 40) - 1, (1 << 33) + 1, 1]))
    assert len(large.unique()) == 3


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_quotient_and_remainder(operation: Any) -> None:
    table = QuotientRemainderEmbedding(29, 4, 5, operation=operation)
    assert table.quotient.shape[0] == 6 and table.remainder.shape[0] == 5
    ids = torch.arange(29)
    q, r = table.quotient[ids // 5], table.remainder[ids % 5]
    wanted = {"mult": q * r, "add": q + r, "concat": torch.cat([q, r], 1)}[operation]
    assert_close(table(ids), wanted)
    assert len(wanted.unique(dim=0)) == 29, "no two ids have the same row"
    assert sum(p.numel() for p in table.parameters()) == 11 * (2 if operation == "concat" else 4)


@pytest.mark.parametrize("operation", ["mult", "add", "concat"])
def test_start_has_the_deviation_of_torchs(operation: Any) -> None:
    """Entries of 2,500 rows: mean square 1 within 4 standard errors, 0.1 for products of dependent rows."""
    torch.manual_seed(0)
    table = QuotientRemainderEmbedding(2500, 64, 50, operation=operation)
    assert abs(float(table(torch.arange(2500)).detach().square().mean()) - 1) < 0.1


@pytest.mark.parametrize(("n", "dim", "n_values"), [(10**6, 16, 10**5), (10**6, 16, 10**6), (29, 4, 44), (10**7, 64, 163_976 * 64)])
def test_m_for_a_size(n: int, dim: int, n_values: int) -> None:
    m = QuotientRemainderEmbedding.m_for(n, dim, n_values)
    stored = (m + -(-n // m)) * dim
    assert n_values * 0.97 - 2 * dim <= stored <= n_values


def test_m_for_too_small_a_size() -> None:
    with pytest.raises(
        ValueError, match=r"have 1000 values together; 1000000 ids need about 32000 at least: allow more, or use HashEmbedding"
    ):
        QuotientRemainderEmbedding.m_for(10**6, 16, 1000)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_are_those_of_the_table_that_is_stood_for(mode: Any) -> None:
    tables: list[Any] = [HashEmbedding(29, 4, 10, 3, mode=mode), QuotientRemainderEmbedding(29, 4, 5, 3, mode=mode)]
    ids, offsets = torch.tensor([3, 1, 3, 28, 4, 4, 7]), torch.tensor([0, 1, 1, 5])
    for table in tables:
        dense = nn.EmbeddingBag.from_pretrained(table.rows(torch.arange(29)).detach(), mode=mode, padding_idx=3)
        assert_close(table(ids, offsets), dense(ids, offsets))
        assert_close(table(ids[:6].reshape(2, 3)), dense(ids[:6].reshape(2, 3)))
        if mode == "sum":
            weights = torch.rand(7)
            assert_close(table(ids, offsets, weights), dense(ids, offsets, weights))
        table(ids, offsets).sum().backward()
        assert all(p.grad is not None for p in table.parameters())


def test_padding_row() -> None:
    table = HashEmbedding(29, 4, 10, padding_idx=3)
    found = table(torch.tensor([3, 13]))
    assert found[0].eq(0).all() and not found[1].eq(0).any()


@pytest.mark.parametrize("make", [HashEmbedding, QuotientRemainderEmbedding])
def test_padding_index_counts_from_the_end_and_is_a_row_as_in_torch(make: Any) -> None:
    for padding_idx in (-29, -1, 0, 28):
        table = make(29, 4, 5, padding_idx)
        assert table.padding_idx == nn.Embedding(29, 4, padding_idx).padding_idx
        assert table(torch.arange(29)).eq(0).all(1).nonzero().flatten().tolist() == [padding_idx % 29]
    for padding_idx in (29, -30):
        with pytest.raises(AssertionError):
            nn.Embedding(29, 4, padding_idx)
        with pytest.raises(
            ValueError, match=rf"got padding_idx={padding_idx} for a table of 29 rows; it is from -29 to 28: give the id of a row"
        ):
            make(29, 4, 5, padding_idx)


def test_wrong_arguments_and_ids() -> None:
    with pytest.raises(ValueError, match=r"HashEmbedding got rows=0 and hash='modulo'; it needs a row at least, .*: give both so"):
        HashEmbedding(29, 4, 0)
    with pytest.raises(ValueError, match=r"QuotientRemainderEmbedding got m=5, operation='concat' and 3 columns; .*: change what does not"):
        QuotientRemainderEmbedding(29, 3, 5, operation="concat")
    with pytest.raises(ValueError, match=r"HashEmbedding got mode='max'; it is 'sum' or 'mean' of bags, or None for rows: choose one"):
        HashEmbedding(29, 4, 5, mode="max")  # type: ignore[arg-type]
    table = HashEmbedding(29, 4, 10)
    with pytest.raises(IndexError, match=r"the input has the id 29, but the table has 29 rows; ids must be 0 to 28: check the vocabulary"):
        table(torch.tensor([29]))
    with pytest.raises(
        RuntimeError, match=r"the ids have the dtype torch.float32; a lookup needs torch.int64 or torch.int32: convert them"
    ):
        table(torch.tensor([1.0]))


IDS, OFFSETS, WEIGHTS = torch.tensor([3, 1, 3, 28]), torch.tensor([0, 1]), torch.ones(4)


@pytest.mark.parametrize(
    ("mode", "inputs", "message"),
    [
        ("sum", (IDS + 1, OFFSETS), r"the input has the id 29, but the table has 29 rows; ids must be 0 to 28: check the vocabulary"),
        (
            "sum",
            (IDS, OFFSETS, WEIGHTS[:1]),
            r"per_sample_weights have the shape \(1,\), the ids \(4,\); each id needs a weight: give as many",
        ),
        (
            "sum",
            (IDS, OFFSETS, WEIGHTS.double()),
            r"per_sample_weights have the dtype torch.float64; the table has torch.float32, and needs the same: convert them",
        ),
        ("sum", (IDS, OFFSETS + 1), r"the first offset is 1; the first bag needs to start at 0: give the places"),
        ("sum", (IDS, OFFSETS * 5), r"the last offset is 5, but there are 4 ids; offsets may be 0 to 4: give all ids"),
        ("mean", (IDS, OFFSETS, WEIGHTS), r"per_sample_weights were given to bags of mode 'mean'; they need mode='sum': leave them out"),
    ],
)
def test_wrong_bags_are_refused_as_by_torch(mode: Any, inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError)) as theirs:  # NotImplementedError is a RuntimeError
        nn.EmbeddingBag(29, 4, mode=mode)(*inputs)
    tables: list[Any] = [HashEmbedding(29, 4, 10, mode=mode), QuotientRemainderEmbedding(29, 4, 5, mode=mode)]
    for table in tables:
        with pytest.raises(theirs.type, match=message):
            table(*inputs)


def test_rows_take_nothing_of_bags() -> None:
    table: Any = HashEmbedding(29, 4, 10)
    for inputs, given in (
        ((IDS, OFFSETS), "offsets"),
        ((IDS, None, WEIGHTS), "per_sample_weights"),
        ((IDS, OFFSETS, WEIGHTS), "off.*ghts"),
    ):
        with pytest.raises(
            TypeError, match=rf"HashEmbedding got {given}, but gives a row for each id; only bags take them: leave them out"
        ):
            table(*inputs)


def test_bags_of_a_wrong_shape() -> None:
    bags = HashEmbedding(29, 4, 10, mode="sum")
    with pytest.raises(ValueError, match=r"the ids have the shape \(1,\) without offsets; give ids \(bags, length\), or ids \(n\) and off"):
        bags(torch.tensor([1]))
    with pytest.raises(ValueError, match=r"the ids have the shape \(1, 1\) with offsets"):
        bags(torch.tensor([[1]]), torch.tensor([0]))
