"""A contraction plan as data: integers and strings only, hashable, without tensors.

Sizes that are only known at run time (the batch) are written as -1, at most one for each shape.
"""

import math
from dataclasses import dataclass
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

    def __str__(self) -> str:
        return (
            f"rows: {self.statement}\n{self.flops:,} FLOP a row, {self.weight_flops:,} FLOP on weights, "
            f"{self.size_bytes:,} bytes moved a row, {len(self.pairs)} products"
        )


StepKind = Literal["linear", "left", "scale", "scale_sum", "batched", "convolve"]


@dataclass(frozen=True)
class Step:
    """The input, or what has become of it (the state), times one group.

    linear      the summed indices are the last of the state: state @ group
    left        they stand together inside the state: group @ state
    scale       nothing is summed: broadcast product
    scale_sum   the group brings no new index: product, then a sum
    batched     some indices stay on both sides: a batch of matrix products
    convolve    the group carries the kernel modes: a convolution over all positions
    """

    kind: StepKind
    group: PairPlan
    view: tuple[int, ...]  # sizes of the state's indices as they come
    perm: tuple[int, ...] | None  # the order they are needed in, None where they stand so already
    shape: tuple[int, ...]  # of the state (without the batch) just before the product
    out_shape: tuple[int, ...]  # sizes of the state's indices after the step
    n_shared: int  # groups of a convolution
    n_passing: int  # product of the indices that a convolution folds into the batch
    flops: int  # for each sample, in matrix products and convolutions
    size: int  # values in the state after the step, for each sample
    label: str


@dataclass(frozen=True)
class ContractionPlan:
    """What will be done, in order, with its cost; `print(plan)` shows it as a table.

    flops and weight_flops count matrix products and convolutions (1 multiply-add = 2 FLOP): for each sample, and once for each
    call to contract factors with each other (not repeated in eval, where the result is cached).
    """

    statement: str
    verb: str
    steps: tuple[Step, ...]
    out_view: tuple[int, ...]
    out_perm: tuple[int, ...] | None
    n_out: int
    flops: int
    weight_flops: int
    nanoseconds: int
    size_bytes: int
    peak_bytes: int
    is_dense: bool

    @property
    def seconds(self) -> float:
        """Predicted time for a batch. Kept as a whole number, since Dynamo of torch 2.6 cannot take a plan with a float for a constant."""
        return self.nanoseconds * 1e-9

    def __str__(self) -> str:
        lines = [
            f"{self.verb}: {self.statement}",
            f"{'step':<44} {'kind':<10} {'FLOP/sample':>12} {'state':>10}",
            *(f"{step.label:<44} {step.kind:<10} {step.flops:>12,} {step.size:>10,}" for step in self.steps),
            (
                f"{self.flops:,} FLOP a sample, {self.weight_flops:,} FLOP on weights, {self.size_bytes:,} bytes moved, "
                f"{self.peak_bytes:,} bytes at the peak, predicted {self.seconds * 1e6:.1f} us"
            ),
        ]
        if self.is_dense:
            lines.append("the dense weight is rebuilt and used: no factorised order is predicted to be faster")
        return "\n".join(lines)
