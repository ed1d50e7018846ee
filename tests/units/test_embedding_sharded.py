"""A table spread over two processes: rows, bags and gradients are those of the whole table."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from process_cases import in_two_processes
from torch import Tensor, nn
from torch.testing import assert_close

import tenfold.nn as tnn
from tenfold import bayes
from tenfold.embeddings.sharded_embedding import ShardedEmbedding
from tenfold.formats import CP, TTM, Tucker

FORMATS = {"ttm": TTM(rank=3), "cp": CP(rank=3), "tucker": Tucker(rank=2)}
TABLE: dict[str, Any] = {"in_modes": (5, 3, 2), "out_modes": (2, 2, 2), "dtype": torch.float64}


def layers() -> dict[str, Any]:
    torch.manual_seed(0)
    found: dict[str, Any] = {name: tnn.Embedding(29, 7, padding_idx=3, format=format, **TABLE) for name, format in FORMATS.items()}
    for mode in ("sum", "mean", "max"):
        found[mode] = tnn.EmbeddingBag(29, 7, padding_idx=3, mode=mode, format=FORMATS["ttm"], **TABLE)
    return found


def batch() -> Tensor:
    """(8, 4): the second half has few ids, all of them of the first process."""
    ids = torch.randint(0, 29, (8, 4), generator=torch.Generator().manual_seed(1))
    ids[4:] %= 5
    ids[0, 0] = 3
    return ids


def loss_of(layer: Any, ids: Tensor) -> Tensor:
    rows = layer(ids)
    return (rows * torch.arange(1.0, 8.0, dtype=torch.float64)).square().flatten(1).sum(1).mean()


def whole() -> dict[str, tuple[Tensor, list[Tensor]]]:
    found = {}
    for name, layer in layers().items():
        loss_of(layer, batch()).backward()
        found[name] = layer(batch()).detach(), [factor.grad for factor in layer.factorized.factors]
    return found


def sharded_tables(rank: int) -> dict[str, Any]:
    """What one of two processes has of every table, before and after a step, and what is refused."""
    found: dict[str, Any] = {}
    for name, layer in layers().items():
        sharded = ShardedEmbedding(layer)
        ids = batch()[4 * rank : 4 * rank + 4]
        loss_of(sharded, ids).backward()
        grads = [factor.grad for factor in sharded.factorized.factors]
        optimizer = torch.optim.SGD(sharded.parameters(), lr=0.1)
        rows = sharded(ids).detach()
        optimizer.step()
        nothing = sharded(ids[:0])
        nothing.sum().backward()
        if name in ("sum", "mean", "max"):
            assert_close(sharded(ids[:, :0]), torch.zeros(4, 7, dtype=torch.float64))
        after = [factor.detach() for factor in sharded.unsharded().factors]
        found[name] = rows, grads, sharded.bounds, list(sharded.factorized.network.factors), after, tuple(nothing.shape), repr(sharded)
    found["ranks"] = ranks_of_parts()
    with_many = tnn.Embedding(9, 7, format=TTM(rank=1), in_modes=(1, 9), out_modes=(2, 4))
    try:
        ShardedEmbedding(with_many)
    except ValueError as error:
        found["error"] = str(error)
    return found


def ranks_of_parts() -> tuple[list[str], list[str]]:
    """What rank methods say of a sharded table, and the layers that they take beside it."""
    table = layers()["ttm"]
    model = nn.ModuleDict({"table": ShardedEmbedding(table), "head": tnn.Linear(8, 8, format=TTM(rank=2))})
    texts = []
    for make in (lambda: bayes.attach(model, n_examples=9), lambda: bayes.L1Bonds(model, "table")):
        try:
            make()
        except ValueError as error:
            texts.append(str(error))
    whole = tnn.Embedding.around(table, model["table"].unsharded())  # pyright: ignore
    taken = [*bayes.attach(model, "head", n_examples=9).run.weights, *bayes.attach(whole, n_examples=9).run.weights]
    return texts, taken


@pytest.mark.slow
def test_two_processes_hold_one_table() -> None:
    """Half of the batch for each process; gradients are of the mean of their losses, that is of the whole batch. float64, 1e-10."""
    found = in_two_processes(sharded_tables)
    for name, (rows, grads) in whole().items():
        assert_close(torch.cat([found[0][name][0], found[1][name][0]]), rows, rtol=1e-10, atol=1e-10)
        bounds, factors = found[0][name][2], found[0][name][3]
        assert bounds == [0, 2, 5]
        start = list(layers()[name].factorized.factors)
        for number, gradient in enumerate(grads):
            for rank in (0, 1):
                mine = found[rank][name][1][number]
                if "i1" in factors[number]:
                    wanted = gradient.narrow(factors[number].index("i1"), bounds[rank], bounds[rank + 1] - bounds[rank])
                    assert mine.shape != gradient.shape
                else:
                    wanted = gradient
                assert_close(mine, wanted, rtol=1e-10, atol=1e-10)
                assert_close(found[rank][name][4][number], start[number].detach() - 0.1 * gradient, rtol=1e-10, atol=1e-10)
        assert found[0][name][5] == ((0, 7) if name in ("sum", "mean", "max") else (0, 4, 7))
    text = (
        "layer 'table' is a ShardedEmbedding, of which this process has one part of 2; a rank method needs whole weights, equal in all "
        "processes: find the ranks before the table is sharded, or those of unsharded(), or name other layers"
    )
    assert found[0]["ranks"] == found[1]["ranks"] == ([text, text], ["head", "model"])
    assert "first digits 2 to 4 of 5, process 1" in found[1]["ttm"][6]
    assert found[0]["error"].startswith(
        "the table's first digit has 1 values, but there are 2 processes; each needs one at least: give in_"
    )


def test_other_layers_are_refused() -> None:
    with pytest.raises(
        TypeError, match=r"ShardedEmbedding got a Embedding; it needs a tenfold.nn.Embedding or EmbeddingBag: factorise the"
    ):
        ShardedEmbedding(torch.nn.Embedding(3, 4))  # type: ignore[arg-type]


def test_wrong_bags() -> None:
    """In a group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        rows, bags = (ShardedEmbedding(layers()[name]) for name in ("ttm", "mean"))
    finally:
        dist.destroy_process_group()
    ids, offsets = torch.tensor([1, 2]), torch.tensor([0])
    with pytest.raises(TypeError, match=r"ShardedEmbedding got offsets, but gives a row for each id; only bags take them: leave them out"):
        rows(ids, offsets)
    with pytest.raises(NotImplementedError, match=r"per_sample_weights were given to bags of mode 'mean'; they need mode='sum': leave"):
        bags(ids, offsets, torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"the ids have the shape \(2,\) without offsets; give ids \(bags, length\), or ids \(n\) and off"):
        bags(ids)
    with pytest.raises(
        ValueError, match=r"an offset is smaller than the one before it; bags follow each other: sort the ids by their bags"
    ):
        bags(ids, torch.tensor([0, 2, 1]))


def test_frozen_factors_stay_frozen() -> None:
    """In a group of one process: in the part, and in the whole table that is put together again."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for trained in ([False] * 3, [False, True, False]):
            layer = layers()["ttm"]
            for factor, is_trained in zip(layer.factorized.factors, trained, strict=True):
                factor.requires_grad_(is_trained)
            sharded = ShardedEmbedding(layer)
            assert [factor.requires_grad for factor in sharded.factorized.factors] == trained
            assert [factor.requires_grad for factor in sharded.unsharded().factors] == trained
            loss = sharded(torch.arange(5)).sum()
            assert loss.requires_grad == any(trained)
            if any(trained):
                loss.backward()
    finally:
        dist.destroy_process_group()
