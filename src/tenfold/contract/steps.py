"""A contraction plan as data: integers and strings only, hashable, without tensors.

Sizes that are only known at run time (the batch) are written as -1, at most one for each shape.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Pair:
    """A product of two operands as one matrix product: (shared, left, summed) @ (shared, summed, right).

    Operands are numbered: the inputs first, then every result in the order of the pairs.
    """

    left: int
    right: int
    left_perm: tuple[int, ...]
    right_perm: tuple[int, ...]
    left_shape: tuple[int, ...]
    right_shape: tuple[int, ...]
    is_summed: bool
    full_shape: tuple[int, ...]
    flops: int
    size: int


@dataclass(frozen=True)
class PairPlan:
    """Some factors contracted with each other in pairs; the result is permuted and reshaped as its user needs it."""

    factors: tuple[int, ...]
    pairs: tuple[Pair, ...]
    perm: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def flops(self) -> int:
        """FLOP in matrix products."""
        return sum(pair.flops for pair in self.pairs)

    @property
    def numel(self) -> int:
        """The number of values of the result."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Gather:
    """How a factor's slices are picked by ids: the digits it carries, as one leading axis of its permuted view."""

    digits: tuple[int, ...]
    sizes: tuple[int, ...]
    perm: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class RowsPlan:
    """A lookup: every factor gathered, then pairs with the batch as a shared index.

    flops and size_bytes for each row; weight_flops once for each call, where factors without input modes meet each other.
    """

    statement: str
    gathers: tuple[Gather, ...]
    pairs: tuple[Pair, ...]
    perm: tuple[int, ...]
    n_out: int
    flops: int
    weight_flops: int
    size_bytes: int

    @cached_property
    def n_products(self) -> int:
        """Products of two operands that both differ from id to id: a small one for each id."""
        return sum(pair.is_summed and pair.left_shape[0] == pair.right_shape[0] == -1 for pair in self.pairs)

    def __str__(self) -> str:
        return (
            f"rows: {self.statement}\n{self.flops:,} FLOP a row, {self.weight_flops:,} FLOP on weights, "
            f"{self.size_bytes:,} bytes moved a row, {len(self.pairs)} products"
        )


ADD_ABOVE = 1 << 17  # values of a state from which on the parts of a split sum are added one by one, not all at once
StepKind = Literal["linear", "left", "batched", "split", "scale", "convolve"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """The input, or what has become of it (the state), times one group.

    linear      one matrix product: the summed indices are the first or the last of the state
    left        they stand inside the state: one matrix product for each value of the indices before them
    batched     some indices stay on both sides: one matrix product for each value of those
    split       the summed indices stand in two places: a matrix product for each value of the first ones, and their sum
    scale       nothing is summed: a broadcast product
    convolve    the group carries the kernel modes: a convolution over all positions

    `axes` names the axes of `shape`, and `out` those of the result: p, q pass, k is summed, n is new, s is shared, a is the outer
    part of a split sum. The batch is an index like others, and may stand anywhere; the group comes as (s, a, k, n), or as (n, k)
    where it has neither s nor a.
    """

    kind: StepKind
    group: PairPlan
    view: tuple[int, ...]  # sizes of the state's indices as they come
    perm: tuple[int, ...] | None  # the order they are needed in, None where they stand so already
    shape: tuple[int, ...]  # of the state just before the product
    axes: str
    out: str
    n_shared: int  # groups of a convolution
    n_passing: int  # product of the indices that a convolution folds into the batch
    flops: int  # for each sample, in matrix products and convolutions
    size: int  # values in the state after the step, for each sample
    moved_bytes: int  # read and written, for the batch of the plan
    label: str


@dataclass(frozen=True, kw_only=True)
class ContractionPlan:
    """What will be done, in order, with its cost; `print(plan)` shows it as a table.

    flops and weight_flops count matrix products and convolutions (1 multiply-add = 2 FLOP): for each sample, and once for each
    call to contract factors with each other (not repeated in eval, where the result is cached). peak_bytes is what is alive at
    once beside the input and the factors: states and their copies, weights of steps, and in training the gradients of both.
    """

    statement: str
    verb: str
    batch: int  # the plan was made for
    is_cached: bool
    steps: tuple[Step, ...]
    out_view: tuple[int, ...]
    out_perm: tuple[int, ...] | None
    n_out: int
    tile: int  # rows that are mapped at once where a batch has more than `tile_above`
    tile_above: int
    recompute_above: int  # rows, from which on the states are not saved for backward
    flops: int
    weight_flops: int
    nanoseconds: int
    size_bytes: int
    peak_bytes: int
    is_dense: bool

    def __hash__(self) -> int:
        return hash((self.statement, self.batch, self.is_cached, self.nanoseconds))  # a key of every call: the steps would take longer

    @cached_property
    def is_plain(self) -> bool:
        """Whether no step of a convolution but the spatial one sees channels in groups or in another order."""
        is_ordered = all(step.perm is None and step.n_passing == 1 for step in self.steps) and self.out_perm is None
        return is_ordered and all(step.n_shared == 1 for step in self.steps if step.kind == "linear")

    @cached_property
    def is_depthwise(self) -> bool:
        """Whether the spatial step of a convolution has one channel in each group."""
        return any(step.kind == "convolve" and step.n_shared > 1 and step.n_shared == step.group.shape[0] for step in self.steps)

    @cached_property
    def narrowest(self) -> int:
        """The fewest channels that a pointwise step of a convolution reads or writes; 0 where there is none."""
        return min((min(step.group.shape[:2]) for step in self.steps if step.kind == "linear"), default=0)

    @cached_property
    def largest(self) -> int:
        """The most values of a state, for each sample."""
        return max((step.size for step in self.steps), default=0)

    @property
    def seconds(self) -> float:
        """Predicted time for a batch. Kept as a whole number, since Dynamo of torch 2.6 cannot take a plan with a float for a constant."""
        return self.nanoseconds * 1e-9

    def __str__(self) -> str:
        width = max([44, *(len(step.label) for step in self.steps)])
        lines = [
            f"{self.verb}: {self.statement}",
            f"{'step':<{width}} {'kind':<10} {'FLOP/sample':>12} {'state':>10} {'bytes':>14}",
            *(f"{step.label:<{width}} {step.kind:<10} {step.flops:>12,} {step.size:>10,} {step.moved_bytes:>14,}" for step in self.steps),
            (
                f"{self.flops:,} FLOP a sample, {self.weight_flops:,} FLOP on weights, {self.size_bytes:,} bytes moved, "
                f"{self.peak_bytes:,} bytes at the peak, predicted {self.seconds * 1e6:.1f} us "
                f"for a batch of {self.batch} in {'eval' if self.is_cached else 'training, with gradients'}"
            ),
        ]
        if self.is_dense:
            lines.append("the dense weight is rebuilt and used: no factorised order is predicted to be faster")
        return "\n".join(lines)
