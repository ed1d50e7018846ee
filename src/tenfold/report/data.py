"""Report: the numbers of a run as data, as a table of text and as JSON."""

import dataclasses
import math
from dataclasses import dataclass

from tenfold.evaluate import Evaluation
from tenfold.finetune import FinetuneHistory
from tenfold.flops import fused_note
from tenfold.json_text import json_text
from tenfold.report import wording
from tenfold.report.layers import LayerRow, Spectrum
from tenfold.sizes import Size
from tenfold.timing import Race

VERSION = 1
POINTS = 120  # of the curve of training losses


@dataclass(frozen=True)
class Curve:
    """Fine-tuning: training losses as means over neighbouring steps, the place of each in epochs, and validation after each epoch."""

    n_epochs: int
    n_steps: int
    epochs: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float | None, ...]
    validation_losses: tuple[float, ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, history: FinetuneHistory) -> "Curve":
        """The curve of a run, of at most POINTS points."""
        n_steps, n_epochs = len(history.losses), len(history.seconds)
        width = max(1, math.ceil(n_steps / POINTS))
        bins = [history.losses[k : k + width] for k in range(0, n_steps, width)]
        ends = [min(n_steps, k + width) / max(1, n_steps) * n_epochs for k in range(0, n_steps, width)]
        means = tuple(math.fsum(values) / len(values) for values in bins)
        return cls(n_epochs, n_steps, tuple(ends), means, history.accuracies, history.validation_losses, history.seconds)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What compression did to a model. None where a number was not measured; `notes` say so in words.

    flops_* are for one sample, counted at batch `flops_batch`; flops_planned is what the plan says of both models.
    races: one for each batch size. other_*: parameters outside of the layers' weights, such as biases and normalisation. dense, small,
    uncorrected: evaluations of the dense model, of the compressed one, and of the compressed one before fine-tuning. metric: of the
    plan's errors, "weight" or "output". fused: compressed layers whose factors torch's fused encoder kernel does not run.
    """

    model: str
    size_before: Size
    size_after: Size
    flops_before: int | None
    flops_after: int | None
    flops_batch: int | None
    flops_planned: tuple[int, int] | None
    races: tuple[Race, ...]
    dense: Evaluation | None
    small: Evaluation | None
    uncorrected: Evaluation | None
    layers: tuple[LayerRow, ...]
    other_before: int
    other_after: int
    spectra: tuple[Spectrum, ...]
    plan: str | None
    metric: str | None
    history: Curve | None
    environment: dict[str, str]
    seed: int
    command: str | None
    fused: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """One line: how small, what it costs."""
        return f"{self.model}: {wording.fewer('parameters', self.size_before.parameters, self.size_after.parameters)}"

    @property
    def flops(self) -> tuple[int, int] | None:
        """FLOP of both models."""
        return None if self.flops_before is None or self.flops_after is None else (self.flops_before, self.flops_after)

    @property
    def summary(self) -> str:
        """The run in one sentence."""
        difference = None
        if self.dense is not None and self.small is not None and self.dense.accuracy is not None and self.small.accuracy is not None:
            difference = self.small.accuracy - self.dense.accuracy
        return wording.summary(self.size_before, self.size_after, self.flops, self.races, difference)

    @property
    def facts(self) -> list[str]:
        """The numbers behind the summary."""
        lines = [wording.size_sentence(self.size_before, self.size_after)]
        lines += wording.quality_sentences(self.dense, self.small)
        return lines + (wording.speed_sentences(self.races) if self.races else ["Time was not measured."])

    @property
    def notes(self) -> list[str]:
        """What else a person should know."""
        lines = wording.speed_notes(self.races) + wording.layer_notes(self.layers)
        if self.uncorrected is not None and self.uncorrected.accuracy is not None:
            lines.append(f"Before fine-tuning its accuracy was {self.uncorrected.accuracy:.2%}.")
        return lines + wording.plan_note(self.flops_planned, self.flops) + ([fused_note(self.fused)] if self.fused else [])

    @property
    def error_note(self) -> str:
        """What the column of errors means."""
        note = "Error is ||W - dense|| / ||W||, how far the weight now is from the dense model's."
        if self.history is not None:
            note += (
                " It was measured after fine-tuning, which moves weights away from the dense ones to win accuracy back: "
                "a large error is no defect here, and layers left dense have moved too."
            )
        if self.metric is not None:
            what = "layers' outputs on the calibration data" if self.metric == "output" else "weights"
            note += f" The planned error was predicted before compression, on the {what}."
        if self.metric == "output":
            note += " Outputs were preserved, not weights: directions that the inputs do not use were free to change."
        return note

    def to_json(self) -> str:
        """The report as JSON; numbers that are not finite are null."""
        data = {
            "version": VERSION,
            "title": self.title,
            "summary": self.summary,
            "facts": self.facts,
            "notes": self.notes,
            **dataclasses.asdict(self),
        }
        return json_text(data, indent=1)

    def __str__(self) -> str:
        head = [f"{self.model}. {self.summary}", *(f"  {line}" for line in (*self.facts, *self.notes)), ""]
        rows = [("layer", "type", "shape", "becomes", "parameters", "FLOP/sample", "error", "speed")]
        rows += [_cells(row) for row in self.layers]
        other = f"{self.other_before:,} -> {self.other_after:,}" if self.other_before != self.other_after else f"{self.other_before:,}"
        rows.append(("everything else", "", "", "", other, "", "", ""))
        widths = [min(48, max(len(row[k]) for row in rows)) for k in range(len(rows[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*head, *table, "", self.error_note])


def _cells(row: LayerRow) -> tuple[str, ...]:
    parameters = f"{row.params_before:,} -> {row.params_after:,}" if row.format else f"{row.params_before:,}"
    flops = ""
    if row.flops_before is not None and row.flops_after is not None:
        flops = f"{row.flops_before:,} -> {row.flops_after:,}" if row.format else f"{row.flops_before:,}"
    speed = ", ".join(f"{wording.ratio_text(race.speedup)} at {race.batch}" for race in row.races)
    becomes = row.format or f"dense ({row.reason})"
    error = "" if row.error is None else f"{row.error:.4f}"
    return row.name, row.kind, "x".join(map(str, row.shape)), becomes, parameters, flops, error, speed
