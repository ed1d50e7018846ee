"""Every command once through a real process."""

import contextlib
import io
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import Cli

import tenfold
from tenfold.cli.app import run
from tenfold.cli.compress import kept_plan
from tenfold.demo import digits_test
from tenfold.files import read_tensors
from tenfold.sources import read_function, read_model

OPTIONS = ["--budget", "params=0.5", "--format", "svd", "--seed", "3", "--threads", "1"]
EPOCHS = 20


def compress_command(out: str) -> list[str]:
    data = ["--data", "net.py:test", "--calibration", "net.py:train", "--finetune", "net.py:train", "--epochs", str(EPOCHS)]
    return ["compress", "net.py:network", "--weights", "dense.pt", *data, *OPTIONS, "--batch-size", "32", "--out", out, "--json"]


@pytest.fixture(scope="session")
def compressed(cli: Cli) -> dict[str, object]:
    """The result of the main command; its files are in "small"."""
    done = cli(*compress_command("small"))
    assert done.returncode == 0, done.stderr
    assert "fine-tuning: 160/160" in done.stderr
    assert "a user's file may print" in done.stderr
    return json.loads(done.stdout)


def test_compress_writes_four_files_and_its_numbers_are_true(cli: Cli, folder: Path, compressed: dict[str, dict[str, float]]) -> None:
    assert sorted(path.name for path in (folder / "small").iterdir()) == ["model.safetensors", "plan.toml", "report.html", "report.json"]
    small = read_model(f"{folder}/net.py:network", folder / "small" / "model.safetensors")
    count = sum(p.numel() for p in small.parameters())
    assert compressed["parameters"] == {"before": 9_716, "after": count}
    assert count <= 0.5 * 9_716
    assert compressed["flops"]["after"] < compressed["flops"]["before"] == 2 * (36 * 3 * 24 * 9 + 16 * 24 * 32 * 9 + 512 * 4)
    data = read_model(f"{folder}/net.py:network", folder / "dense.pt"), read_function(f"{folder}/net.py:test", "", "")()
    assert compressed["accuracy"]["dense"] == tenfold.evaluate(*data).accuracy
    assert compressed["accuracy"]["finetuned"] == tenfold.evaluate(small, data[1]).accuracy
    assert compressed["accuracy"]["compressed"] is not None
    assert compressed["seed"] == 3
    assert json.loads((folder / "small" / "report.json").read_text())["command"].startswith("tenfold compress net.py:network --weights")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_compress_goes_on_after_kill_9_and_ends_with_the_same_file(cli: Cli, folder: Path, compressed: object) -> None:
    with cli.start(*compress_command("killed")) as running:
        deadline = time.monotonic() + 120
        while not (folder / "killed" / "finetune.ckpt").exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    left = sorted(path.name for path in (folder / "killed").iterdir() if path.suffix != ".part")
    assert left == ["finetune.ckpt", "finetune.plan"]
    done = cli(*compress_command("killed"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.suffix for path in (folder / "killed").iterdir()) == [".html", ".json", ".safetensors", ".toml"]
    one, two = (read_tensors(folder / name / "model.safetensors") for name in ("small", "killed"))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_a_fine_tuning_that_was_stopped_keeps_its_plan(tmp_path: Path) -> None:
    """Made again it might be another one, as times are not the same twice."""
    one, two = (tenfold.plan(torch.nn.Sequential(torch.nn.Linear(8, 8)), tenfold.SVD(rank=rank)) for rank in (2, 3))
    file = tmp_path / "finetune.plan"
    assert kept_plan(file, "question", lambda: one) == one
    assert kept_plan(file, "question", lambda: two).to_text() == one.to_text()
    assert kept_plan(file, "another question", lambda: two) == two
    file.write_text("spoiled")
    assert kept_plan(file, "another question", lambda: one) == one


def test_inspect_shows_layers_and_what_they_became(cli: Cli, folder: Path, compressed: object) -> None:
    done = cli("inspect", "net.py:network", "--weights", "small/model.safetensors")
    assert done.returncode == 0, done.stderr
    assert re.search(r"is: .* -> o1 i1 k1 k2 +r", done.stdout), done.stdout
    assert "Sequential: " in done.stdout
    assert "Stability of the factors" in done.stdout and "healthy" in done.stdout
    found = in_process("inspect", f"{folder}/net.py:network", "--weights", f"{folder}/small/model.safetensors")["diagnosis"]
    assert (
        found
        and {one["name"] for one in found} <= {"0", "3", "6"}
        and all(one["sensitivity"] > 0 and one["stable_step"] > 0 for one in found)
    )
    dense = in_process("inspect", f"{folder}/net.py:network", "--input-shape", "3,6,6")
    layers = dense["layers"]
    assert dense["diagnosis"] == []
    assert [(one["name"], one["parameters"], one["flops"], one["can_be_factorised"]) for one in layers] == [
        ("0", 648, 2 * 36 * 648, True),
        ("3", 6_912, 2 * 16 * 6_912, True),
        ("6", 2_048, 2 * 2_048, True),
    ]


def test_inspect_counts_recurrent_maps_and_says_what_was_not_reached(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        """from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.gru, self.unused = nn.Embedding(50, 16), nn.GRU(16, 32, batch_first=True), nn.Linear(7, 7)

    def forward(self, x):
        return self.gru(self.words(x.long().clamp(0, 49)))[0]
"""
    )
    found = in_process("inspect", f"{tmp_path}/net.py:Net", "--input-shape", "12")
    flops = {"words": 0, "gru.ih_l0": 12 * 2 * 96 * 16, "gru.hh_l0": 12 * 2 * 96 * 32, "unused": None}
    assert {one["name"]: one["flops"] for one in found["layers"]} == flops
    assert found["flops"] == flops["gru.ih_l0"] + flops["gru.hh_l0"]


def in_process(*arguments: str) -> dict[str, Any]:
    """The JSON of a command that runs in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run([*arguments, "--json"]) == 0
    return json.loads(out.getvalue())


def test_a_plan_can_be_written_edited_and_carried_out(cli: Cli, folder: Path) -> None:
    done = cli("plan", "net.py:network", "--weights", "dense.pt", *OPTIONS, "--skip", "6", "--out", "plans/plan.toml")
    assert done.returncode == 0, done.stderr
    assert "left out by the filter" in done.stdout
    text = (folder / "plans" / "plan.toml").read_text()
    assert '"6" = { use = "dense"' in text
    (folder / "plans" / "plan.toml").write_text(re.sub(r'"3" = \{ use = "[^"]*"', '"3" = { use = "cp:rank=7"', text))
    arguments = ("compress", f"{folder}/net.py:network", "--weights", f"{folder}/dense.pt", "--plan", f"{folder}/plans/plan.toml")
    result = in_process(*arguments, "--input-shape", "3,6,6", "--out", f"{folder}/edited")
    small = read_model(f"{folder}/net.py:network", folder / "edited" / "model.safetensors")
    assert small.get_submodule("3").factorized.network.ranks == {"r": 7}  # type: ignore[union-attr]
    assert result["accuracy"] == {"dense": None, "compressed": None, "finetuned": None}


def test_a_plan_says_what_its_errors_are_of_and_what_runs_with_dense_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        """import torch
from torch import nn

def network():
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.Sequential(nn.Embedding(100, 32), nn.TransformerEncoder(block, 1))

def ids():
    return torch.utils.data.TensorDataset(torch.arange(64 * 5).reshape(64, 5) % 100, torch.zeros(64, 5, 32))
"""
    )
    command = ["plan", f"{tmp_path}/net.py:network", "--calibration", f"{tmp_path}/net.py:ids", "--budget", "params=0.4"]
    found = in_process(*command)
    assert {one["name"]: one["metric"] for one in found["layers"] if one["use"] != "dense"}.items() >= {
        "0": "weight", "1.layers.0.linear1": "output",
    }.items()  # fmt: skip
    assert "fused encoder kernel" in found["notes"][0]
    assert run(command) == 0
    assert found["notes"][0] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("data", [("--input-shape", "3,6,6"), ("--data", "net.py:test")], ids=["shape", "data"])
@pytest.mark.parametrize("command", ["plan", "compress"])
def test_layers_are_timed_in_calls_with_so_many_samples(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, data: tuple[str, str]
) -> None:
    sizes = []
    monkeypatch.setattr("tenfold.ranks.latency.measured_speedups", lambda offers, picked, inputs: sizes.append(len(inputs)) or {})
    given = ["--budget", "flops=0.6", data[0], data[1].replace("net.py", f"{folder}/net.py"), "--out", f"{tmp_path}/out.toml"]
    for options, size in (((), 32), (("--latency-batch", "1"), 1), (("--latency-batch", "40"), 40)):
        sizes.clear()
        in_process(command, f"{folder}/net.py:network", *given, *options)
        assert set(sizes) == {size}


def test_finetune_takes_a_compressed_model_and_gives_one(cli: Cli, folder: Path, compressed: object) -> None:
    files = ("--weights", "small/model.safetensors", "--teacher", "dense.pt", "--out", "better.safetensors")
    done = cli("finetune", "net.py:network", *files, "--train", "net.py:train", "--data", "net.py:test", "--epochs", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["losses"]) == 2
    better = read_model(f"{folder}/net.py:network", folder / "better.safetensors")
    data = read_function(f"{folder}/net.py:test", "", "")()
    assert result["loss"]["after"] == pytest.approx(tenfold.evaluate(better, data).loss, rel=1e-6)
    assert not (folder / "better.safetensors.ckpt").exists()


def test_export_writes_dense_and_torch(cli: Cli, folder: Path, compressed: object) -> None:
    weights = ("--weights", "small/model.safetensors")
    done = cli("export", "net.py:network", *weights, "--to", "dense", "--out", "dense.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["size_bytes"] == (folder / "dense.safetensors").stat().st_size
    small = read_model(f"{folder}/net.py:network", folder / "small" / "model.safetensors")
    x = torch.randn(5, 3, 6, 6)
    with torch.no_grad():
        wanted = small(x)
        dense = read_model(f"{folder}/net.py:network", folder / "dense.safetensors")
        torch.testing.assert_close(dense(x), wanted, rtol=1e-4, atol=1e-4)
    files = ("--weights", f"{folder}/small/model.safetensors", "--out", f"{folder}/m.pt2")
    in_process("export", f"{folder}/net.py:network", *files, "--to", "torch", "--input-shape", "3,6,6")
    torch.testing.assert_close(torch.export.load(folder / "m.pt2").module()(x), wanted, rtol=1e-4, atol=1e-4)


def test_report_compares_two_files(cli: Cli, folder: Path, compressed: dict[str, object]) -> None:
    files = ("--weights", "dense.pt", "--compressed", "small/model.safetensors", "--plan", "small/plan.toml")
    done = cli("report", "net.py:network", *files, "--data", "net.py:test", "--out", "report", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {key: result[key] for key in ("parameters", "size_bytes", "flops")} == {
        key: compressed[key] for key in ("parameters", "size_bytes", "flops")
    }
    assert (folder / "report" / "report.html").read_text().startswith("<!")
    paths = ("--weights", f"{folder}/dense.pt", "--compressed", f"{folder}/small/model.safetensors", "--out", f"{folder}/report2")
    without_data = in_process("report", f"{folder}/net.py:network", *paths, "--input-shape", "3,6,6")
    assert without_data["flops"] == compressed["flops"] and set(without_data["accuracy"].values()) == {None}


DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data: a folder named by $TENFOLD_DATA, or ../shared/data")
def test_a_pretrained_network_and_real_images(tmp_path: Path) -> None:
    weights = ("--weights", f"{DATA}/weights/cifar10_resnet20.safetensors", "--data", f"{DATA}/loaders.py:cifar10_test_lossless")
    result = in_process(
        "compress", f"{DATA}/networks.py:cifar10_resnet20", *weights, "--format", "svd:rank=0.5", "--out", f"{tmp_path}/out"
    )
    assert result["accuracy"]["dense"] == pytest.approx(0.9143, abs=5e-5)  # the README of the data: 91.43 % of 502 lossless images
    assert result["n_factorised"] == 20


def test_the_demo_makes_a_quarter_of_the_network_and_keeps_its_accuracy(cli: Cli, folder: Path) -> None:
    done = cli("demo", "--out", "demo", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["parameters"]["after"] <= 0.25 * result["parameters"]["before"]
    assert result["accuracy"]["dense"] > 0.97
    assert result["accuracy"]["finetuned"] > result["accuracy"]["dense"] - 0.02
    has_onnx = not result["not_written"]
    assert has_onnx or (torch.__version__ < "2.7" and list(result["not_written"]) == ["model.onnx"])  # onnxscript may be too new for it
    names = [
        "dense.safetensors",
        *(["model.onnx"] if has_onnx else []),
        "model.pt2",
        "model.safetensors",
        "original.safetensors",
        "plan.toml",
        "report.html",
        "report.json",
    ]
    assert sorted(path.name for path in (folder / "demo").iterdir()) == names
    assert sorted(Path(path).name for path in result["files"].values()) == names
    if not has_onnx:
        pytest.skip(result["not_written"]["model.onnx"])
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(folder / "demo" / "model.onnx"))
    images = digits_test().tensors[0]
    with torch.no_grad():
        wanted = read_model("tenfold.demo:digits_network", folder / "demo" / "model.safetensors")(images)
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_demo_goes_on_where_one_export_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ImportError("export to ONNX needs the package onnx")

    monkeypatch.setattr(tenfold.export, "to_onnx", refuse)
    result = in_process("demo", "--out", f"{tmp_path}/demo")
    assert result["not_written"] == {"model.onnx": "export to ONNX needs the package onnx"}
    assert "model.onnx" not in result["files"] and all(Path(path).is_file() for path in result["files"].values())
