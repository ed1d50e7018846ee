"""Network: what follows from a statement alone, and what it refuses."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tenfold import contract
from tenfold.fold import make_fold
from tenfold.format import Format
from tenfold.formats import all_formats
from tenfold.network import Network

RING = "a o1 b, b o2 c, c i1 d, d i2 a -> o1 o2 i1 i2"
SIZES = {"o1": 4, "o2": 6, "i1": 5, "i2": 3}


def test_parse() -> None:
    network = Network.parse("r o1 i1,  r o2 i2->o1 o2 i1 i2", {**SIZES, "r": 2, "unused": 9})
    assert network.factors == (("r", "o1", "i1"), ("r", "o2", "i2"))
    assert network.statement == "r o1 i1, r o2 i2 -> o1 o2 i1 i2"
    assert network.shapes == ((2, 4, 5), (2, 6, 3))
    assert network.shape == (4, 6, 5, 3)
    assert network.ranks == {"r": 2}
    assert network.numel == 40 + 36
    assert network.carriers("r") == ((0, 0), (1, 0))
    assert network.carriers("i2") == ((1, 2),)


def test_networks_are_values() -> None:
    """Equal statements with equal sizes are one key of a cache; the unused names of `sizes` do not count."""
    one = Network.parse("o r, r i -> o i", {"o": 2, "i": 3, "r": 1})
    other = Network.parse("o r, r i -> o i", {"i": 3, "o": 2, "r": 1, "x": 5})
    assert one == other and hash(one) == hash(other)
    assert one != one.resized({"r": 2})
    assert one.resized({"r": 2}).ranks == {"r": 2}
    assert Network.parse(one.statement, one.sizes) == one


@pytest.mark.parametrize(
    ("statement", "sizes", "message"),
    [
        ("o r, r i", {}, "'o r, r i' is not a statement; write index names as in 'o r, r i -> o i'"),
        ("o r, r 1 -> o", {}, "is not a statement"),
        ("o-r, r i -> o i", {}, "is not a statement"),
        ("-> o", {"o": 1}, "has modes .'o'. that no factor carries"),
        ("o r, r i ->", {"o": 1, "i": 1, "r": 1}, "has no factor or no mode; it needs at least one of each"),
        ("o o, i -> o i", {"o": 1, "i": 1}, "repeats an index within 'o o'; name each axis once"),
        ("o r, r i -> o i i", {"o": 1, "i": 1, "r": 1}, "repeats an index within 'o i i'"),
        ("o r, r i -> o i z", {"o": 1, "i": 1, "r": 1, "z": 2}, r"has modes \['z'\] that no factor carries; add them to a factor"),
        ("o r, r i -> o i", {"o": 1, "i": 1}, "sizes are given for .* but the statement .* has the indices"),
        ("o r, r i -> o i", {"o": 1, "i": 1, "r": 0}, "sizes {'r': 0} of .* are below 1; every index needs a size of at least 1"),
        ("o r, r i s -> o i", {"o": 1, "i": 1, "r": 1, "s": 2}, r"has ranks \['s'\] on one factor only; a rank joins two or more"),
    ],
)
def test_bad_statements(statement: str, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network.parse(statement, sizes)


@pytest.mark.parametrize(
    ("name", "statement", "sizes", "most"),
    [
        ("SVD", "o r, r i -> o i", {"o": 7, "i": 5}, {"r": 5}),
        ("SVD of a kernel", "o r, r i k -> o i k", {"o": 70, "i": 5, "k": 9}, {"r": 45}),
        # a term of CP can be absorbed by the others from the product of all modes but the largest on
        ("CP", "o r, r k, r i -> o k i", {"o": 8, "k": 9, "i": 4}, {"r": 32}),
        ("Tucker", "o p, p q k, q i -> o i k", {"o": 8, "k": 9, "i": 4}, {"p": 8, "q": 4}),
        ("Tucker with a wide mode", "o p, p q, q i -> o i", {"o": 80, "i": 4}, {"p": 4, "q": 4}),
        ("TT", "o1 r, r o2 s, s i1 t, t i2 -> o1 o2 i1 i2", SIZES, {"r": 4, "s": 15, "t": 3}),
        ("TTM", "o1 i1 r, r o2 i2 -> o1 o2 i1 i2", SIZES, {"r": 18}),
        ("TTM with a kernel", "o1 i1 r, r o2 i2 s, s k -> o1 o2 i1 i2 k", {**SIZES, "k": 2}, {"r": 20, "s": 2}),
        ("KCP", "r o1 i1, r o2 i2 -> o1 o2 i1 i2", SIZES, {"r": 18}),
        ("KCP of products", "r o1 s, r s i1, r o2 t, r t i2 -> o1 o2 i1 i2", SIZES, {"r": 18, "s": 4, "t": 3}),
        # for each block a Tucker term: no more than the modes of a leg
        ("BT", "b o1 i1 p, b o2 i2 q, b p q -> o1 o2 i1 i2", SIZES, {"b": 18, "p": 18, "q": 18}),
        ("Monarch", "o1 o2 i1 r, r o2 i1 i2 -> o1 o2 i1 i2", SIZES, {"r": 3}),
        ("LoHa", "o1 r, r i1, o1 s, s i1 -> o1 i1", {"o1": 4, "i1": 5}, {"r": 4, "s": 4}),
        # in a ring nothing separates: the product of all modes but the largest carrier's, two carriers each
        ("ring", RING, SIZES, {"a": 4, "b": 4, "c": 5, "d": 3}),
        ("groups", "g o r, g r i -> g o i", {"g": 16, "o": 3, "i": 2}, {"r": 2}),
    ],
)
def test_useful_rank(name: str, statement: str, sizes: dict[str, int], most: dict[str, int]) -> None:
    network = Network.parse(statement, {**sizes, **dict.fromkeys(most, 1)})
    found = {rank: network.useful_rank(rank) for rank in network.ranks}
    if name == "ring":
        total = math.prod(sizes.values())
        pairs = {"a": (4, 3), "b": (4, 6), "c": (6, 5), "d": (5, 3)}
        assert found == {rank: total // max(pair) for rank, pair in pairs.items()}
    else:
        assert found == most


@pytest.mark.parametrize(
    ("statement", "rank"),
    [
        ("o1 r, r o2 s, s i1 t, t i2 -> o1 o2 i1 i2", 6),  # a chain: its largest useful rank, o1 o2 against i1 i2
        (RING, 4),  # cut between o1 and o2, or i1 and i2, it is a chain with o1 i2 = 4 on one side of its middle bond
        ("a b o1 i1, a c o2 i2, b c k -> o1 o2 i1 i2 k", 6),  # all pairs joined: a star around a core of six values
        ("a c m, c a n, m o1 i1, n o2 i2 -> o1 o2 i1 i2", 6),
        ("r o1 i1, r o2 i2, r k -> o1 o2 i1 i2 k", None),  # a rank of three factors
        ("o1 r, r i1, o1 s, s i1 -> o1 i1", None),  # modes of two factors
        ("o1 i1, o2 r, r i2 -> o1 o2 i1 i2", None),  # nothing joins the parts
        ("o1 o2 r, r i1 i2 + s o1 i1, s o2 i2 -> o1 o2 i1 i2", None),
        ("g o1 i1 a b, g a o2 i2 c, g b c k -> g o1 o2 i1 i2 k", 6),
    ],
)
def test_sufficient_rank(statement: str, rank: int | None) -> None:
    """The network of this rank has as many directions at a point as the tensor has entries: its tensors are not a smaller set."""
    network = Network.parse(statement, {"o1": 2, "o2": 3, "i1": 3, "i2": 2, "k": 2, "g": 2, **dict.fromkeys("abcdmnrst", 1)})
    assert network.sufficient_rank == rank
    if rank is None or "g" in network.sizes:
        return
    wide = network.resized(dict.fromkeys(network.ranks, rank))
    plan = contract.plan_dense(wide)
    torch.manual_seed(0)
    factors = tuple(torch.randn(shape, dtype=torch.float64) for shape in wide.shapes)
    parts = torch.func.jacrev(lambda factors: contract.dense(plan, factors).flatten())(factors)
    directions = torch.cat([part.flatten(1) for part in parts], 1)
    assert torch.linalg.matrix_rank(directions) == math.prod(wide.shape)


SUM = "r o1 i1, r o2 i2 + o1 i1 s, s o2 t, t i2 -> o1 o2 i1 i2"


def test_a_sum_of_networks() -> None:
    network = Network.parse(SUM, {**SIZES, "r": 2, "s": 3, "t": 1})
    assert network.statement == SUM and Network.parse(network.statement, network.sizes) == network
    assert network.term_lengths == (2, 3) and network.term_slices == (slice(0, 2), slice(2, 5))
    assert [term.statement for term in network.terms] == [
        "r o1 i1, r o2 i2 -> o1 o2 i1 i2",
        "o1 i1 s, s o2 t, t i2 -> o1 o2 i1 i2",
    ]
    assert network.numel == sum(term.numel for term in network.terms) == 2 * (20 + 18) + 60 + 18 + 3
    assert network.ranks == {"r": 2, "s": 3, "t": 1}
    assert network.carriers("t") == ((3, 2), (4, 0))
    wider = network.resized({"t": 2})
    assert wider.terms[1].ranks == {"s": 3, "t": 2} and wider.term_lengths == (2, 3)
    assert {rank: network.useful_rank(rank) for rank in network.ranks} == {"r": 18, "s": 18, "t": 3}


def test_one_term_is_the_network_itself() -> None:
    network = Network.parse("o r, r i -> o i", {"o": 2, "i": 3, "r": 1})
    assert network.terms == (network,) and network.term_slices == (slice(0, 2),) and network.term_lengths == ()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("o r, r i + o r, r i -> o i", r"the ranks \['r'\] of .* stand in more than one term; name them apart"),
        ("o r, r i + o s, s -> o i", r"the statement 'o s, s -> o i' has modes \['i'\] that no factor carries; add them to a factor"),
        ("o r, r i + o i s, r -> o i", r"has ranks \['s'\] on one factor only"),
        ("o r, r i + o s i -> o i", r"has ranks \['s'\] on one factor only"),
        ("o r, r i + -> o i", r"has modes \['o', 'i'\] that no factor carries"),
        ("o r, r i + s! -> o i", "is not a statement; write index names"),
    ],
)
def test_bad_sums(statement: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network.parse(statement, {"o": 2, "i": 3, "r": 1, "s": 1})


@pytest.mark.parametrize("lengths", [(2,), (1, 1), (2, 1), (2, 2, 0), (3, 2, -1)])
def test_terms_that_do_not_hold_all_factors(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the 4 factors of .* are in terms of .*; give two terms or more that hold all of them"):
        Network.of([("o", "r"), ("r", "i"), ("o", "s"), ("s", "i")], ("o", "i"), {"o": 2, "i": 3, "r": 1, "s": 1}, lengths)


@pytest.mark.parametrize(
    ("statement", "ranks", "bound"),
    [
        ("o1 o2 r, r i1 i2 -> o1 o2 i1 i2", {"r": 5}, 5),
        ("o1 r, o2 r, r i1, r i2 -> o1 o2 i1 i2", {"r": 5}, 5),
        ("o1 r, r o2 s, s i1 t, t i2 -> o1 o2 i1 i2", {"r": 4, "s": 7, "t": 2}, 7),
        (RING, {"a": 2, "b": 3, "c": 5, "d": 3}, 10),
        ("r o1 i1, r o2 i2 -> o1 o2 i1 i2", {"r": 1}, 4 * 3),
        ("r o1 i1, r o2 i2 -> o1 o2 i1 i2", {"r": 9}, 15),  # never above the smaller side of the matrix
        ("o1 o2 r, r i1 i2, o1 o2 s, s i1 i2 -> o1 o2 i1 i2", {"r": 2, "s": 3}, 6),
        ("o1 o2 r, r i1 i2 + o1 o2 s, s i1 i2 -> o1 o2 i1 i2", {"r": 2, "s": 3}, 5),
        ("o1 o2 r, r i1 i2 + s o1 i1, s o2 i2 -> o1 o2 i1 i2", {"r": 2, "s": 1}, 14),
        ("g o1 r, g r i1 -> g o1 i1", {"r": 2, "g": 3}, 4),  # groups count as input modes
    ],
)
def test_matrix_rank_bound(statement: str, ranks: dict[str, int], bound: int) -> None:
    assert Network.parse(statement, {**SIZES, **ranks}).matrix_rank_bound() == bound


def smallest_of_all_placements(network: Network) -> int:
    """The bound as its docstring has it, in 2^factors steps."""
    if network.term_lengths:
        return sum(map(smallest_of_all_placements, network.terms))
    ends = [(size, [k for k, _ in network.carriers(i)], [i[0] == "o"] * (i in network.modes)) for i, size in network.index_sizes]
    return min(
        math.prod(size for size, carriers, own in ends if len({*own, *(sides[k] for k in carriers)}) > 1)
        for sides in itertools.product((False, True), repeat=len(network.factors))
    )


@pytest.mark.parametrize("kind", all_formats().values(), ids=all_formats())
@pytest.mark.parametrize("modes", [((4, 2), (3, 3)), ((2, 3, 4), (5, 2, 3))], ids=str)
def test_matrix_rank_bound_is_the_smallest_of_all_placements(kind: type[Format], modes: tuple[tuple[int, ...], ...]) -> None:
    rows, columns = map(math.prod, modes)
    try:
        fold = kind().fold(make_fold([("o", rows), ("i", columns)], kind.n_modes, out_modes=modes[0], in_modes=modes[1]))
        widest = kind().widest(fold)
    except ValueError:
        pytest.skip(f"{kind.__name__} does not take {len(modes[0])} modes for each axis")
    drawn = random.Random(0)
    for _ in range(8):
        network = widest.resized({rank: drawn.randint(1, 9) for rank in widest.ranks})
        assert network.matrix_rank_bound() == min(rows, columns, smallest_of_all_placements(network)), network


@given(st.data())
def test_matrix_rank_bound_of_any_network(data: st.DataObject) -> None:
    n_factors = data.draw(st.integers(1, 6))
    names = data.draw(st.lists(st.sampled_from(["o1", "o2", "o3", "i1", "i2", "g", "k", *"abcdef"]), unique=True, min_size=1))
    factors: list[list[str]] = [[] for _ in range(n_factors)]
    for name in names:
        fewest = 2 if name in "abcdef" else 1
        if n_factors >= fewest:
            for k in data.draw(st.lists(st.integers(0, n_factors - 1), unique=True, min_size=fewest)):
                factors[k].append(name)
    modes = [name for name in names if name not in "abcdef"]
    assume(modes)
    network = Network.of(factors, modes, {name: data.draw(st.integers(1, 7)) for name in names})
    n_rows = math.prod(network.sizes[mode] for mode in modes if mode[0] == "o")
    wanted = min(n_rows, math.prod(network.shape) // n_rows, smallest_of_all_placements(network))
    assert network.matrix_rank_bound() == wanted, network.statement


@pytest.mark.parametrize("name", ["tt", "tr", "cp", "tkd"])
def test_matrix_rank_bound_of_many_factors(name: str) -> None:
    """At 20 output and 20 input modes there are 2^40 placements or more: to try them all would never end."""
    kind = all_formats()[name]
    fold = kind().fold(make_fold([("o", 2**20), ("i", 2**20)], kind.n_modes, out_modes=(2,) * 20, in_modes=(2,) * 20))
    network = kind(rank=3).network(fold)
    assert len(network.factors) >= 40
    assert network.matrix_rank_bound() == (9 if name == "tr" else 3)


def test_components() -> None:
    chain = Network.parse("o1 r, r o2 s, s i1 t, t i2 -> o1 o2 i1 i2", {**SIZES, "r": 2, "s": 2, "t": 2})
    assert sorted(map(sorted, chain.components("s"))) == [[0, 1], [2, 3]]
    assert sorted(map(sorted, chain.components("r"))) == [[0], [1, 2, 3]]
    ring = Network.parse(RING, {**SIZES, **dict.fromkeys("abcd", 2)})
    assert ring.components("a") == [{0, 1, 2, 3}]


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4))
def test_cp_counts(order: int, size: int, rank: int) -> None:
    """R times the sum of the modes, for any order."""
    factors = [("r", f"m{n}") for n in range(max(2, order))]
    modes = [f"m{n}" for n in range(max(2, order))]
    network = Network.of(factors, modes, {"r": rank, **dict.fromkeys(modes, size)})
    assert network.numel == rank * size * max(2, order)
