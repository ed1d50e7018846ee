"""Candidate plans for an input times a network, and the choice of the cheapest.

Every contraction tree that contains the input is a chain: the input meets groups of factors, one after another, and the factors
of a group are contracted with each other first. So all plans are ordered partitions of the factors. The cheapest is found by
dynamic programming over the set of factors that the input has already met; "all factors in one group" is the dense weight.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

from tenfold.contract.cost import Machine
from tenfold.contract.pairs import plan_pairs
from tenfold.contract.steps import ContractionPlan, PairPlan, Step, StepKind
from tenfold.network import Network

GROUP_LIMIT = 3  # factors merged into one group where the network has more than EXHAUSTIVE factors (heuristic)
EXHAUSTIVE = 8
VALUE_BYTES = 4


@dataclass(frozen=True)
class Positions:
    """A convolution's positions for each sample, before and after it, and what the kernel modes are; `stride` over all axes."""

    n_in: int
    n_out: int
    kernel: tuple[int, ...]
    is_transposed: bool = False
    stride: int = 1

    @property
    def nominal(self) -> "Positions":
        """The positions that a plan is made for, in steps of four: it depends on their order of magnitude only."""
        n_in = 16 * 4 ** sum(self.n_in > limit for limit in (32, 128, 512, 2048, 8192))
        n_out = n_in * self.stride if self.is_transposed else max(1, n_in // self.stride)
        return Positions(n_in, n_out, self.kernel, self.is_transposed, self.stride)


@dataclass(frozen=True)
class _State:
    """What has become of the input: its indices in order, the steps so far and their cost."""

    indices: tuple[str, ...]
    seconds: float = 0.0
    flops: int = 0
    weight_flops: int = 0
    moved: int = 0
    peak: int = 0
    is_convolved: bool = False
    steps: tuple[Step, ...] = field(default=(), repr=False)


@lru_cache(maxsize=4096)
def plan_linear(network: Network, batch: int, is_cached: bool, machine: Machine) -> ContractionPlan:
    """The plan for (batch, in) -> (batch, out). `is_cached`: contracting factors with each other costs nothing (eval)."""
    return _plan(network, batch, is_cached, machine, None)


@lru_cache(maxsize=4096)
def plan_convolution(network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions) -> ContractionPlan:
    """The plan for a convolution of `batch` samples."""
    return _plan(network, batch, is_cached, machine, positions)


def dense_plan(network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions | None) -> ContractionPlan:
    """The plan that rebuilds the dense weight."""
    search = _Search(network, batch, is_cached, machine, positions)
    return search.finish(search.extend(search.start(), tuple(range(len(network.factors)))))


def recount(
    plan: ContractionPlan, network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions | None
) -> ContractionPlan:
    """The same steps with their cost at other sizes: a plan is chosen for a class of sizes, its FLOP depend on the exact ones."""
    search = _Search(network, batch, is_cached, machine, positions)
    state = search.start()
    for step in plan.steps:
        state = search.extend(state, step.group.factors)
    return search.finish(state)


def _plan(network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions | None) -> ContractionPlan:
    search = _Search(network, batch, is_cached, machine, positions)
    everything = frozenset(range(len(network.factors)))
    dense = search.extend(search.start(), tuple(sorted(everything)))
    best: dict[frozenset[int], _State] = {frozenset(): search.start(), everything: dense}
    for size in range(len(everything)):
        for done in [key for key in best if len(key) == size]:
            state = best[done]
            for group in _groups(everything - done):
                after = search.extend(state, group)
                key = done | frozenset(group)
                if after.seconds < best.get(key, best[everything]).seconds:  # costs only grow: what exceeds a whole plan is dropped
                    best[key] = after
    return search.finish(best[everything])


def _groups(left: frozenset[int]) -> Iterator[tuple[int, ...]]:
    limit = len(left) if len(left) <= EXHAUSTIVE else GROUP_LIMIT
    for size in range(1, limit + 1):
        yield from combinations(sorted(left), size)
    if limit < len(left):
        yield tuple(sorted(left))


@dataclass(frozen=True)
class _Search:
    network: Network
    batch: int
    is_cached: bool
    machine: Machine
    positions: Positions | None

    def start(self) -> _State:
        return _State(tuple(m for m in self.network.modes if m[0] in "gi"))

    def sizes(self, indices: tuple[str, ...] | list[str]) -> tuple[int, ...]:
        return tuple(self.network.sizes[i] for i in indices)

    def output(self) -> tuple[str, ...]:
        return tuple(m for m in self.network.modes if m[0] in "go")

    def extend(self, state: _State, factors: tuple[int, ...]) -> _State:
        """The state after the input has met one more group of factors."""
        taken = {k for step in state.steps for k in step.group.factors} | set(factors)
        carried = {i for k in factors for i in self.network.factors[k]}
        later = {i for k, indices in enumerate(self.network.factors) if k not in taken for i in indices} | set(self.output())
        kernel = [i for i in self.network.modes if i[0] == "k" and i in carried]
        passing = [i for i in state.indices if i not in carried]
        shared = [i for i in state.indices if i in carried and i in later]
        summed = [i for i in state.indices if i in carried and i not in later]
        # the rest is new: ranks that a later factor closes, and output modes; ranks of this group alone vanish inside it
        new = [i for i in self._ordered(carried) if i not in state.indices and i in later]
        if self.positions is None:
            return self._linear(state, factors, passing, shared, summed, new)
        return self._convolution(state, factors, passing, shared, summed, new, kernel)

    def _ordered(self, indices: set[str]) -> list[str]:
        ranks = [i for i in self.network.sizes if i in indices and i not in self.network.modes]
        return ranks + [m for m in self.network.modes if m in indices and m[0] != "k"]

    def _linear(
        self, state: _State, factors: tuple[int, ...], passing: list[str], shared: list[str], summed: list[str], new: list[str]
    ) -> _State:
        n_shared, n_summed, n_new = (math.prod(self.sizes(group)) for group in (shared, summed, new))
        order = state.indices
        kind: StepKind
        if not summed:
            kind, shape, after = "scale", (*self.sizes(order), *(1 for _ in new)), [*order, *new]
            groups = (*((i,) if i in shared else () for i in order), *((i,) for i in new))
        elif shared and not new:
            kind, order, after = "scale_sum", (*passing, *summed, *shared), [*passing, *shared]
            shape, groups = (math.prod(self.sizes(passing)), n_summed, n_shared), (tuple(summed), tuple(shared))
        elif shared:
            kind, order, after = "batched", (*passing, *shared, *summed), [*passing, *shared, *new]
            shape, groups = (n_shared, n_summed), (tuple(shared), tuple(summed), tuple(new))
        elif (start := _run(state.indices, summed)) is not None and start + len(summed) < len(order):
            kind, before, behind = "left", order[:start], order[start + len(summed) :]
            if behind[0][0] == "i" and not (before and before[-1][0] == "i"):
                new = [i for i in new if i in self.network.modes] + [i for i in new if i not in self.network.modes]
            after = [*before, *new, *behind]
            summed = list(order[start : start + len(summed)])
            shape, groups = (n_summed, math.prod(self.sizes(behind))), (tuple(new), tuple(summed))
        else:
            kind, order, after = "linear", (*passing, *summed), [*passing, *new]
            shape, groups = (n_summed,), (tuple(new), tuple(summed))
        group = plan_pairs(self.network, factors, tuple(groups))
        n_passing = math.prod(self.sizes(passing))
        flops = 2 * n_passing * n_shared * n_summed * n_new if kind in ("linear", "left", "batched") else 0
        if kind in ("linear", "left"):
            seconds = self.machine.product(1, self.batch * n_passing, n_summed, n_new)
        elif kind == "batched":
            seconds = self.machine.product(n_shared, self.batch * n_passing, n_summed, n_new)
        else:
            seconds = 0.0
        return self._advance(state, kind, group, order, shape, after, 1, n_passing, flops, seconds, 1, 1, n_summed)

    def _convolution(
        self,
        state: _State,
        factors: tuple[int, ...],
        passing: list[str],
        shared: list[str],
        summed: list[str],
        new: list[str],
        kernel: list[str],
    ) -> _State:
        assert self.positions is not None
        n_kernel = sum(m[0] == "k" for m in self.network.modes)
        if kernel and len(kernel) < n_kernel:  # part of the kernel alone is not a convolution the plan can place yet
            return _State((), math.inf, steps=state.steps)
        n_shared, n_summed, n_new = (math.prod(self.sizes(group)) for group in (shared, summed, new))
        order, after = (*passing, *shared, *summed), [*passing, *shared, *new]
        taps = math.prod(self.sizes(kernel)) if kernel else 1
        out, inner = (*shared, *new), tuple(summed)
        if kernel and self.positions.is_transposed:
            out, inner = (*shared, *summed), tuple(new)
        groups = (out, inner, *((k,) for k in kernel)) if kernel else (out, inner, *(() for _ in range(len(self.positions.kernel))))
        group = plan_pairs(self.network, factors, groups)
        n_in = self.positions.n_out if state.is_convolved else self.positions.n_in
        n_out = self.positions.n_out if kernel else n_in
        places = n_in if kernel and self.positions.is_transposed else n_out
        n_passing = math.prod(self.sizes(passing))
        flops = 2 * n_passing * n_shared * n_summed * n_new * taps * places
        if n_summed == n_new == 1 and n_shared > 1:
            seconds = self.machine.depthwise(self.batch * flops)
        else:
            seconds = self.machine.product(n_shared, self.batch * n_passing * places, n_summed * taps, n_new)
        kind: StepKind = "convolve" if kernel else "linear"
        return self._advance(state, kind, group, order, (), after, n_shared, n_passing, flops, seconds, n_in, n_out, n_summed)

    def _advance(
        self,
        state: _State,
        kind: StepKind,
        group: PairPlan,
        order: tuple[str, ...],
        shape: tuple[int, ...],
        after: list[str],
        n_shared: int,
        n_passing: int,
        flops: int,
        seconds: float,
        n_in: int,
        n_out: int,
        n_summed: int,
    ) -> _State:
        perm = None if order == state.indices else tuple(state.indices.index(i) for i in order)
        before_size = math.prod(self.sizes(state.indices)) * n_in
        size = math.prod(self.sizes(after)) * n_out
        moved = (
            self.batch * (before_size * (3 if perm else 1) + size * (n_summed if kind == "scale_sum" and n_summed > 1 else 1)) + group.numel
        )
        label = " . ".join("(" + " ".join(self.network.factors[k]) + ")" for k in group.factors) + " -> " + " ".join(after)
        view = self.sizes(state.indices)
        step = Step(kind, group, view, perm, shape, self.sizes(after), n_shared, n_passing, flops, size, label)
        seconds = self.machine.step(seconds, moved, 2 if perm or kind == "scale_sum" else 1, VALUE_BYTES)
        if not self.is_cached and group.pairs:
            arithmetic = sum(self.machine.product(1, 64, 64, 64) * pair.flops / (2 * 64**3) for pair in group.pairs)
            seconds += self.machine.step(arithmetic, 2 * sum(pair.size for pair in group.pairs), len(group.pairs), VALUE_BYTES)
        return _State(
            tuple(after),
            state.seconds + seconds,
            state.flops + flops,
            state.weight_flops + group.flops,
            state.moved + moved,
            max(state.peak, self.batch * (before_size + size) + group.numel),
            state.is_convolved or kind == "convolve",
            (*state.steps, step),
        )

    def finish(self, state: _State) -> ContractionPlan:
        """The plan of a state that has met all factors."""
        wanted = self.output()
        perm = None if state.indices == wanted else tuple(state.indices.index(i) for i in wanted)
        return ContractionPlan(
            self.network.statement,
            "apply" if self.positions is None else "convolve",
            state.steps,
            self.sizes(state.indices),
            perm,
            math.prod(self.sizes(wanted)),
            state.flops,
            state.weight_flops,
            round(state.seconds * 1e9),
            state.moved * VALUE_BYTES,
            state.peak * VALUE_BYTES,
            len(state.steps) == 1 and len(self.network.factors) > 1,
        )


def _run(indices: tuple[str, ...], wanted: list[str]) -> int | None:
    """Where the wanted indices stand together in `indices`, or None where others stand between them."""
    start = min(indices.index(i) for i in wanted)
    return start if set(indices[start : start + len(wanted)]) == set(wanted) else None
