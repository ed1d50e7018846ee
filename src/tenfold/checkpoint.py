"""Checkpoint: a file from which a run goes on as if it had never stopped. It is written whole or not at all, and holds no code."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.state_file import check_settings, read_state, write_state
from tenfold.wrappers import clean_name

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
        state = {"start": self.start, "model": tensors_of(self.model), **state}
        write_state(self.path, VERSION, self.settings, state)

    def load(self) -> dict[str, Any] | None:
        """What was saved, with the model's values put back; None where there is no file.

        Raises:
            ValueError: the file is damaged, or is that of another model, another start or other settings.
        """
        state = self._read()
        if state is None:
            return None
        self._check_model(state["model"])
        check_settings(f"the checkpoint {self.path} is of a run", state["settings"], self.settings)
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
        return None if self.path is None else read_state(self.path, VERSION)

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
