"""What a search is told: the network, the batch, the machine, and whether results of factors alone are kept between calls."""

import abc
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from tenfold.contract.cost import Machine
from tenfold.contract.moves import Move, Moves
from tenfold.contract.pairs import plan_pairs
from tenfold.contract.steps import ADD_ABOVE, ContractionPlan, PairPlan, Step
from tenfold.network import Network

VALUE_BYTES = 4
PASSES = 3  # forward, and in training the gradients of the state and of the weight: three products of the same size
TILE_BYTES = 6 << 20  # of the states of one step; a batch that needs more than twice as much is cut into parts of this size
SAVED_BYTES = 24 << 20  # of states saved for backward; above it they are computed again there, part by part
DENSE_MARGIN = 1.03  # the dense weight must be predicted to be so much faster: it breaks the FLOP that a budget was given for


class Memory(NamedTuple):
    """Rows of a part, above how many rows a batch is cut into parts, above how many states are computed again, bytes at the peak."""

    tile: int
    tile_above: int
    recompute_above: int
    peak_bytes: int


class Setting(abc.ABC):
    """The costs of moves, and what they are as steps, for one verb.

    Args:
        network: the statement and the sizes.
        batch: rows, or samples.
        is_cached: contracting factors with each other costs nothing (eval); otherwise a step counts three times (training).
        machine: what operations cost.
    """

    verb: str

    def __init__(self, network: Network, batch: int, is_cached: bool, machine: Machine) -> None:
        if batch < 1:
            raise ValueError(f"a plan is asked for a batch of {batch}; one of at least 1 is needed: give the rows or samples of a call")
        self.network, self.batch, self.is_cached, self.machine = network, batch, is_cached, machine
        self.moves = Moves(network, self.verb == "convolve")
        self._names: dict[int, tuple[str, ...]] = {}
        self._built: dict[int, tuple[float, float]] = {}

    @property
    @abc.abstractmethod
    def start(self) -> tuple[str, ...]:
        """The input's indices in order."""

    @abc.abstractmethod
    def price(self, done: int, group: int) -> float:
        """Seconds for a step at least, whatever the layout."""

    @abc.abstractmethod
    def work(self, done: int, group: int) -> float:
        """Multiply-adds of a step for the whole batch, with those that build its weight."""

    @abc.abstractmethod
    def ways(self, order: tuple[str, ...], done: int, group: int) -> Iterator[tuple[float, tuple[str, ...], Any]]:
        """Seconds, the order of the indices afterwards, and what `step` needs, for each way to do a step."""

    @abc.abstractmethod
    def closing(self, order: tuple[str, ...]) -> float:
        """Seconds to bring the last state into the order of the output."""

    @abc.abstractmethod
    def step(self, order: tuple[str, ...], done: int, group: int, way: Any) -> Step:
        """The step as data."""

    @abc.abstractmethod
    def finish(self, steps: tuple[Step, ...], order: tuple[str, ...], seconds: float) -> ContractionPlan:
        """The plan of steps that end with the indices in this order."""

    @cached_property
    def output(self) -> tuple[str, ...]:
        """The modes of the output that are larger than 1."""
        return tuple(mode for mode in self.network.modes if mode[0] in "go" and self.network.sizes[mode] > 1)

    def names(self, indices: int) -> tuple[str, ...]:
        """The names of a mask of indices."""
        if (found := self._names.get(indices)) is None:
            found = self._names[indices] = self.moves.of(indices)
        return found

    def build_seconds(self, group: int) -> float:
        """Seconds to contract a group's factors with each other; 0 where the result is kept."""
        return 0.0 if self.is_cached else PASSES * self._build(group)[0]

    def build_work(self, group: int) -> float:
        """Multiply-adds to contract a group's factors with each other; 0 where the result is kept."""
        return 0.0 if self.is_cached else self._build(group)[1]

    def _build(self, group: int) -> tuple[float, float]:
        """(seconds, multiply-adds) of the best tree of pairs."""
        if (found := self._built.get(group)) is not None:
            return found
        moves, best = self.moves, (float("inf"), 0.0)
        if group & (group - 1) == 0:
            best = (self.machine.launch, 0.0)
        result = moves.open(group)
        for half in moves.parts(group):
            left, right = moves.open(half), moves.open(group & ~half)
            work = moves.size(left | right) if (left | right) & ~result else 0
            moved = moves.size(left) + moves.size(right) + moves.size(result)
            seconds = self.machine.step(2 * work / (self.machine.peak_flops / 2), 2 * moved, 3, VALUE_BYTES)
            one, two = self._build(half), self._build(group & ~half)
            best = min(best, (seconds + one[0] + two[0], work + one[1] + two[1]))
        self._built[group] = best
        return best

    def group_plan(self, group: int, axes: tuple[tuple[str, ...], ...]) -> PairPlan:
        """How a group's factors become a tensor of these axes; indices of size 1 go with the last one."""
        factors = self.moves.factors(group)
        named = {name for axis in axes for name in axis}
        used = {name for k in factors for name in self.network.factors[k]}
        outside = {name for k, f in enumerate(self.network.factors) if k not in factors for name in f} | set(self.network.modes)
        ones = tuple(i for i, size in self.network.index_sizes if size == 1 and i in used and i in outside and i not in named)
        return plan_pairs(self.network, factors, (*axes[:-1], (*axes[-1], *ones)))

    def memory(self, steps: tuple[Step, ...], n_in: int, is_permuted: bool, is_whole: bool = False) -> Memory:
        """What is alive at once beside the input: states, their copies, weights, and in training what is saved, and gradients.

        `is_whole`: the batch is never cut into parts.
        """
        saved, working, largest, before = 0, 0, 1, 0  # values for each row; the input itself is not counted
        for step in steps:
            copied = (before or n_in) if step.perm is not None else 0
            is_added = self.is_cached and step.axes == "apk" and self.batch * (before or n_in) >= ADD_ABOVE
            spread = step.size * step.shape[step.axes.index("a")] if step.kind == "split" and not is_added else 0
            largest = max(largest, before + copied + step.size)
            working = max(working, before + copied, (copied or before) + step.size + spread)
            if not self.is_cached:
                saved += copied or before
                working = max(working, saved + step.size + max(spread, before))
            before = step.size
        working = max(working, saved + before * 2 if is_permuted else 0)
        tile = max(1, TILE_BYTES // (VALUE_BYTES * largest))
        recompute = max(2 * tile, SAVED_BYTES // (VALUE_BYTES * max(1, saved)))
        rows = self.batch if self.batch <= 2 * tile or len(steps) == 1 or is_whole else tile
        kept = saved * (self.batch - rows) if self.batch <= recompute else 0
        ends = before * (1 if self.is_cached else 2) * self.batch if rows < self.batch else 0
        weights = sum(step.group.numel for step in steps) * (1 if self.is_cached else 2)
        return Memory(tile, 2 * tile, recompute, VALUE_BYTES * (rows * working + kept + ends + weights))

    def plan_of(
        self, steps: tuple[Step, ...], shape: tuple[int, ...], perm: tuple[int, ...] | None, n_out: int, memory: Memory, seconds: float
    ) -> ContractionPlan:
        """The plan of steps that end with a state of this shape; `perm` brings it into the order of the output."""
        return ContractionPlan(
            statement=self.network.statement,
            verb=self.verb,
            batch=self.batch,
            is_cached=self.is_cached,
            steps=steps,
            out_view=shape,
            out_perm=perm,
            n_out=n_out,
            tile=memory.tile,
            tile_above=memory.tile_above,
            recompute_above=memory.recompute_above,
            flops=sum(step.flops for step in steps),
            weight_flops=sum(step.group.flops for step in steps),
            nanoseconds=round(seconds * 1e9),
            size_bytes=sum(step.moved_bytes for step in steps),
            peak_bytes=memory.peak_bytes,
            is_dense=len(steps) == 1 and len(self.network.factors) > 1,
        )

    def is_whole(self, group: int) -> bool:
        """Whether a group is the dense weight."""
        return group == self.moves.all and len(self.network.factors) > 1

    def label(self, group: int, after: tuple[str, ...]) -> str:
        """A step in words: the factors of its group, and the state after it."""
        return " . ".join("(" + " ".join(self.network.factors[k]) + ")" for k in self.moves.factors(group)) + " -> " + " ".join(after)


def parts(move: Move, moves: Moves) -> tuple[int, int, int, int]:
    """How many values pass, are shared, are summed and are new."""
    return moves.size(move.passing), moves.size(move.shared), moves.size(move.summed), moves.size(move.new)
