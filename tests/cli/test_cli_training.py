"""The options of fine-tuning: each that --help names reaches `tenfold.finetune`."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import tenfold
from tenfold.cli.app import run
from tenfold.cli.arguments import Training
from tenfold.sources import read_model

HANDLED = {"distill"}  # as the teacher
CHANGED = {
    "precision": "bfloat16",
    "teacher_weight": 0.5,
    "feature_weight": 0.25,
    "sensitivity_weight": 0.01,
    "bound_lr": True,
    "rebuild": True,
    "channels_last": True,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every call of `tenfold.finetune`, which trains in float32, as bfloat16 is slow or warned of on some machines."""
    found: list[dict[str, Any]] = []

    def finetune(model: torch.nn.Module, data: Any, **options: Any) -> Any:
        found.append(options)
        return tenfold.finetune(model, data, **{**options, "precision": "float32"})

    monkeypatch.setattr("tenfold.cli.arguments.finetune", finetune)
    monkeypatch.setattr("tenfold.ranks.search.train", finetune)
    return found


def words() -> list[str]:
    options = [(f"--{name.replace('_', '-')}", value) for name, value in CHANGED.items()]
    return [word for name, value in options for word in ((name,) if value is True else (name, str(value)))]


def test_every_option_is_an_argument_of_finetune() -> None:
    names = {one.name for one in dataclasses.fields(Training)} - HANDLED
    teacher = torch.nn.Linear(2, 2)
    options = Training().options(teacher, 3)
    assert set(options) == names - {"teacher_weight"} | {"teacher", "seed"}
    assert options["teacher"] is teacher and Training(distill=False).options(teacher, 3)["teacher"] is None
    changed = Training(**CHANGED).options(None, 0)
    assert {name: changed[name] for name in CHANGED} == CHANGED


def test_what_is_not_given_is_as_in_the_library() -> None:
    defaults = tenfold.finetune.__kwdefaults__
    options = Training().options(None, 0)
    assert "teacher_weight" not in options
    assert options == {name: defaults[name] for name in options}


@pytest.mark.parametrize("validation", [(), ("--validation", "0.25")])
def test_compress_and_its_search_pass_them_on(
    folder: Path, tmp_path: Path, calls: list[dict[str, Any]], validation: tuple[str, ...]
) -> None:
    budget = "accuracy_drop=90,smallest=params" if validation else "params=0.5"
    command = ["compress", f"{folder}/net.py:network", "--weights", f"{folder}/dense.pt", "--budget", budget, "--format", "svd"]
    data = ["--input-shape", "3,6,6", "--finetune", f"{folder}/net.py:train"]
    assert run([*command, *data, *validation, "--out", f"{tmp_path}/out", *words()]) == 0
    assert calls and all({name: one[name] for name in CHANGED} == CHANGED for one in calls)


def test_finetune_passes_them_on(folder: Path, tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    small = tenfold.compress(read_model(f"{folder}/net.py:network", folder / "dense.pt"), tenfold.SVD(rank=4))
    tenfold.save(small, tmp_path / "small.safetensors")
    files = ["--weights", f"{tmp_path}/small.safetensors", "--teacher", f"{folder}/dense.pt", "--out", f"{tmp_path}/better.safetensors"]
    assert run(["finetune", f"{folder}/net.py:network", *files, "--train", f"{folder}/net.py:train", *words()]) == 0
    assert [{name: one[name] for name in CHANGED} for one in calls] == [CHANGED]


def test_a_share_for_a_teacher_needs_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`compress` says so before it plans."""
    small = tenfold.compress(read_model(f"{folder}/net.py:network", folder / "dense.pt"), tenfold.SVD(rank=4))
    tenfold.save(small, tmp_path / "small.safetensors")
    files = ["--weights", f"{tmp_path}/small.safetensors", "--out", f"{tmp_path}/better.safetensors"]
    assert run(["finetune", f"{folder}/net.py:network", *files, "--train", f"{folder}/net.py:train", "--teacher-weight", "0.5"]) == 2
    assert "--teacher-weight is 0.5 without a teacher; a model to learn from is needed" in capsys.readouterr().err
    command = ["compress", f"{folder}/net.py:network", "--budget", "params=0.5", "--out", f"{tmp_path}/out"]
    assert run([*command, "--finetune", f"{folder}/net.py:train", "--no-distill", "--teacher-weight", "0.5"]) == 2
    assert "--teacher-weight is 0.5 without a teacher" in capsys.readouterr().err


def test_finetune_writes_no_file_that_cannot_be_read_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tenfold.compress(read_model(f"{folder}/net.py:network", folder / "dense.pt"), tenfold.SVD(rank=4))
    tenfold.save(small, tmp_path / "small.safetensors")
    files = ["--weights", f"{tmp_path}/small.safetensors", "--out", f"{tmp_path}/better.pt"]
    assert run(["finetune", f"{folder}/net.py:network", *files, "--train", f"{folder}/net.py:train"]) == 2
    assert "better.pt is to be a safetensors file" in capsys.readouterr().err
    assert not (tmp_path / "better.pt").exists()
