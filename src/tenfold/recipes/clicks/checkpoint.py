"""The checkpoint of a training run on clicks: one file, written whole or not at all, which holds no code."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tenfold.files import replacing

VERSION = "tenfold click checkpoint 1"


def save_state(path: Path, settings: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Writes a state of tensors and plain values.

    Raises:
        OSError: the folder cannot be written; an old file is as it was.
    """
    with replacing(path) as part:
        torch.save({"version": VERSION, "settings": dict(settings), **state}, part)


def load_state(path: Path, settings: Mapping[str, str]) -> dict[str, Any] | None:
    """The state of a file; None where there is none.

    Raises:
        ValueError: the file is damaged, or of a run with other settings.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the checkpoint {path} cannot be read ({reason}); a whole file is needed: delete it to start anew") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ValueError(f"{path} is not a {VERSION}; a file that such a run has written is needed: give another path")
    for name in {**settings, **state["settings"]}:
        then, now = state["settings"].get(name), settings.get(name)
        if then != now:
            raise ValueError(
                f"the checkpoint {path} is of a run with {name} = {then}, but this one has {now}; to go on all settings must be the same: "
                "use those of the checkpoint, or delete it to start anew"
            )
    return state
