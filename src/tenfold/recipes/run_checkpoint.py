"""The checkpoint of a run in which ranks may be found: one file, written whole or not at all, which holds no code.

A run loads it once before its steps, saves it every so often with all that its next steps depend on, and removes it at the end.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from tenfold.bayes.report import Decision, LayerDecision
from tenfold.state_file import check_settings, read_state, write_state

VERSION = "tenfold run checkpoint 1"


def run_settings(model: nn.Module, training: Any, **more: Any) -> dict[str, str]:
    """What has to be the same for a run to go on, as texts: a dataclass of settings, what else is given, the size of the fresh model."""
    values = sum(one.numel() for one in model.parameters())
    return {name: repr(value) for name, value in {**asdict(training), **more, "values": values}.items()}


def save_state(path: Path, settings: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Writes a state of tensors and plain values; makes the folder.

    Raises:
        OSError: the folder cannot be written; an old file is as it was.
    """
    write_state(path, VERSION, settings, state)


def load_state(path: Path, settings: Mapping[str, str]) -> dict[str, Any] | None:
    """The state of a file; None where there is none.

    Raises:
        ValueError: the file is damaged, or of a run with other settings.
    """
    state = read_state(path, VERSION)
    if state is not None:
        check_settings(f"the checkpoint {path} is of a run", state["settings"], settings)
    return state


def plain_decision(decision: Decision | None) -> dict[str, Any] | None:
    """A decision as plain values, for a state."""
    return None if decision is None else asdict(decision)


def saved_decision(values: Mapping[str, Any] | None) -> Decision | None:
    """The decision of `plain_decision`."""
    if values is None:
        return None
    return Decision(values["rule"], values["steps"], [LayerDecision(**one) for one in values["layers"]])
