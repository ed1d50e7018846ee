"""How an input's indices lie in memory from step to step, so that no product has to wait for a copy of a large state.

The batch is an index like the others. A product may leave its new indices before or behind those that pass, and the next one
finds what it sums at the front, at the end, inside, or in two places: all of these are matrix products on views. Where none
fits, the state is copied into another order, and that is charged for.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, permutations
from typing import NamedTuple

from tenfold.contract.moves import Move
from tenfold.contract.pairs import BATCH
from tenfold.contract.steps import StepKind

FREE_RANKS = 2  # up to so many new ranks are tried in every order, more in that of the statement only

# what a product can do with the runs of passing (p), shared (s) and summed (k) indices that a state consists of:
# the kind of step, what it calls the runs, and the orders in which it can leave its result
_PRODUCTS: dict[str, tuple[StepKind, str, tuple[str, ...]]] = {
    "pk": ("linear", "pk", ("pn", "np")),
    "kp": ("linear", "kp", ("np", "pn")),
    "pkp": ("left", "pkq", ("pnq", "pqn")),
    "spk": ("batched", "spk", ("spn", "snp")),
    "skp": ("batched", "skp", ("snp", "spn")),
    "psk": ("batched", "psk", ("spn", "snp")),
    "ksp": ("batched", "ksp", ("snp", "spn")),
    "spkp": ("batched", "spkq", ("spnq", "spqn")),
    "kpk": ("split", "apk", ("pn", "np")),
    "skpk": ("split", "sapk", ("spn", "snp")),
    "kspk": ("split", "aspk", ("spn", "snp")),
}


class Arrangement(NamedTuple):
    """One way to do a move: the order that the state is copied into first, the product, and where its indices stand then."""

    order: tuple[str, ...]
    is_copied: bool
    kind: StepKind
    axes: str
    out: str
    runs: dict[str, tuple[str, ...]]
    after: tuple[str, ...]


class Roles(NamedTuple):
    """The names of a move's indices; `new` in every order worth trying."""

    of: dict[str, str]
    shared: tuple[str, ...]
    summed: tuple[str, ...]
    new: tuple[tuple[str, ...], ...]


def roles(move: Move, names: dict[int, tuple[str, ...]], modes: Sequence[str]) -> Roles:
    """The roles of the indices in a move; `names` are those of each mask in it."""
    of = dict.fromkeys(names[move.shared], "s") | dict.fromkeys(names[move.summed], "k")
    return Roles(of, names[move.shared], names[move.summed], tuple(new_orders(names[move.new], tuple(modes))))


@lru_cache(maxsize=4096)
def new_orders(new: tuple[str, ...], modes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Orders of new indices: modes as the output has them, ranks before, behind, or on both sides."""
    kept = tuple(mode for mode in modes if mode in new)
    ranks = tuple(name for name in new if name not in modes)
    orders = permutations(ranks) if len(ranks) <= FREE_RANKS else [ranks]
    cuts = range(len(ranks) + 1) if len(ranks) <= FREE_RANKS else (0, len(ranks))
    return tuple(dict.fromkeys((*order[:cut], *kept, *order[cut:]) for order in orders for cut in cuts))


def arrangements(order: tuple[str, ...], role: Roles) -> Iterator[Arrangement]:
    """The ways to do a move with a state whose indices stand in this order."""
    if not role.summed:
        yield from (Arrangement(order, False, "scale", "", "", {"n": new}, (*order, *new)) for new in role.new)
        return
    pattern, parts = _runs(order, role)
    if pattern in _PRODUCTS:
        yield from _products(order, False, pattern, parts, role)
    if pattern not in ("pk", "kp", "spk"):
        moved = tuple(sorted(order, key=lambda name: "spk".index(role.of.get(name, "p"))))
        if moved != order:
            yield from _products(moved, True, *_runs(moved, role), role)


def _runs(order: tuple[str, ...], role: Roles) -> tuple[str, list[tuple[str, ...]]]:
    runs = [(letter, tuple(names)) for letter, names in groupby(order, key=lambda name: role.of.get(name, "p"))]
    return "".join(letter for letter, _ in runs), [names for _, names in runs]


def _products(order: tuple[str, ...], is_copied: bool, pattern: str, parts: list[tuple[str, ...]], role: Roles) -> Iterator[Arrangement]:
    kind, axes, outs = _PRODUCTS[pattern]
    runs = dict(zip(axes, parts, strict=True))
    for new in role.new:
        named = {**runs, "n": new}
        for out in outs if new else outs[:1]:
            yield Arrangement(order, is_copied, kind, axes, out, named, tuple(name for letter in out for name in named[letter]))


def kept_run(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    """The last indices of an order that stand together in another one too: what a copy can move at once."""
    length = 0
    while length < len(after) and after[-length - 1] in before:
        length += 1
        place = before.index(after[-length])
        if before[place : place + length] != after[-length:]:
            return after[len(after) - length + 1 :]
    return after[len(after) - length :]


def start(modes: Sequence[str]) -> tuple[str, ...]:
    """The order of an input's indices."""
    return (BATCH, *modes)
