"""Steps of (*batch, in) -> (*batch, out): their costs, and the memory that they take."""

from collections.abc import Iterator
from math import prod

from tenfold.contract.layout import Arrangement, Roles, arrangements, kept_run, roles, start
from tenfold.contract.pairs import BATCH
from tenfold.contract.setting import DENSE_MARGIN, PASSES, VALUE_BYTES, Setting, parts
from tenfold.contract.steps import ADD_ABOVE, ContractionPlan, Step


class Apply(Setting):
    """An input of `batch` rows times the transposed weight."""

    verb = "apply"

    @property
    def start(self) -> tuple[str, ...]:
        return start(self.names(self.moves.start))

    def price(self, done: int, group: int) -> float:
        if not done:  # the layout of the input is known
            return min(seconds for seconds, _, _ in self.ways(self.start, done, group))
        move = self.moves.move(done, group)
        passing, shared, summed, new = parts(move, self.moves)
        rows = self.batch * passing
        arithmetic = 0.0
        if move.summed:  # the cheaper one of a product's two forms
            arithmetic = min(self.machine.product(shared, rows, summed, new), shared * self.machine.front(rows, summed, new))
        values = rows * shared * (summed + new) + self.moves.size(self.moves.open(group))
        seconds = self.machine.step(arithmetic, values, 1, VALUE_BYTES)
        if not self.is_cached:
            seconds += self._backward(bool(move.summed), values, shared, rows, summed, new)
        return seconds * (DENSE_MARGIN if self.is_whole(group) else 1) + self.build_seconds(group)

    def _backward(self, is_summed: bool, values: float, batch: int, m: int, k: int, n: int) -> float:
        """Seconds for the gradients of the weight and of the state, of `batch` products (m, k) @ (k, n)."""
        of_weight, of_state = (self.machine.product(batch, *sides) if is_summed else 0.0 for sides in ((n, m, k), (m, n, k)))
        # two operations each: autograd visits the views around a product as well
        return self.machine.step(of_weight, values, 2, VALUE_BYTES) + self.machine.step(of_state, values, 2, VALUE_BYTES)

    def work(self, done: int, group: int) -> float:
        return self.batch * prod(parts(self.moves.move(done, group), self.moves)) + self.build_work(group)

    def _roles(self, done: int, group: int) -> Roles:
        move = self.moves.move(done, group)
        return roles(move, {mask: self.names(mask) for mask in move}, self.output)

    def ways(self, order: tuple[str, ...], done: int, group: int) -> Iterator[tuple[float, tuple[str, ...], Arrangement]]:
        move = self.moves.move(done, group)
        values, build = self.batch * self.moves.size(move.passing | move.shared | move.summed), self.build_seconds(group)
        costs: dict[tuple[str, str, int], float] = {}  # many ways differ in the order of the new indices only
        for way in arrangements(order, self._roles(done, group)):
            inner = self.size(way.runs["q"]) if "q" in way.runs else self.size(way.runs["a"]) if "a" in way.runs else 1
            if (seconds := costs.get(key := (way.axes, way.out, inner))) is None:
                seconds = self._product_seconds(way, inner, group, *parts(move, self.moves))
                costs[key] = seconds = seconds * (DENSE_MARGIN if self.is_whole(group) else 1) + build
            yield seconds + self._copy(values, order, way.order) if way.is_copied else seconds, way.after, way

    def _copy(self, values: int, before: tuple[str, ...], after: tuple[str, ...]) -> float:
        return (1 if self.is_cached else 2) * self.machine.copy(values, self.size(kept_run(before, after)), VALUE_BYTES)

    def _product_seconds(self, way: Arrangement, inner: int, group: int, passing: int, shared: int, summed: int, new: int) -> float:
        """Seconds for the product of a way; `inner` values stand behind the summed ones (q), or are the outer part of a split sum (a)."""
        machine, is_front = self.machine, way.out[-1:] not in ("n", "")
        m, k, n, batch = self.batch * passing, summed, new, shared
        values = m * shared * (summed + new) + self.moves.size(self.moves.open(group))
        spread, n_ops = 0, 1
        if way.kind == "scale":
            arithmetic = 0.0
        elif "q" in way.axes:
            batch = m * shared // inner
            m, n = (new, inner) if way.out[-1] == "q" else (inner, new)
            arithmetic = machine.product(batch, m, k, n)
            spread = ((shared > 1) + 2 * (not self.is_cached)) * batch * new * summed  # the group, and its gradient, for each p
        else:
            batch, k = shared * inner, summed // inner
            arithmetic = batch * machine.front(m, k, n) if is_front else machine.product(batch, m, k, n)
            is_added = self.is_cached and way.axes == "apk" and m * summed >= ADD_ABOVE
            spread = m * batch * new if inner > 1 and not is_added else 0  # the parts of a split sum
            n_ops = inner if is_added else 1
        seconds = machine.step(arithmetic, values, n_ops, VALUE_BYTES)
        if spread:
            seconds += machine.step(0.0, 2 * spread, 1, VALUE_BYTES)
        if not self.is_cached:
            seconds += self._backward(way.kind != "scale", values, batch, m, k, n) + self._turned(way, passing * shared * summed)
            if "q" in way.axes:  # many small products with a transposed operand: about half the rate
                seconds += machine.product(batch, n, m, k)
        return seconds

    def _turned(self, way: Arrangement, size: int) -> float:
        """Seconds to copy the state's gradient back: torch gives that of a transposed operand of `bmm` transposed."""
        is_natural = way.out[-1:] == ("q" if "q" in way.axes else "n") and way.axes not in ("psk", "skp", "ksp")
        if way.kind in ("linear", "scale") or is_natural:
            return 0.0
        run = self.size(way.runs["k"]) if (way.axes, way.out) == ("psk", "spn") else 1
        return self.machine.copy(self.batch * size, run, VALUE_BYTES)

    def size(self, names: tuple[str, ...]) -> int:
        """The number of values of some indices; the batch has its size in the plan."""
        return prod(self.batch if name == BATCH else self.network.sizes[name] for name in names)

    def _shape(self, runs: list[tuple[str, ...]]) -> tuple[int, ...]:
        return tuple(-1 if BATCH in run else prod(self.network.sizes[name] for name in run) for run in runs)

    def closing(self, order: tuple[str, ...]) -> float:
        if order == (BATCH, *self.output):
            return 0.0
        return self._copy(self.size(order), order, (BATCH, *self.output))

    def step(self, order: tuple[str, ...], done: int, group: int, way: Arrangement) -> Step:
        passing, shared, summed, new = parts(self.moves.move(done, group), self.moves)
        if way.kind == "scale":
            shape = (*self._shape([(name,) for name in order]), *(1 for _ in way.runs["n"]))
            axes = tuple((name,) if name in self.names(self.moves.carried(group)) else () for name in order)
            axes = (*axes, *((name,) for name in way.runs["n"]))
        else:
            shape = self._shape([way.runs[letter] for letter in way.axes])
            letters = "nk" if way.kind in ("linear", "left") else [*(letter for letter in way.axes if letter in "sa"), "k", "n"]
            axes = tuple(way.runs[letter] for letter in letters)
        plan = self.group_plan(group, axes)
        before, size = self.size(order), self.size(way.after)
        return Step(
            kind=way.kind,
            group=plan,
            view=self._shape([(name,) for name in order]),
            perm=tuple(order.index(name) for name in way.order) if way.is_copied else None,
            shape=shape,
            axes=way.axes,
            out=way.out,
            n_shared=1,
            n_passing=1,
            flops=0 if way.kind == "scale" else 2 * passing * shared * summed * new,
            size=size // self.batch,
            moved_bytes=VALUE_BYTES * (before * (3 if way.is_copied else 1) + size + plan.numel),
            label=self.label(group, way.after),
        )

    def finish(self, steps: tuple[Step, ...], order: tuple[str, ...], seconds: float) -> ContractionPlan:
        wanted = (BATCH, *self.output)
        n_out = prod(self.network.sizes[mode] for mode in self.output)
        perm = None if order == wanted else tuple(order.index(name) for name in wanted)
        memory = self.memory(steps, prod(self.network.sizes[name] for name in self.start[1:]), perm is not None)
        if not self.is_cached and self.batch > memory.recompute_above:
            seconds *= (PASSES + 1) / PASSES  # forward once more; the choice is made without it
        return self.plan_of(steps, self._shape([(name,) for name in order]), perm, n_out, memory, seconds)
