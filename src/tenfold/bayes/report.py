"""What training with automatic ranks found: decisions, and every rank's spectrum over time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHOWN = 4  # spectra that are printed for a rank


@dataclass(frozen=True)
class LayerDecision:
    """What became of one weight. error: relative change of the dense weight."""

    name: str
    before: Mapping[str, int]
    after: Mapping[str, int]
    numel_before: int
    numel_after: int
    error: float
    is_removed: bool


@dataclass(frozen=True)
class Decision:
    """The ranks that a rule chose, layer by layer; `print` it."""

    rule: str
    steps: int
    layers: Sequence[LayerDecision]

    @property
    def removed(self) -> tuple[str, ...]:
        """The layers of which nothing is left."""
        return tuple(one.name for one in self.layers if one.is_removed)

    @property
    def ranks(self) -> dict[str, dict[str, int]]:
        """The new ranks by layer; 0 for all ranks of a layer that was removed."""
        return {one.name: dict.fromkeys(one.after, 0) if one.is_removed else dict(one.after) for one in self.layers}

    def __str__(self) -> str:
        lines = [f"{self.rule} after {self.steps} steps"]
        for one in self.layers:
            change = "REMOVED: its weight is zero" if one.is_removed else f"ranks {_sizes(one.before)} -> {_sizes(one.after)}"
            lines.append(f"  {one.name}: {change}, {one.numel_before:,} -> {one.numel_after:,} values, weight changed by {one.error:.2%}")
        return "\n".join(lines)


@dataclass(frozen=True)
class LayerReport:
    """One weight over time.

    size: root mean square of the dense weight relative to the start; to its first size that is not zero where it starts at zero, NaN
        until then.
    spectra: for every rank, (step, values of its slices, falling) as often as they were recorded.
    """

    name: str
    statement: str
    start_ranks: Mapping[str, int]
    ranks: Mapping[str, int]
    start_numel: int
    numel: int
    size: float
    is_removed: bool
    spectra: Mapping[str, Sequence[tuple[int, tuple[float, ...]]]]


@dataclass(frozen=True)
class RankReport:
    """All weights over time; `print` it."""

    method: str
    quantity: str
    steps: int
    layers: Sequence[LayerReport]

    def __str__(self) -> str:
        lines = [f"{self.method}, {self.steps} steps; spectra: log10 of {self.quantity}"]
        for one in self.layers:
            state = "REMOVED" if one.is_removed else f"{one.start_numel / max(1, one.numel):.1f}x"
            lines.append(f"{one.name}  {one.statement}")
            size = "-" if math.isnan(one.size) else f"{one.size:.2g}"
            lines.append(f"  {one.start_numel:,} -> {one.numel:,} values ({state}), weight at {size} of its start")
            for rank, history in one.spectra.items():
                lines.append(f"  {rank}: {one.start_ranks[rank]} -> {0 if one.is_removed else one.ranks[rank]}")
                lines += [f"    step {step:>7}  {_values(values)}" for step, values in _spaced(history)]
        return "\n".join(lines)


def _sizes(ranks: Mapping[str, int]) -> str:
    return "[" + ", ".join(map(str, ranks.values())) + "]"


def _values(values: Sequence[float]) -> str:
    shown = [f"{math.log10(value):.1f}" if value > 0 else "-inf" for value in values]
    return " ".join(shown if len(shown) <= 16 else [*shown[:12], "..", *shown[-3:]])


def _spaced(history: Sequence[tuple[int, tuple[float, ...]]]) -> list[tuple[int, tuple[float, ...]]]:
    if len(history) <= SHOWN:
        return list(history)
    return [history[round(n * (len(history) - 1) / (SHOWN - 1))] for n in range(SHOWN)]
