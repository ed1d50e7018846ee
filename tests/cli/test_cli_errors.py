"""Help, wrong usage and wrong input: what is said, where, and with which exit code."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from cli_process import Cli

import tenfold
from tenfold.cli import main
from tenfold.cli.app import COMMANDS, make_app, run


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert run([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"tenfold {name}" in shown.split("Example")[1], name
        assert all(option in shown for option in ("--json", "--seed")), name
        assert not re.search(r"^│[* ]+--[\w-]+ +│$", shown, re.MULTILINE) and "--empty-" not in shown, (
            f"{name}: an option without a word on it"
        )
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*COMMANDS, "--install-completion"))
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{tenfold.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compres"], "Did you mean"),
        (["inspect"], "MODEL"),
        (["inspect", "{net}:network", "--sed", "1"], "Did you mean"),
        (["inspect", "{net}:network", "--seed", "one"], "--seed"),
        (["inspect", "{net}:network", "--seed", "9" * 19], "--seed is 9999999999999999999; a whole number of at most 18 digits is needed"),
        (["inspect", "{net}:network", "--threads", "0"], "--threads is 0; at least 1 is needed"),
        (["inspect", "{net}:nothing"], "has no function 'nothing'; it has network"),
        (["inspect", "{net}:network", "--weights", "{net}"], "cannot be read as tensors only"),
        (["inspect", "{net}:network", "--data", "{net}:other_images"], "on inputs of shape (8, 5) from the data"),
        (["plan", "{net}:network", "--skip", "layer*"], "--skip layer* matches no layer; the layers are 0, 3, 6: correct it"),
        (["plan", "{net}:network", "--filter", "layer*"], "'layer*' matches no layer"),
        (["plan", "{net}:network", "--budget", "half"], "'half' is no budget"),
        (["plan", "{net}:network", "--budget", "params=0.0001"], "smallest"),
        (["plan", "{net}:network", "--budget", "flops=0.5"], "counts FLOP, which needs an example input"),
        (["plan", "{net}:network", "--format", "cpp", "--budget", "0.5"], "'cpp' is no format"),
        (["plan", "{net}:network", "--budget", "accuracy_drop=1"], "a loss of accuracy, which a plan cannot know; models have to be made"),
        (["plan", "{net}:network", "--budget", "accuracy_drop=-1"], "accuracy_drop=-1.0; it needs points of top-1 accuracy, at least 0"),
        (["plan", "{net}:network", "--budget", "0.5", "--latency", "measured"], "times layers, which needs an example input"),
        (["plan", "{net}:network", "--budget", "flops=0.5", "--latency-batch", "0"], "--latency-batch is 0; a call has at least 1 sample"),
        (
            ["compress", "{net}:network", "--out", "{out}", "--budget", "accuracy_drop=1"],
            "comes without --validation; a loss of accuracy has to be measured on data that were not trained on: add --validation 0.1",
        ),
        (
            ["compress", "{net}:network", "--out", "{out}", "--budget", "accuracy_drop=1", "--validation", "0.1"],
            "--validation 0.1 holds out a part of --finetune, which is not given; one of them must name data: add --finetune",
        ),
        (
            ["compress", "{net}:network", "--out", "{out}", "--budget", "flops=0.5", "--validation", "0.1"],
            "--validation 0.1 comes without --budget accuracy_drop=..; only that is validated while it is searched",
        ),
        (
            ["compress", "{net}:network", "--out", "{out}", "--budget", "accuracy_drop=1", "--validation", "a.npz", "--data", "a.npz"],
            "--validation and --data are both a.npz; the accuracy on --data would be that of a choice made by it",
        ),
        (["compress", "{net}:network", "--out", "{out}"], "there is neither --budget nor --plan nor a rank in --format"),
        (
            ["compress", "{net}:network", "--out", "{out}", "--budget", "0.5", "--epochs", "5", "--no-distill"],
            "--epochs, --no-distill came without --finetune; training data are needed to fine-tune: add --finetune",
        ),
        (["compress", "{net}:network", "--out", "{out}", "--plan", "nowhere.toml"], "--plan nowhere.toml does not exist"),
        (
            ["compress", "{net}:network", "--out", "{out}", "--plan", "p", "--budget", "0.5"],
            "the plan says it all: leave them or --plan out",
        ),
        (["compress", "{net}:network", "--out", "{net}/x", "--budget", "0.5"], "nothing can be written to --out"),
        (["compress", "{net}:network", "--out", "{out}", "--budget", "0.5", "--calibration", "{net}:empty"], "a data set of 0 samples"),
        (["compress", "{net}:network", "--out", "{out}", "--format", "svd:rank=2", "--data", "{net}:labels_beyond_the_classes"], "label"),
        (["finetune", "{net}:network", "--weights", "{dense}", "--train", "x", "--out", "{out}"], "is no file that tenfold wrote"),
        (["finetune", "{net}:network", "--weights", "{dense}", "--train", "x", "--out", "{out}", "--calibration", "x"], "--calibration"),
        (["inspect", "{net}:network", "--normalize", "imagenet"], "--normalize imagenet came without --data; it changes images of data"),
        (["report", "{net}:network", "--compressed", "{dense}", "--out", "{out}"], "is no file that tenfold wrote"),
        (
            ["export", "{net}:network", "--weights", "{dense}", "--to", "onnx", "--out", "{out}.onnx"],
            "an example is needed: give --input-shape",
        ),
        (
            ["export", "{net}:network", "--weights", "{dense}", "--to", "dense", "--out", "{out}.pt"],
            "is to be a safetensors file; a name that ends in .safetensors is needed",
        ),
        (
            ["export", "{net}:network", "--weights", "{dense}", "--to", "torch", "--out", "{out}.safetensors"],
            "is to be a pt2 file; a name that ends in .pt2 is needed",
        ),
        (["export", "{net}:network", "--weights", "{dense}", "--to", "jpeg", "--out", "{out}"], "jpeg"),
        (
            ["export", "{net}:network", "--weights", "{dense}", "--to", "dense", "--out", "{folder}"],
            "is a folder; a file that can be written",
        ),
    ],
)
def test_wrong_input_is_exit_code_2_with_a_message_and_no_traceback(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"net": f"{folder}/net.py", "out": f"{folder}/new/out", "dense": f"{folder}/dense.pt", "folder": str(folder)}
    assert run([argument.format(**places) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert not (folder / "new").exists()


def test_other_failures_are_exit_code_1_and_debug_shows_where(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("tenfold.cli.inspect.survey", fail)
    assert run(["inspect", f"{folder}/net.py:network"]) == 1
    shown = capsys.readouterr().err
    assert "KeyError: 'a bug'; add --debug for the traceback" in shown
    assert "Traceback" not in shown
    assert run(["inspect", f"{folder}/net.py:network", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_flags_may_be_given_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["formats", "--json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["formats"]
    assert run(["formats", "--json=false"]) == 0
    assert not capsys.readouterr().out.startswith("{")
    assert run(["inspect", "nowhere.py:f", "--debug=True"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tenfold.cli.inspect.survey", interrupt)
    assert run(["inspect", f"{folder}/net.py:network"]) == 130
    assert "fine-tuning goes on from its last checkpoint" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_an_error_at_once(cli: Cli, folder: Path) -> None:
    done = cli("compress", "net.py:network", "--budget", "0.5", "--out", "full/deep", limit=2_000)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: nothing can be written to --out full/deep \(File too large\); a folder .* is needed: choose .*\n", done.stderr
    )
    assert not (folder / "full").exists()


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_a_result_that_cannot_be_written_is_an_error_in_words(
    option: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run(["formats", *option]) == 1
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()  # what the file still holds
    assert "the result cannot be written to stdout (No space left on device); a place with enough room" in capsys.readouterr().err


def test_characters_that_stdout_does_not_know_are_escaped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "named.py").write_text(
        "from torch import nn\ndef f():\n    return nn.ModuleDict({'\u00fc': nn.Linear(4, 4)})\n", encoding="utf-8"
    )
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert run(["inspect", f"{folder}/named.py:f"]) == 0
    assert rb"\xfc" in shown.getvalue()


def test_a_reader_that_stops_early_is_no_crash() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run([sys.executable, "-m", "tenfold", "formats", "--json"], stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_disk_with_too_little_space_is_an_error_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=10))
    assert run(["compress", f"{folder}/net.py:network", "--budget", "0.5", "--out", f"{folder}/tight/deep"]) == 2
    assert "(10 bytes are free and about 1,087,440 are needed)" in capsys.readouterr().err
    assert not (folder / "tight").exists()


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith(("tenfold.cli.", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(
        f"error: the package {package} is not installed; the tenfold command line needs cyclopts and rich: run pip install "
    )


def test_a_command_is_complete_where_the_shell_asks() -> None:
    script = make_app().generate_completion(shell="bash")
    assert all(word in script for word in ("compress", "--budget", "--input-shape"))
