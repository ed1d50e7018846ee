"""Contractions of tensors by the names of their indices, planned once for the same names and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tenfold.contract.pairs import BATCH, contract_in_pairs
from tenfold.contract.run import run_pairs
from tenfold.contract.steps import Pair
from tenfold.network import Network

Indices = tuple[str, ...]


def twin(index: str) -> str:
    """The name of an index in a second copy of the factors."""
    return f"{index}'"


def split_indices(network: Network, number: int) -> tuple[list[str], list[str], list[str]]:
    """The modes of a factor that other factors carry too, those of its own, and its ranks."""
    mine = network.factors[number]
    elsewhere = {i for k, indices in enumerate(network.factors) if k != number for i in indices}
    modes = [i for i in mine if i in network.modes]
    return [i for i in modes if i in elsewhere], [i for i in modes if i not in elsewhere], [i for i in mine if i not in network.modes]


@dataclass(frozen=True)
class Contraction:
    """The pairs that contract tensors, and the order of the axes of their result."""

    pairs: tuple[Pair, ...]
    perm: tuple[int, ...]

    @property
    def flops(self) -> int:
        """FLOP of one sample."""
        return sum(pair.flops for pair in self.pairs)

    def run(self, tensors: Sequence[Tensor]) -> Tensor:
        """The result, with the indices that it was planned for."""
        return run_pairs(list(tensors), self.pairs).permute(self.perm)


@lru_cache(maxsize=8192)
def planned(operands: tuple[Indices, ...], output: Indices, sizes: tuple[tuple[str, int], ...]) -> Contraction:
    """The contraction of tensors with the indices `operands` to `output`; `sizes` may have more indices than these."""
    used = {i for indices in operands for i in indices}
    pairs, found = contract_in_pairs(operands, output, {i: size for i, size in sizes if i in used})
    return Contraction(pairs, tuple(found.index(i) for i in output))


@lru_cache(maxsize=1024)
def sizes_of(network: Network) -> tuple[tuple[str, int], ...]:
    """The sizes of all indices of a network, of the twins of its ranks, and of a batch of one sample."""
    return *network.index_sizes, *((twin(rank), size) for rank, size in network.ranks.items()), (BATCH, 1)


def contract(tensors: Sequence[Tensor], operands: Sequence[Indices], output: Indices, network: Network, batch: int, like: Tensor) -> Tensor:
    """(batch, *output) from tensors with the indices `operands`; some of them carry the batch."""
    tensors, operands = list(tensors), list(operands)
    if not any(BATCH in indices for indices in operands):
        tensors.append(torch.ones(batch, dtype=like.dtype, device=like.device))
        operands.append((BATCH,))
    return planned(tuple(operands), (BATCH, *output), sizes_of(network)).run(tensors)
