"""Plan: what will become of every layer of a model, as data."""

import os
from dataclasses import dataclass, field

from tenfold.budget import Budget
from tenfold.format import Format
from tenfold.formats import format_text


@dataclass(frozen=True)
class LayerPlan:
    """One layer with a weight: the format with explicit ranks that it gets, or None and the reason why it stays dense.

    params are values of the weight; flops are for one sample, in eval, None where no example input was given. error is the predicted
    relative error of the layer's outputs or of its weight, as the plan's `metric` says, unless the layer's own says "weight": calibration
    does not measure the outputs of lookups, of layers whose inputs never vary or with padded modes. Speed-ups are time of dense / time
    of factorised, for the batch of the example: predicted by the machine model that chooses contractions, and measured where the plan
    was asked to.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    format: Format | None
    in_modes: tuple[int, ...] | None
    out_modes: tuple[int, ...] | None
    reason: str
    params_before: int
    params_after: int
    flops_before: int | None
    flops_after: int | None
    error: float | None
    predicted_speedup: float | None = None
    measured_speedup: float | None = None
    metric: str = ""


@dataclass(frozen=True)
class Plan:
    """A row for every layer and the totals of the whole model. `print(plan)` is a table; `save` writes a text that a person can edit.

    metric: "output" where errors were measured on the layers' outputs for calibration inputs, "weight" where on the weights.
    notes: what else a person should know of this model; not part of the saved text.
    """

    layers: tuple[LayerPlan, ...]
    model: str
    budget: Budget | None
    params_before: int
    params_after: int
    flops_before: int | None
    flops_after: int | None
    metric: str
    seed: int
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        rows = [("layer", "type", "shape", "becomes", "parameters", "FLOP/sample", "error", "speed-up")]
        for one in self.layers:
            becomes = format_text(one.format, one.in_modes, one.out_modes) if one.format else f"dense ({one.reason})"
            shape = "x".join(map(str, one.shape))
            change = f"{one.params_before:,} -> {one.params_after:,}" if one.format else f"{one.params_before:,}"
            rows.append((one.name or "(the model)", one.kind, shape, becomes, change, _flops(one), error_text(one, 4), speedup_text(one)))
        widths = [max(len(row[column]) for row in rows) for column in range(8)]
        widths[3] = min(widths[3], 60)
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        kept = self.params_after / max(1, self.params_before)
        total = f"whole model: {self.params_before:,} -> {self.params_after:,} parameters ({kept:.3f} kept)"
        if self.flops_before and self.flops_after is not None:
            total += f", {self.flops_before:,} -> {self.flops_after:,} FLOP a sample ({self.flops_after / self.flops_before:.3f} kept)"
        return "\n".join([*lines, total + f"; errors of the {self.metric}s", *self.notes])

    def to_text(self) -> str:
        """The plan as TOML, one line for each layer."""
        from tenfold.plan_file import to_text

        return to_text(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the text; a temporary file is renamed, so that nothing half-written is left."""
        from tenfold.files import write_text

        write_text(path, self.to_text())

    @classmethod
    def parse(cls, text: str, source: str = "plan") -> "Plan":
        """The plan of a text. Raises ValueError naming the line that is wrong."""
        from tenfold.plan_file import parse

        return parse(text, source)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Plan":
        """The plan of a file. Raises ValueError naming the line that is wrong, or OSError where the file is not there or not readable."""
        from tenfold.files import read_text

        return cls.parse(read_text(path), str(path))


def _flops(layer: LayerPlan) -> str:
    if layer.flops_before is None:
        return ""
    return f"{layer.flops_before:,} -> {layer.flops_after:,}" if layer.format else f"{layer.flops_before:,}"


def use_text(layer: LayerPlan) -> str:
    """What a layer becomes, as a plan's text says it."""
    return format_text(layer.format, layer.in_modes, layer.out_modes) if layer.format else "dense"


def error_text(layer: LayerPlan, digits: int) -> str:
    """The predicted error; of what, where that is not what the plan's metric says."""
    if layer.error is None:
        return ""
    return f"{layer.error:.{digits}f}" + (f" (of the {layer.metric})" if layer.metric else "")


def speedup_text(layer: LayerPlan) -> str:
    """The predicted speed-up, and behind it the measured one where there is one."""
    if layer.predicted_speedup is None and layer.measured_speedup is None:
        return ""
    predicted, measured = ("-" if value is None else f"{value:.2f}" for value in (layer.predicted_speedup, layer.measured_speedup))
    return predicted if measured == "-" else f"{predicted}, measured {measured}"
