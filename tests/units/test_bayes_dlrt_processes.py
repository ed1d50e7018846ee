"""Dynamical low-rank training in two processes is that in one on the whole batch."""

from typing import Any

import pytest
import torch
from process_cases import in_two_processes
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from tenfold.bayes import DLRT
from tenfold.formats import SVD, TTM
from tenfold.nn import Linear


def trained(rank: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Ranks and values after six steps, on every second row of the batch in each of two processes, or on all rows."""
    torch.manual_seed(0)
    model = nn.Sequential(Linear(12, 12, format=SVD(rank=6)), nn.Tanh(), Linear(12, 4, format=TTM(rank=3))).double()
    method = DLRT(model, rate=0.2, tolerance=0.3)
    optimizer = torch.optim.SGD(method.other_parameters(), 0.1)
    wrapped = model if rank is None else DistributedDataParallel(model, find_unused_parameters=True)
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.randn(64, n, generator=generator, dtype=torch.float64) for n in (12, 4))
    rows = slice(None) if rank is None else slice(rank, None, 2)

    def closure() -> Tensor:
        model.zero_grad()
        loss = (wrapped(x[rows]) - y[rows]).square().mean()
        loss.backward()
        return loss

    for _ in range(6):
        method.step(closure)
        optimizer.step()
    method.finish()
    ranks = {name: dict(one.network.ranks) for name, one in method.run.weights.items()}
    weights = {"0": model[0].weight, "2": model[2].weight}  # pyright: ignore
    biases = {"0.bias": model[0].bias, "2.bias": model[2].bias}  # pyright: ignore
    return ranks, {name: value.detach().clone() for name, value in (weights | biases).items()}  # pyright: ignore


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch() -> None:
    """float64; the order of sums differs: tolerance 1e-8."""
    found = in_two_processes(trained)
    ranks, values = trained(None)
    assert ranks != {"0": {"r": 6}, "2": {"r1": 3}}
    for one, two in found:
        assert one == ranks
        for name, value in values.items():
            assert_close(two[name], value, rtol=1e-8, atol=1e-8)
