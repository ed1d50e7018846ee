"""A budget of accuracy on the command line: the files, the table, and going on after kill -9."""

import json
import signal
import time
from pathlib import Path

import pytest
from cli_process import Cli

import tenfold
from tenfold.files import read_tensors
from tenfold.sources import read_function, read_model


def search_command(out: str) -> list[str]:
    data = ["--data", "net.py:test", "--calibration", "net.py:train", "--finetune", "net.py:train", "--validation", "0.25"]
    budget = ["--budget", "accuracy_drop=3,smallest=params", "--format", "svd", "--epochs", "3", "--batch-size", "16", "--threads", "1"]
    return ["compress", "net.py:network", "--weights", "dense.pt", *data, *budget, "--out", out, "--json"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_budget_of_accuracy_is_searched_and_goes_on_after_kill_9(cli: Cli, folder: Path) -> None:
    done = cli(*search_command("found"))
    assert done.returncode == 0, done.stderr
    assert "search: " in done.stderr
    result = json.loads(done.stdout)
    trials = result["search"]["trials"]
    best = min((one for one in trials if one["is_inside"]), key=lambda one: one["limit"])
    assert best["drop"] <= 3 and best["tuned"] is not None and "plan" not in best
    assert result["parameters"]["after"] == pytest.approx(best["params"] * result["parameters"]["before"])
    assert sorted(path.name for path in (folder / "found").iterdir()) == ["model.safetensors", "plan.toml", "report.html", "report.json"]
    small = read_model(f"{folder}/net.py:network", folder / "found" / "model.safetensors")
    assert result["accuracy"]["finetuned"] == tenfold.evaluate(small, read_function(f"{folder}/net.py:test", "", "")()).accuracy
    with cli.start(*search_command("killed_search")) as running:
        deadline = time.monotonic() + 120
        state = folder / "killed_search" / "search" / "search.json"
        while running.poll() is None and time.monotonic() < deadline and not (state.exists() and '"tuned": 0.' in state.read_text()):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    (state.parent / "notes.txt").write_text("of somebody else")
    done = cli(*search_command("killed_search"))
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)["search"]
    assert [one | {"seconds": 0} for one in again["trials"]] == [one | {"seconds": 0} for one in trials]
    one, two = (read_tensors(folder / name / "model.safetensors") for name in ("found", "killed_search"))
    assert all((value == two[name]).all() for name, value in one.items())
    assert [path.name for path in state.parent.iterdir()] == ["notes.txt"]
