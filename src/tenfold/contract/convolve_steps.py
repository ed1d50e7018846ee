"""Steps of a convolution: pointwise ones, and the one that carries the kernel; channels are the indices, places come last."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from tenfold.contract.cost import Machine
from tenfold.contract.layout import new_orders
from tenfold.contract.setting import DENSE_MARGIN, PASSES, VALUE_BYTES, Setting, parts
from tenfold.contract.steps import ContractionPlan, Step
from tenfold.network import Network


class Positions(NamedTuple):
    """A convolution's positions for each sample, before and after it, and what the kernel modes are; `stride` over all axes.

    is_pointwise: every position is mapped to itself, by a kernel of one value.
    """

    n_in: int
    n_out: int
    kernel: tuple[int, ...]
    is_transposed: bool = False
    stride: int = 1
    is_pointwise: bool = False

    @property
    def nominal(self) -> "Positions":
        """The positions that a plan is made for, in steps of four: it depends on their order of magnitude only."""
        return nominal_positions(self.n_in, self.kernel, self.is_transposed, self.stride, self.is_pointwise)


def nominal_positions(
    n_in: int, kernel: tuple[int, ...], is_transposed: bool = False, stride: int = 1, is_pointwise: bool = False
) -> Positions:
    """`Positions.nominal` from a number that may be symbolic: torch 2.6 traces no property of a tuple that holds one."""
    n_in = 16 * 4 ** sum(1 for limit in (32, 128, 512, 2048, 8192) if n_in > limit)  # an "if" makes torch 2.6 trace a constant
    n_out = n_in * stride if is_transposed else max(1, n_in // stride)
    return Positions(n_in, n_out, kernel, is_transposed, stride, is_pointwise)


@dataclass(frozen=True)
class _Places:
    """Places of the state before and after a step, and those at which the step multiplies; taps of the kernel."""

    n_in: int
    n_out: int
    computed: int
    taps: int


class Convolve(Setting):
    """A convolution of `batch` samples."""

    verb = "convolve"

    def __init__(self, network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions) -> None:
        super().__init__(network, batch, is_cached, machine)
        self.positions = positions
        self._taps = prod(size for name, size in network.index_sizes if name[0] == "k")

    @property
    def start(self) -> tuple[str, ...]:
        return self.names(self.moves.start)

    def _places(self, done: int, group: int) -> _Places:
        kernel, p = self.moves.kernel, self.positions
        n_in = p.n_out if done & kernel else p.n_in
        if not group & kernel:
            return _Places(n_in, n_in, n_in, 1)
        return _Places(n_in, p.n_out, n_in if p.is_transposed else p.n_out, self._taps)

    def price(self, done: int, group: int) -> float:
        passing, shared, summed, new = parts(self.moves.move(done, group), self.moves)
        places = self._places(done, group)
        flops = 2 * self.batch * passing * shared * summed * new * places.taps * places.computed
        if summed == new == 1 and shared > 1:
            arithmetic = self.machine.depthwise(flops)
        else:
            arithmetic = self.machine.product(shared, self.batch * passing * places.computed, summed * places.taps, new)
        values = self.batch * passing * shared * (summed * places.n_in + new * places.n_out)
        weight = self.moves.size(self.moves.open(group)) * places.taps
        seconds = (1 if self.is_cached else PASSES) * self.machine.step(arithmetic, values + weight, 1, VALUE_BYTES)
        return seconds * (DENSE_MARGIN if self.is_whole(group) else 1) + self.build_seconds(group)

    def work(self, done: int, group: int) -> float:
        places = self._places(done, group)
        work = prod(parts(self.moves.move(done, group), self.moves)) * places.taps * places.computed
        return self.batch * work + self.build_work(group)

    def _wanted(self, order: tuple[str, ...], done: int, group: int) -> tuple[str, ...]:
        move = self.moves.move(done, group)
        role = dict.fromkeys(self.names(move.shared), 1) | dict.fromkeys(self.names(move.summed), 2)
        return tuple(sorted(order, key=lambda name: role.get(name, 0)))

    def ways(self, order: tuple[str, ...], done: int, group: int) -> Iterator[tuple[float, tuple[str, ...], tuple[str, ...]]]:
        move = self.moves.move(done, group)
        wanted, summed = self._wanted(order, done, group), set(self.names(move.summed))
        seconds = self.price(done, group)
        if wanted != order:
            values = 2 * self.batch * self.moves.size(self.moves.state(done)) * self._places(done, group).n_in
            seconds += (1 if self.is_cached else 2) * self.machine.step(0.0, values, 1, VALUE_BYTES)
        kept = tuple(name for name in wanted if name not in summed)
        for new in new_orders(self.names(move.new), self.output):
            yield seconds, (*kept, *new), new

    def closing(self, order: tuple[str, ...]) -> float:
        values = 2 * self.batch * self.moves.size(self.moves.output) * self.positions.n_out
        return 0.0 if order == self.output else self.machine.step(0.0, values, 1, VALUE_BYTES)

    def step(self, order: tuple[str, ...], done: int, group: int, way: tuple[str, ...]) -> Step:
        move, places = self.moves.move(done, group), self._places(done, group)
        passing, shared, summed, new = parts(move, self.moves)
        wanted = self._wanted(order, done, group)
        shared_names = tuple(name for name in wanted if name in self.names(move.shared))
        summed_names = tuple(name for name in wanted if name in self.names(move.summed))
        is_spatial = bool(group & self.moves.kernel)
        out, inner = (*shared_names, *way), summed_names
        if is_spatial and self.positions.is_transposed:
            out, inner = (*shared_names, *summed_names), way
        kernel = [(mode,) for mode in self.network.modes if mode[0] == "k"] if is_spatial else [()] * len(self.positions.kernel)
        plan = self.group_plan(group, (out, inner, *kernel))
        after = (*(name for name in wanted if name not in summed_names), *way)
        before_size, size = self.moves.size(self.moves.state(done)) * places.n_in, passing * shared * new * places.n_out
        return Step(
            kind="convolve" if is_spatial else "linear",
            group=plan,
            view=tuple(self.network.sizes[name] for name in order),
            perm=None if wanted == order else tuple(order.index(name) for name in wanted),
            shape=(),
            axes="",
            out="",
            n_shared=shared,
            n_passing=passing,
            flops=2 * passing * shared * summed * new * places.taps * places.computed,
            size=size,
            moved_bytes=VALUE_BYTES * (self.batch * (before_size * (1 if wanted == order else 3) + size) + plan.numel),
            label=self.label(group, after),
        )

    def finish(self, steps: tuple[Step, ...], order: tuple[str, ...], seconds: float) -> ContractionPlan:
        perm = None if order == self.output else tuple(order.index(name) for name in self.output)
        memory = self.memory(steps, self.moves.size(self.moves.start) * self.positions.n_in, perm is not None, is_whole=True)
        shape = tuple(self.network.sizes[name] for name in order)
        return self.plan_of(steps, shape, perm, self.moves.size(self.moves.output), memory, seconds)
