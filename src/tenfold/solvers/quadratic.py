"""Quadratic forms of a network's factors, as planned contractions: norms, Gram matrices, sensitivity and intensities are all of them.

One pattern gives them all: the factors, contracted with a second copy of themselves. An index that both copies share is summed once;
one that is doubled is summed in each copy by itself. The dense tensor is never built, and autograd goes through every form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.contract.pairs import BATCH
from tenfold.network import Network
from tenfold.solvers.contractions import Indices, contract, split_indices, twin


@dataclass(frozen=True)
class Form:
    """scale x sum over modes and over the ranks in `shared` of (sum over all other ranks of the product of the factors)^2.

    without: a factor that is left out; None where all take part.
    """

    without: int | None = None
    shared: frozenset[str] = frozenset()
    scale: float = 1.0

    def value(self, network: Network, factors: Sequence[Tensor], kept: Indices = ()) -> Tensor:
        """(batch, *sizes of `kept`) for factors (batch, *shape); `kept` are indices, or twins of them, that are not summed."""
        numbers = [k for k in range(len(network.factors)) if k != self.without]
        operands = [*self._indices(network, numbers, False), *self._indices(network, numbers, True)]
        tensors = [factors[k] for k in numbers]
        return self.scale * contract([*tensors, *tensors], operands, kept, network, len(factors[0]), factors[0])

    def matrix(self, network: Network, factors: Sequence[Tensor], number: int) -> Tensor:
        """(batch, modes shared with other factors, R, R): the matrix of the form as a function of one factor, with R all its ranks.

        The factor's own modes, which no other factor carries, are the rows that it is applied to.
        """
        numbers = [k for k in range(len(network.factors)) if k not in (number, self.without)]
        operands = [*self._indices(network, numbers, False), *self._indices(network, numbers, True)]
        tensors = [factors[k] for k in numbers] * 2
        modes, _, ranks = split_indices(network, number)
        found = {i for indices in operands for i in indices}
        like = factors[0]
        for rank in ranks:
            if rank in self.shared:
                operands.append((rank, twin(rank)))
                tensors.append(torch.eye(network.sizes[rank], dtype=like.dtype, device=like.device))
        for mode in modes:
            if mode not in found:
                operands.append((mode,))
                tensors.append(torch.ones(network.sizes[mode], dtype=like.dtype, device=like.device))
        output = (*modes, *ranks, *map(twin, ranks))
        size = torch.Size(network.sizes[i] for i in ranks).numel()
        result = contract(tensors, operands, output, network, len(like), like)
        return self.scale * result.reshape(len(like), -1, size, size)

    def _indices(self, network: Network, numbers: Sequence[int], is_second: bool) -> list[Indices]:
        doubled = {i for i in network.ranks if i not in self.shared} if is_second else set()
        return [(BATCH, *(twin(i) if i in doubled else i for i in network.factors[k])) for k in numbers]


def assemble(network: Network, factors: Sequence[Tensor]) -> Tensor:
    """(batch, *network.shape) from factors (batch, *shape)."""
    parts = [
        contract(factors[part], [(BATCH, *i) for i in term.factors], term.modes, term, len(factors[0]), factors[0])
        for term, part in zip(network.terms, network.term_slices, strict=True)
    ]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def inner(network: Network, left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """(batch,): <T, S> of the tensors T and S of two sets of factors, without building either."""
    total = left[0].new_zeros(len(left[0]))
    every = [(BATCH, *indices) for indices in network.factors]
    second = [(BATCH, *(twin(i) if i in network.ranks else i for i in indices)) for indices in network.factors]
    for one in network.term_slices:
        for other in network.term_slices:
            tensors = [*left[one], *right[other]]
            total = total + contract(tensors, [*every[one], *second[other]], (), network, len(total), total)
    return total


def sensitivity_forms(network: Network) -> tuple[Form, ...]:
    """One form for each factor of a network without terms: the trace of the Gram matrix of all others, its own modes counted."""
    forms = []
    for number in range(len(network.factors)):
        _, own, ranks = split_indices(network, number)
        forms.append(Form(number, frozenset(ranks), float(torch.Size(network.sizes[i] for i in own).numel())))
    return tuple(forms)


def intensity_forms(network: Network) -> tuple[Form, ...]:
    """One form for each rank index of a network without terms: the sum over its slices of the squared norm of what each adds."""
    return tuple(Form(None, frozenset([rank])) for rank in network.ranks)
