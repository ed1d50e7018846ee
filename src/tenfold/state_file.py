"""The file of a run's state: written whole or not at all, without code, and taken up only under the settings that it was written with."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tenfold.files import replacing


def write_state(path: Path, version: str, settings: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Writes a state of tensors and plain values; makes the folder.

    Raises:
        OSError: the folder cannot be written; an old file is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("xb") as file:
            torch.save({"version": version, "settings": dict(settings), **state}, file)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"the checkpoint {path} cannot be written ({error.__cause__ or error}); it needs a writable folder with about "
            f"{_n_bytes(state) / 1e6:.0f} MB: choose another path"
        ) from error


def read_state(path: Path, version: str) -> dict[str, Any] | None:
    """The state of a file; None where there is none.

    Raises:
        ValueError: the file is damaged, or of another version.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"the checkpoint {path} cannot be read ({reason}); a whole file is needed: delete it, or give another path"
        ) from error
    if not isinstance(state, dict) or state.get("version") != version:
        raise ValueError(f"{path} is not a {version}; a file that such a run has written is needed: give another path")
    return state


def check_settings(whose: str, saved: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Raises ValueError where a run has other settings than its file; `whose` names the file and what wrote it."""
    for name in {**settings, **saved}:
        then, now = saved.get(name), settings.get(name)
        if then != now:
            raise ValueError(
                f"{whose} with {name} = {then}, but this one has {now}; to go on all settings must be the same: use those, or delete it "
                "or give another path to start anew"
            )


def _n_bytes(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    values = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(_n_bytes, values))
