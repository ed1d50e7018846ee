"""Checkpoint: a file from which a run goes on as if it had never stopped. It is written whole or not at all, and holds no code."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.compiled import clean_name
from tenfold.files import replacing

VERSION = "tenfold checkpoint 1"
SAME_START = 1e-3  # relative difference of norms below which two models count as the same start: solvers may differ in last digits


class Checkpoint:
    """The file of one run: `load` it once, `save` it as often as wanted.

    Args:
        path: of the file, or None: nothing is saved, nothing is found.
        settings: what has to be the same for a run to go on, as texts.
        model: the model as it is before the run.
    """

    def __init__(self, path: str | os.PathLike[str] | None, settings: Mapping[str, str], model: nn.Module) -> None:
        self.path = None if path is None else Path(path)
        self.settings = dict(settings)
        self.model = model
        self.start = _norms(model)

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes the model, its buffers and `state`, whole or not at all: runs on one path do not write into each other's file.

        Raises:
            OSError: the folder cannot be written; the file is as it was.
        """
        if self.path is None:
            return
        whole = {"version": VERSION, "settings": self.settings, "start": self.start, "model": tensors_of(self.model), **state}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as part, part.open("xb") as file:
                torch.save(whole, file)
        except (OSError, RuntimeError) as error:
            size_mb = sum(t.numel() * t.element_size() for t in whole["model"].values()) / 1e6
            raise OSError(
                f"the checkpoint {self.path} cannot be written ({error.__cause__ or error}); it needs a writable folder with about "
                f"{3 * size_mb:.0f} MB: choose another path"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """What was saved, with the model's values put back; None where there is no file.

        Raises:
            ValueError: the file is damaged, or is that of another model, another start or other settings.
        """
        state = self._read()
        if state is None:
            return None
        self._check_model(state["model"])
        for name in {**self.settings, **state["settings"]}:
            then, now = state["settings"].get(name), self.settings.get(name)
            if then != now:
                raise ValueError(
                    f"the checkpoint {self.path} is of a run with {name} = {then}, but this one has {now}; to go on all settings must "
                    "be the same: use those of the checkpoint, or delete it or give another path to start anew"
                )
        reached = {name: _norm(value) for name, value in state["model"].items() if name in self.start}
        if not (_is_same(self.start, state["start"]) or _is_same(self.start, reached)):
            raise ValueError(
                f"the checkpoint {self.path} is of a run that started from other values of this {type(self.model).__name__}; to go on the "
                "start must be the same: give the same model, or delete the checkpoint or give another path to start anew"
            )
        self.put_back(state)
        return state

    def restore(self) -> None:
        """Gives the model the values of the file, if there is one: what an interrupted run leaves is a state to go on from."""
        if (state := self._read()) is not None:
            self.put_back(state)

    def put_back(self, state: Mapping[str, Any]) -> None:
        """Copies saved values into the model."""
        with torch.no_grad():
            for name, value in tensors_of(self.model).items():
                value.copy_(state["model"][name])

    def _read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"the checkpoint {self.path} cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
                "a whole file is needed: delete it, or give another path"
            ) from error
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ValueError(f"{self.path} is not a {VERSION}; one written by finetune is needed: give another path")
        return state

    def _check_model(self, saved: Mapping[str, Tensor]) -> None:
        mine = tensors_of(self.model)
        for name in sorted({*mine, *saved}):
            there, here = (f"{tuple(t[name].shape)}" if name in t else "none" for t in (saved, mine))
            if there != here:
                raise ValueError(
                    f"the checkpoint {self.path} is of another model: it has {name} of shape {there}, this {type(self.model).__name__} has "
                    f"{here}; give the same model, or delete the checkpoint or give another path to start anew"
                )


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, also buffers that a state_dict leaves out; torch.compile's names are cleaned."""
    named = {clean_name(name): p.detach() for name, p in model.named_parameters()}
    return {**named, **{clean_name(name): buffer for name, buffer in model.named_buffers()}}


def _norms(model: nn.Module) -> dict[str, float]:
    return {clean_name(name): _norm(p) for name, p in model.named_parameters()}


def _norm(value: Tensor) -> float:
    return float(torch.linalg.vector_norm(value.detach().double()))


def _is_same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(norm - other[name]) <= SAME_START * max(norm, other[name]) for name, norm in one.items())
