"""Quadratic forms against sums over explicit tensors."""

import pytest
import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.contractions import split_indices
from tenfold.solvers.quadratic import Form, assemble, inner, intensity_forms, sensitivity_forms
from tenfold.solvers.solution import rebuild

STATEMENTS = [
    "o r, r k, r i -> o k i",
    "a x b, b y c, c z a -> x y z",
    "o a, a b k, b i -> o k i",
    "o r, r i, o s, s i -> o i",
    "g a r, g b r, g c r -> g a b c",
    "a r, b r, c r, d r -> a b c d",
    "a b -> a b",
]


def network_of(statement: str) -> Network:
    names = sorted(set(statement.replace(",", " ").replace("->", " ").replace("+", " ").split()))
    return Network.parse(statement, {name: 2 + position % 3 for position, name in enumerate(names)})


def drawn(network: Network, batch: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in network.shapes]


@pytest.mark.parametrize("statement", [*STATEMENTS, "a r, r b + a s, s c b, c s -> a b"])
def test_assemble_and_inner_are_those_of_dense_tensors(statement: str):
    network = network_of(statement)
    one, two = drawn(network), drawn(network, seed=1)
    torch.testing.assert_close(assemble(network, one), rebuild(network, one))
    torch.testing.assert_close(inner(network, one, two), (rebuild(network, one) * rebuild(network, two)).flatten(1).sum(1))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_form_of_a_factor_is_the_squared_jacobian(statement: str):
    network = network_of(statement)
    factors = drawn(network)
    for number, form in enumerate(sensitivity_forms(network)):
        columns = torch.eye(factors[number][0].numel(), dtype=torch.float64).reshape(-1, *factors[number].shape[1:])
        for b in range(2):
            others = [factor[b].expand(len(columns), *factor.shape[1:]) for factor in factors]
            moved = assemble(network, [*others[:number], columns, *others[number + 1 :]])
            torch.testing.assert_close(form.value(network, factors)[b], moved.square().sum())


@pytest.mark.parametrize("statement", STATEMENTS[:-1])
def test_slices_of_a_rank_are_what_intensities_sum(statement: str):
    network = network_of(statement)
    factors = drawn(network)
    for rank, form in zip(network.ranks, intensity_forms(network), strict=True):
        total = torch.zeros(2, dtype=torch.float64)
        for position in range(network.sizes[rank]):
            cut = list(factors)
            for k, axis in network.carriers(rank):
                cut[k] = factors[k].narrow(axis + 1, position, 1)
            total += assemble(network.resized({rank: 1}), cut).flatten(1).square().sum(1)
        torch.testing.assert_close(form.value(network, factors), total)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_matrix_gives_the_value_of_its_form(statement: str):
    network = network_of(statement)
    factors = drawn(network)
    for number, indices in enumerate(network.factors):
        shared, own, ranks = split_indices(network, number)
        for form in (*sensitivity_forms(network), *intensity_forms(network), Form(scale=3.0)):
            if form.without == number:
                continue
            matrix = form.matrix(network, factors, number)
            x = factors[number].permute(0, *(indices.index(i) + 1 for i in (*shared, *own, *ranks)))
            x = x.reshape(2, matrix.shape[1], -1, matrix.shape[-1])
            torch.testing.assert_close(torch.einsum("bsnr,bsrt,bsnt->b", x, matrix, x), form.value(network, factors))


def test_forms_can_be_differentiated():
    network = network_of(STATEMENTS[1])
    factors = [factor.requires_grad_() for factor in drawn(network, batch=1)]
    form = sensitivity_forms(network)[0]
    assert torch.autograd.gradcheck(lambda *f: form.value(network, [factors[0], *f]), tuple(factors[1:]))
