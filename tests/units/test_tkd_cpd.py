"""CP on a Tucker-2 core; that merged and split blocks are equal is in tests/golden/test_stable_cpd.py."""

import pytest
import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.quadratic import assemble
from tenfold.solvers.solution import relative_errors
from tenfold.solvers.tkd_cpd import tkd_cpd


def network(o: int, i: int, rank: int, statement: str = "o r, r k1 k2, r i -> o i k1 k2") -> Network:
    return Network.parse(statement, {"o": o, "i": i, "k1": 3, "k2": 3, "r": rank})


def inside(o: int, i: int, a: int, b: int, rank: int, seed: int = 0) -> Tensor:
    """A CP tensor in a subspace of a output and b input channels, with a little noise."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    small = torch.einsum("ar,br,kr->abk", draw(a, rank), draw(b, rank), draw(9, rank))
    tensor = torch.einsum("abk,oa,ib->oik", small, draw(o, a), draw(i, b)).reshape(1, o, i, 3, 3)
    other = draw(1, o, i, 3, 3)
    return tensor / tensor.norm() + 0.05 * other / other.norm()


def test_the_bound_is_kept_and_narrow_bases_stay_apart():
    target = inside(40, 32, 5, 4, 24)
    found = tkd_cpd(target, network(40, 32, 24), delta=0.2)
    assert float(found.solution.errors) <= 0.2 * (1 + 1e-9)
    assert found.network.statement == "o r0, r0 r, r k1 k2, r r2, r2 i -> o i k1 k2"
    assert found.bases == (found.network.ranks["r0"], found.network.ranks["r2"]) and max(found.bases) <= 6
    assert found.network.numel < network(40, 32, 24).numel / 2
    torch.testing.assert_close(found.solution.errors, relative_errors(target, found.network, found.solution.factors))
    assert bool((found.solution.history.diff(dim=0) <= 1e-12).all())


def test_wide_bases_are_merged_and_both_choices_can_be_made():
    target = inside(14, 12, 12, 10, 10)
    found = tkd_cpd(target, network(14, 12, 10), delta=0.3)
    assert found.network.statement == network(14, 12, 10).statement
    apart = tkd_cpd(target, network(14, 12, 10), delta=0.3, is_merged=False)
    assert len(apart.network.factors) == 5 and float(apart.solution.errors) <= 0.3 * (1 + 1e-9)
    merged = tkd_cpd(inside(40, 32, 5, 4, 24), network(40, 32, 24), delta=0.2, is_merged=True)
    assert len(merged.network.factors) == 3


def test_without_a_bound_a_short_fit_gives_it_and_small_cores_have_smaller_ranks():
    target = inside(20, 16, 1, 1, 1)
    found = tkd_cpd(target, network(20, 16, 12), slack=1.05, is_merged=True)
    assert float(found.solution.errors) < 0.2
    tiny = tkd_cpd(inside(20, 16, 2, 2, 2), network(20, 16, 12), delta=0.5, share=0.9)
    assert max(tiny.bases) <= 2 and tiny.network.sizes["r"] <= 4


def test_other_orders_of_the_indices():
    target = inside(20, 16, 3, 3, 12).permute(0, 2, 3, 4, 1).contiguous()
    found = tkd_cpd(target, network(20, 16, 12, "k1 r k2, i r, o r -> i k1 k2 o"), delta=0.2)
    torch.testing.assert_close(relative_errors(target, found.network, found.solution.factors), found.solution.errors)
    assert assemble(found.network, found.solution.factors).shape == target.shape
    assert found.network.statement == "k1 r k2, i r1, r1 r, o r2, r2 r -> i k1 k2 o"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.01}, r"delta is 0.01, but CP of rank 4 on a core of .* does not reach it; an error within reach is needed"),
        ({"delta": 1.0}, "delta is 1.0; zero factors have the relative error 1, so it must be from 0 up to below 1: choose a smaller one"),
        ({"share": 1.0}, "the share of Tucker-2 is 1.0; it must be between 0 and 1: 0.1 leaves most of the error to CP"),
    ],
)
def test_wrong_requests_are_told(options: dict[str, float], message: str):
    target = torch.randn(1, 8, 7, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        tkd_cpd(target, network(8, 7, 4), **options)  # type: ignore[arg-type]


def test_networks_that_are_not_cp_of_order_three_are_told():
    two = Network.parse("o r, r i -> o i", {"o": 4, "i": 3, "r": 2})
    with pytest.raises(ValueError, match="has 2 factors and 1 tensors were given; TKD-CPD needs three factors and one tensor"):
        tkd_cpd(torch.randn(1, 4, 3, dtype=torch.float64), two)
    with pytest.raises(ValueError, match="has 3 factors and 2 tensors were given"):
        tkd_cpd(torch.randn(2, 8, 7, 3, 3, dtype=torch.float64), network(8, 7, 4))
    with pytest.raises(ValueError, match="the rank 'r' of .* is 57, but ranks above 56 add nothing"):
        tkd_cpd(torch.randn(1, 8, 7, 3, 3, dtype=torch.float64), network(8, 7, 57))
