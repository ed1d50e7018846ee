"""Other code's errors inside our messages, and arguments of another kind than a public function needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tenfold
from tenfold.messages import one_line

DATA = (torch.zeros(8, 4), torch.zeros(8, dtype=torch.int64))
DROP = {"accuracy_drop": 1}


def test_an_error_is_one_line_without_colours():
    assert one_line(ValueError("\x1b[96mstep 3\x1b[0m\n  of it")) == "step 3 of it"


CALLS: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "plan": (lambda _, path: tenfold.plan(4, 7), "model is a int; a torch.nn.Module is needed: give the network"),  # type: ignore[arg-type]
    "class": (lambda _, path: tenfold.plan(nn.Linear, "svd:rank=1"), "model is the class Linear; a torch.nn.Module is needed: give"),  # type: ignore[arg-type]
    "compress": (lambda _, path: tenfold.compress("model.pt", "svd:rank=1"), "model is a str; a torch.nn.Module is needed"),  # type: ignore[arg-type]
    "factorize": (lambda _, path: tenfold.factorize(3, "svd:rank=1"), "model is a int; a torch.nn.Module is needed"),  # type: ignore[arg-type]
    "save": (lambda model, path: tenfold.save(model.state_dict(), path), "model is a OrderedDict; a torch.nn.Module is needed"),
    "save plan": (lambda model, path: tenfold.save(model, path, plan="a.toml"), "plan is a str; a Plan is needed: make one with"),
    "dense": (lambda _, path: tenfold.to_dense(3), "model is a int; a torch.nn.Module is needed"),  # type: ignore[arg-type]
    "export": (lambda _, path: tenfold.export.export_torch(3, DATA[0], path), "model is a int; a torch.nn.Module is needed"),  # type: ignore[arg-type]
    "search": (lambda _, path: tenfold.search(3, DROP, validation=DATA), "model is a int; a torch.nn.Module is needed"),  # type: ignore[arg-type]
    "tune": (lambda model, path: tenfold.search(model, DROP, validation=DATA, finetune=3), "finetune is a int; arguments of tenfold"),  # type: ignore[arg-type]
    "report": (lambda model, path: tenfold.report(model, 3, path), "small is a int; the report needs two torch modules"),  # type: ignore[arg-type]
    "report plan": (lambda model, path: tenfold.report(model, model, path, plan="a.toml"), "plan is a str; a Plan is needed"),  # type: ignore[arg-type]
    "history": (lambda model, path: tenfold.report(model, model, path, history=[1]), "history is a list; a FinetuneHistory is needed"),  # type: ignore[arg-type]
    "before": (lambda model, path: tenfold.report(model, model, path, before=0.9), "before is a float; an Evaluation is needed"),  # type: ignore[arg-type]
    "finetune": (lambda _, path: tenfold.finetune(5, DATA), "model is a int; a torch.nn.Module is needed"),  # type: ignore[arg-type]
    "teacher": (lambda model, path: tenfold.finetune(model, DATA, teacher="a.pt"), "teacher is a str; a torch.nn.Module is needed"),
    "optimizer": (lambda model, path: tenfold.finetune(model, DATA, optimizer="adam"), "optimizer is a str; an optimiser or its class"),
    "loss": (lambda model, path: tenfold.finetune(model, DATA, loss="mse"), r"loss is a str; a function loss\(output, targets\) is needed"),
    "epochs": (lambda model, path: tenfold.finetune(model, DATA, epochs="3"), "epochs is a str; a whole number is needed: convert it"),  # type: ignore[arg-type]
    "lr": (lambda model, path: tenfold.finetune(model, DATA, lr="x"), "lr is a str; a number is needed: convert it with float"),  # type: ignore[arg-type]
    "weight": (lambda model, path: tenfold.finetune(model, DATA, teacher_weight=None), "teacher_weight is a NoneType; a number is"),  # type: ignore[arg-type]
    "batch size": (lambda model, path: tenfold.evaluate(model, DATA, batch_size=2.5), "batch_size is a float; a whole number is"),  # type: ignore[arg-type]
    "checkpoint": (lambda model, path: tenfold.finetune(model, DATA, checkpoint=3), "checkpoint is a int; a path is needed: give"),  # type: ignore[arg-type]
    "save path": (lambda model, path: tenfold.save(model, 3), "path is a int; a path is needed: give the name of a file"),  # type: ignore[arg-type]
    "load path": (lambda model, path: tenfold.load(3, model), "path is a int; a path is needed: give the name of a file"),  # type: ignore[arg-type]
    "plan path": (lambda model, path: tenfold.Plan.load(3), "path is a int; a path is needed: give the name of a file"),  # type: ignore[arg-type]
    "evaluate": (lambda _, path: tenfold.evaluate(5, DATA), "model is a int; a torch.nn.Module is needed"),  # type: ignore[arg-type]
    "reference": (lambda model, path: tenfold.evaluate(model, DATA, reference=5), "reference is a int; a torch.nn.Module is needed"),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_another_kind_is_named(name: str, tmp_path: Path) -> None:
    run, message = CALLS[name]
    with pytest.raises(TypeError, match=message):
        run(nn.Linear(4, 3), tmp_path / "out")
    assert not list(tmp_path.iterdir())
