"""The most frequent rows of a factorised table as rows of their own."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

import tenfold.nn as tnn
from tenfold.embeddings.hot_rows import HotRows
from tenfold.formats import TTM

TABLE: dict[str, Any] = {"format": TTM(rank=3), "in_modes": (5, 6), "out_modes": (2, 4), "dtype": torch.float64}


def observed(**options: Any) -> HotRows:
    """4 dense rows; ids 7, 8, 1, 20 are the most frequent, in this order."""
    torch.manual_seed(0)
    layer = HotRows(tnn.Embedding(29, 8, **TABLE, **options), 4)
    for ids in ([7] * 5 + [8] * 3, [7, 8, 1, 1, 1, 20, 20, 3], [4, 5, 6]):
        layer.observe(torch.tensor(ids))
    return layer


def test_the_most_frequent_ids_get_rows_with_the_values_of_the_table() -> None:
    layer = observed()
    ids = torch.arange(29)
    table = layer.layer.weight.detach()
    assert_close(layer(ids), table)
    assert layer.hit_rate(ids) == 0
    assert layer.fill() == 4
    assert layer.ids.tolist() == [1, 7, 8, 20]
    assert_close(layer(ids), table)
    assert layer.hit_rate(torch.tensor([7, 7, 2, 1])) == 0.75
    assert layer(ids.reshape(1, 29)).shape == (1, 29, 8) and layer(ids[:0]).shape == (0, 8)


def test_dense_rows_are_trained_by_themselves() -> None:
    layer = observed(padding_idx=2)
    layer.fill()
    layer(torch.tensor([7, 7, 1])).sum().backward()
    assert layer.rows.grad is not None
    assert layer.rows.grad.sum(1).tolist() == [8, 16, 0, 0]
    assert all(not factor.grad.any() for factor in layer.layer.factorized.factors)
    layer.zero_grad()
    layer(torch.tensor([5, 2])).sum().backward()
    assert not layer.rows.grad.any()
    assert any(bool(factor.grad.any()) for factor in layer.layer.factorized.factors)
    assert layer(torch.tensor([2])).eq(0).all()


def test_filling_again_keeps_what_stays() -> None:
    layer = observed()
    layer.fill()
    with torch.no_grad():
        layer.rows += 1
    trained = layer(torch.tensor([7]))
    layer.observe(torch.tensor([25] * 9))
    layer.fill()
    assert layer.ids.tolist() == [1, 7, 8, 25]
    assert_close(layer(torch.tensor([7])), trained)
    assert_close(layer(torch.tensor([20, 25])), layer.layer(torch.tensor([20, 25])))


@pytest.mark.parametrize("kind", ["Adam", "Adafactor", "SGD"])
def test_state_of_the_optimiser_goes_with_its_rows(kind: str) -> None:
    """Ids 1, 7, 8, 20 become 1, 7, 8, 25, and then 0, 7, 8, 25: rows that stay move, and those that are new begin at zero."""
    layer = observed()
    layer.fill()
    optimizer = getattr(torch.optim, kind)([layer.rows], lr=0.01, **({"momentum": 0.9} if kind == "SGD" else {}))
    for _ in range(3):
        optimizer.zero_grad()
        (layer(torch.tensor([1, 7, 8, 20])) * torch.tensor([[1.0], [2.0], [3.0], [4.0]])).square().sum().backward()
        optimizer.step()

    def state() -> dict[str, dict[int, torch.Tensor]]:
        found = {name: one for name, one in optimizer.state[layer.rows].items() if one.dim() and len(one) == 4}
        return {name: dict(zip(layer.ids.tolist(), one.clone(), strict=True)) for name, one in found.items()}

    for more, kept, new in (([25] * 9, (1, 7, 8), 25), ([0] * 99, (7, 8, 25), 0)):
        ids = torch.tensor([*kept, new])
        before, rows_before = state(), layer(ids)
        layer.observe(torch.tensor(more))
        layer.fill(optimizer)
        assert_close(layer(ids), rows_before)
        assert layer.ids.tolist() == sorted([*kept, new]) and before
        for name, rows in state().items():
            assert not rows[new].any()
            for one in kept:
                assert_close(rows[one], before[name][one])
    with pytest.raises(
        ValueError,
        match=r"HotRows.fill got a SGD that does not train the dense rows; it needs the one that does, .*: give that one, or none",
    ):
        layer.fill(torch.optim.SGD(layer.layer.parameters(), lr=0.1))


@pytest.mark.parametrize("wrong", [-5, 29, 10**6])
def test_ids_that_are_no_rows_are_not_counted(wrong: int) -> None:
    layer = observed()
    counts = layer.counts.clone()
    text = rf"HotRows.observe got the id {wrong}, but the table has 29 rows; ids must be 0 to 28: check the vocabulary"
    with pytest.raises(IndexError, match=text):
        layer.observe(torch.tensor([4] * 3 + [wrong] * 9))
    assert torch.equal(layer.counts, counts) and layer.fill() == 4


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding_idx", [None, 7])
def test_bags(mode: str, padding_idx: int | None) -> None:
    torch.manual_seed(0)
    bag: Any = tnn.EmbeddingBag(29, 8, mode=mode, padding_idx=padding_idx, **TABLE)
    layer = HotRows(bag, 3)
    layer.observe(torch.tensor([7, 7, 7, 8, 8, 1, 20]))
    layer.fill()
    ids, offsets = torch.tensor([7, 3, 7, 8, 8, 1, 20, 20]), torch.tensor([0, 2, 2, 5])
    assert_close(layer(ids, offsets), bag(ids, offsets))
    assert_close(layer(ids.reshape(2, 4)), bag(ids.reshape(2, 4)))
    if mode == "sum":
        weights = torch.rand(8, dtype=torch.float64)
        for is_trained in (False, True):
            weights.requires_grad_(is_trained)
            assert_close(layer(ids, offsets, weights), bag(ids, offsets, weights))
    with pytest.raises(ValueError, match=r"the ids have the shape \(8,\) without offsets; give ids \(bags, length\), or ids \(n\) and off"):
        layer(ids)


def test_rows_are_counted_from_the_start_and_saved() -> None:
    layer = observed()
    n_factors = sum(p.numel() for p in layer.layer.parameters())
    assert sum(p.numel() for p in layer.parameters()) == n_factors + 4 * 8
    assert layer.ratio == pytest.approx(29 * 8 / (n_factors + 32))
    layer.fill()
    assert "dense rows=4 of 4 (13.8% of all), ratio with them=" in repr(layer)
    other = HotRows(tnn.Embedding(29, 8, **TABLE), 4)
    other.load_state_dict(layer.state_dict())
    assert_close(other(torch.arange(29)), layer(torch.arange(29)))
    other.observe(torch.tensor([3] * 9))
    other.fill()
    assert other.ids.tolist() == [1, 3, 7, 8], "counts were saved too"


def test_watching_takes_a_fixed_room() -> None:
    """16 ids are watched for 4 rows: of many more the most frequent are found."""
    layer = HotRows(tnn.Embedding(29, 8, **TABLE), 4)
    for step in range(20):
        layer.observe(torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 5 + step % 20, 6 + step % 20]))
    assert len(layer.watched) == 16
    layer.fill()
    assert layer.ids.tolist() == [0, 1, 2, 3]


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"HotRows got a Embedding; it needs a tenfold.nn.Embedding or EmbeddingBag: factorise the table"):
        HotRows(torch.nn.Embedding(3, 4), 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"HotRows got n_rows=30 for a table of 29 rows; it needs 1 to all of them: give about 1%"):
        HotRows(tnn.Embedding(29, 8, **TABLE), 30)
    with pytest.raises(ValueError, match=r"HotRows got an EmbeddingBag of mode 'max'; it adds rows of two kinds: use 'sum' or 'mean'"):
        HotRows(tnn.EmbeddingBag(29, 8, mode="max", **TABLE), 3)
    with pytest.raises(IndexError, match=r"the input has the id 29, but the table has 29 rows"):
        observed()(torch.tensor([29]))
    with pytest.raises(
        TypeError, match=r"HotRows got offsets and per_sample_weights, but gives a row for each id; only bags take them: leave"
    ):
        observed()(torch.tensor([1]), torch.tensor([0]), torch.ones(1))
    bag: Any = HotRows(tnn.EmbeddingBag(29, 8, mode="mean", **TABLE), 3)
    with pytest.raises(NotImplementedError, match=r"per_sample_weights were given to bags of mode 'mean'; they need mode='sum': leave"):
        bag(torch.tensor([[1]]), None, torch.ones(1, 1))
