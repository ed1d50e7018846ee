"""Trials of a search: what was tried with which result, as a table and in a folder from which a killed search goes on."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tenfold.files import write_text
from tenfold.finetune import FinetuneHistory
from tenfold.plan_data import Plan
from tenfold.state_file import check_settings

VERSION = 1
FILE = "search.json"
BEST = "best.safetensors"
WRITTEN = (FILE, BEST, "trial[0-9]*.ckpt", ".tenfold-*")  # the last: of writers that were killed


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One plan that was carried out.

    limit: the fraction that was asked for; params, flops: what the plan keeps (None: not known). one_shot and tuned are top-1 accuracies
    (ratios) on the validation data, before and after fine-tuning; tuned is None where the trial was not fine-tuned. drop: points lost to
    the dense model by the better known of them; agreement: the part of predictions that equal the dense model's.
    """

    limit: float
    params: float
    flops: float | None
    one_shot: float
    tuned: float | None
    drop: float
    agreement: float | None
    is_inside: bool
    seconds: float = field(compare=False)
    plan: str = field(repr=False, default="")


@dataclass(frozen=True)
class SearchResult:
    """What a search found: the plan and the model of the smallest trial whose validated loss stays inside, and all trials.

    Where none does, the model is a copy of the dense one and every layer of the plan is dense. dense: the dense model's accuracy on the
    n validation samples; history: of the fine-tuning of the model, None where there was none.
    """

    plan: Plan
    model: nn.Module = field(repr=False)
    trials: tuple[Trial, ...]
    best: Trial | None
    dense: float
    n: int
    history: FinetuneHistory | None = None

    def __str__(self) -> str:
        lines = ["  asked  params   FLOP  one shot  fine-tuned   drop  agreement  seconds"]
        for one in self.trials:
            mark = "*" if one is self.best else " "
            tuned, agreement = ("-" if value is None else f"{value:.2%}" for value in (one.tuned, one.agreement))
            flops = "-" if one.flops is None else f"{one.flops:.3f}"
            lines.append(
                f"{mark} {one.limit:5.2f}  {one.params:6.3f}  {flops:>5}  {one.one_shot:8.2%}  {tuned:>10}  {one.drop:5.2f}  "
                f"{agreement:>9}  {one.seconds:7.1f}"
            )
        return "\n".join([*lines, self.verdict])

    @property
    def verdict(self) -> str:
        """The result in one sentence, with how sure it is."""
        if self.best is None:
            return f"nothing that was tried stays inside the loss that is allowed; the model stays dense ({self.dense:.2%})"
        part = f" and {self.best.flops:.3f} of the FLOP" if self.best.flops is not None else ""
        return (
            f"best: {self.best.params:.3f} of the parameters{part} are kept, {self.best.drop:+.2f} points lost from {self.dense:.2%} "
            f"on {self.n:,} validation samples (standard error about {self.standard_error:.2f})"
        )

    @property
    def standard_error(self) -> float:
        """Of the best trial's drop, in points: the two models differ only on samples where their predictions do."""
        changed = 1 - (self.best.agreement if self.best and self.best.agreement is not None else 1.0)
        return 100 * math.sqrt(changed / max(1, self.n))


class TrialFile:
    """The folder of one search, or nothing where `folder` is None; every file is written to a temporary name and renamed.

    Args:
        settings: what has to be the same for a search to go on, as texts.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, str], name: str = FILE) -> None:
        self.path = None if folder is None else folder / name
        self.settings = dict(settings)

    @property
    def folder(self) -> Path | None:
        """The folder."""
        return None if self.path is None else self.path.parent

    def load(self) -> dict[str, Any]:
        """What was saved; empty where there is nothing.

        Raises:
            ValueError: the file is damaged, or is that of other settings.
        """
        if self.path is None or not self.path.exists():
            return {}
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
            is_right = state["version"] == VERSION and isinstance(state["settings"], dict)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} cannot be read ({error}); a whole file of a search is needed: delete it, or give another folder"
            ) from error
        if not is_right:
            raise ValueError(f"{self.path} is of version {state['version']!r}; {VERSION} is needed: delete it, or give another folder")
        check_settings(f"{self.path} is of a search", state["settings"], self.settings)
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes the state. Raises OSError where the folder cannot be written."""
        if self.path is not None:
            write_text(self.path, json.dumps({"version": VERSION, "settings": self.settings, **state}, indent=1))


def remove_search(folder: Path) -> None:
    """Removes what a search wrote to its folder, and the folder where nothing else is in it."""
    with contextlib.suppress(OSError):
        for file in [file for pattern in WRITTEN for file in folder.glob(pattern)]:
            file.unlink()
        folder.rmdir()


def trial_of(data: Mapping[str, Any]) -> Trial:
    """A trial from JSON values."""
    return Trial(**data)


def history_of(data: Mapping[str, Any] | None) -> FinetuneHistory | None:
    """A history from JSON values."""
    return None if data is None else FinetuneHistory(**{name: tuple(values) for name, values in data.items()})


def as_json(value: Any) -> Any:
    """A dataclass as JSON values, None as it is."""
    return None if value is None else dataclasses.asdict(value)
