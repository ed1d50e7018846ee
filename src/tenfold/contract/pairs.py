"""Factors contracted with each other: the order from opt_einsum, once, as data."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import opt_einsum

from tenfold.contract.steps import Gather, Pair, PairPlan, RowsPlan
from tenfold.network import Network

HYPER_LIMIT = 9  # operands that an index of many joins each to each, so that all sets of them would be looked at: 3 ** 9 pairs
BATCH = "*"  # the index of the samples in a lookup; its size is known at run time only


def contract_in_pairs(
    operands: Sequence[tuple[str, ...]], output: Sequence[str], sizes: Mapping[str, int]
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The pairs that contract the operands to the indices of `output`, and the order in which the result has them."""
    live = dict(enumerate(operands))
    pairs: list[Pair] = []
    path = [(0,)] if len(operands) == 1 else _path(tuple(operands), tuple(sorted(output)), tuple(sorted(sizes.items())))
    if len(operands) == 1:
        return (), operands[0]
    order = list(live)
    for contraction in path:
        chosen = [order[position] for position in sorted(contraction, reverse=True)]
        order = [key for key in order if key not in chosen]
        while len(chosen) > 1:
            left, right = chosen.pop(), chosen.pop()
            rest = {index for key, indices in live.items() if key not in (left, right) for index in indices} | set(output)
            pair, indices = _pair(left, live.pop(left), right, live.pop(right), rest, sizes)
            pairs.append(pair)
            live[len(operands) + len(pairs) - 1] = indices
            chosen.append(len(operands) + len(pairs) - 1)
        order += chosen
    return tuple(pairs), live[order[0]]


@lru_cache(maxsize=4096)
def _path(operands: tuple[tuple[str, ...], ...], output: tuple[str, ...], sizes: tuple[tuple[str, int], ...]) -> list[tuple[int, ...]]:
    letter = {name: opt_einsum.get_symbol(number) for number, (name, _) in enumerate(sizes)}
    equation = ",".join("".join(letter[i] for i in indices) for indices in operands) + "->" + "".join(letter[i] for i in output)
    shapes = [tuple(dict(sizes)[i] for i in indices) for indices in operands]
    is_hyper = any(sum(name in indices for indices in operands) > 2 for name, _ in sizes)
    optimize = "optimal" if len(operands) <= 5 else "greedy" if is_hyper and len(operands) > HYPER_LIMIT else "dp"
    path: Any = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=optimize)[0]
    return path


def _pair(
    left: int, a: tuple[str, ...], right: int, b: tuple[str, ...], rest: set[str], sizes: Mapping[str, int]
) -> tuple[Pair, tuple[str, ...]]:
    shared = [i for i in a if i in b and i in rest]
    summed = [i for i in a if i in b and i not in rest]
    only_a, only_b = [i for i in a if i not in b], [i for i in b if i not in a]

    def size(indices: Sequence[str]) -> int:
        return -1 if BATCH in indices else math.prod(sizes[i] for i in indices)

    indices = (*shared, *only_a, *only_b)
    known = {**sizes, BATCH: 1}
    values = math.prod(known[i] for i in indices)
    inner = math.prod(known[i] for i in summed)
    has_shared = bool(shared)
    lead = (size(shared),) if has_shared else ()
    pair = Pair(
        left,
        right,
        tuple(a.index(i) for i in (*shared, *only_a, *summed)),
        tuple(b.index(i) for i in (*shared, *summed, *only_b)),
        (*lead, size(only_a), inner),
        (*lead, inner, size(only_b)),
        bool(summed),
        tuple(-1 if i == BATCH else sizes[i] for i in indices),
        2 * values * inner if summed else 0,
        values,
    )
    return pair, indices


@lru_cache(maxsize=4096)
def plan_pairs(network: Network, factors: tuple[int, ...], output: tuple[tuple[str, ...], ...]) -> PairPlan:
    """The contraction of some factors; each group of names in `output` becomes one axis of the result (an empty one has size 1)."""
    names = [name for group in output for name in group]
    pairs, indices = _pairs_of(network, factors, frozenset(names))
    shape = tuple(math.prod(network.sizes[name] for name in group) for group in output)
    return PairPlan(factors, pairs, tuple(indices.index(name) for name in names), shape)


@lru_cache(maxsize=16384)
def _pairs_of(network: Network, factors: tuple[int, ...], names: frozenset[str]) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    return contract_in_pairs([network.factors[k] for k in factors], sorted(names), network.sizes)


@lru_cache(maxsize=1024)
def plan_dense(network: Network) -> PairPlan:
    """The contraction of all factors to the dense tensor, one axis for each mode."""
    return plan_pairs(network, tuple(range(len(network.factors))), tuple((mode,) for mode in network.modes))


@lru_cache(maxsize=1024)
def plan_rows(network: Network) -> RowsPlan:
    """The lookup of rows: the input modes (i1, i2, ...) are picked by digits, everything else is contracted with a shared batch."""
    digits = [mode for mode in network.modes if mode[0] == "i"]
    out = [mode for mode in network.modes if mode[0] != "i"]
    gathers, operands = [], []
    for indices in network.factors:
        picked = tuple(i for i in indices if i in digits)
        kept = tuple(i for i in indices if i not in digits)
        gathers.append(
            Gather(
                tuple(digits.index(i) for i in picked),
                tuple(network.sizes[i] for i in picked),
                tuple(indices.index(i) for i in (*picked, *kept)),
                (math.prod(network.sizes[i] for i in picked), *(network.sizes[i] for i in kept)),
            )
        )
        operands.append((BATCH, *kept) if picked else kept)
    typical = {**network.sizes, BATCH: 256}  # only the order of the pairs depends on it
    pairs, indices = contract_in_pairs(operands, [BATCH, *out], typical)
    moved = sum(math.prod(network.sizes[i] for i in kept if i != BATCH) for kept in operands) + sum(pair.size for pair in pairs)
    return RowsPlan(
        network.statement,
        tuple(gathers),
        pairs,
        tuple(indices.index(i) for i in (BATCH, *out)),
        math.prod(network.sizes[i] for i in out),
        sum(pair.flops for pair in pairs if -1 in pair.full_shape),
        sum(pair.flops for pair in pairs if -1 not in pair.full_shape),
        4 * moved,
    )
