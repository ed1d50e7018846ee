"""Plans as text: written, edited by hand, read back; and every mistake names its line."""

import dataclasses
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tenfold
from tenfold import CP, SVD, TTM, Budget, LayerPlan, Plan, compress, plan

AWKWARD = [
    "",
    "a.b.c",
    "with space",
    'quo"te',
    "apo'strophe",
    "back\\slash",
    "new\nline",
    "tab\t",
    "ünïcode.ΔΩ",
    "a = b",
    "[layers]",
    "seed",
    "#",
]


def layer(name: str, **changes: Any) -> LayerPlan:
    values = LayerPlan(name, "Linear", (64, 32), SVD(rank=4), None, None, "", 2048, 384, 4096, 768, 0.125)
    return dataclasses.replace(values, **changes)


def example(*layers: LayerPlan) -> Plan:
    return Plan(layers, "Network", Budget(flops=0.5, params=1 / 3), 4000, 1000, 9000, 4000, "output", 7)


def text(*lines: str) -> str:
    return "\n".join(["version = 1", "", "[layers]", *lines])


@pytest.mark.parametrize("name", AWKWARD)
def test_every_name_comes_back_and_is_found_in_the_text(name: str):
    made = example(layer("first"), layer(name), layer("last"))
    assert Plan.parse(made.to_text()) == made
    written = made.to_text().split("\n")
    number = next(k for k, line in enumerate(written, 1) if "svd" in line) + 1  # the line after that of "first"
    broken = "\n".join(line.replace("svd", "sdv") if k == number else line for k, line in enumerate(written, 1))
    with pytest.raises(ValueError, match=f"^plan, line {number}, layer .*'sdv' is no format"):
        Plan.parse(broken)


@pytest.mark.parametrize(
    "made",
    [
        example(),
        example(layer("a", format=None, reason='it is "tied"', params_after=2048, flops_after=4096, error=None)),
        example(layer("a", predicted_speedup=1.25, measured_speedup=0.98), layer("b", predicted_speedup=3.5)),
        example(layer("a", format=TTM(rank=(4,)), in_modes=(4, 8), out_modes=(8, 8), shape=(64, 32, 3, 3))),
        dataclasses.replace(
            example(layer("a", flops_before=None, flops_after=None)), budget=None, flops_before=None, flops_after=None, metric="weight"
        ),
    ],
)
def test_a_plan_comes_back_and_its_text_is_exact(made: Plan):
    assert Plan.parse(made.to_text()) == made
    assert Plan.parse(made.to_text()).to_text() == made.to_text()


def test_errors_are_written_with_four_digits():
    made = example(layer("a", error=0.123456789), layer("b", error=1.5e-9))
    again = Plan.parse(made.to_text())
    assert [one.error for one in again.layers] == [0.1235, 1.5e-9]
    assert again.to_text() == made.to_text()


def test_the_text_of_a_real_plan_is_exact():
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Flatten(), nn.Linear(32 * 36, 100), nn.LSTM(100, 8))
    made = plan(model, {"0": "auto", "2": TTM()}, budget=0.4)
    again = Plan.parse(made.to_text())
    assert again.to_text() == made.to_text() and str(again).count("\n") == str(made).count("\n")
    assert [one.format for one in again.layers] == [one.format for one in made.layers]
    torch.manual_seed(0)
    a, b = compress(model, made), compress(model, again)
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)


def test_a_layer_set_to_dense_keeps_no_numbers_of_its_factors():
    made = example(layer("a", predicted_speedup=2.0, measured_speedup=1.5, metric="weight"), layer("b"))
    edited = Plan.parse(made.to_text().replace("svd:rank=4", "dense", 1))
    dense = layer("a", format=None, reason="set to dense in the plan", params_after=2048, flops_after=4096, error=None)
    assert edited.layers == (dense, layer("b"))
    assert (edited.params_before, edited.params_after, edited.flops_before, edited.flops_after) == (4000, 2664, 9000, 7328)
    assert "dense (set to dense in the plan)" in str(edited) and Plan.parse(edited.to_text()) == edited
    noted = Plan.parse(text('a = { use = "dense", params = [9, 3], note = "it is slow" }')).layers[0]
    assert (noted.reason, noted.params_after, noted.flops_after) == ("it is slow", 9, None)


def test_a_plan_is_saved_and_loaded(tmp_path: Path):
    made = example(layer("a"), layer("ö"))
    made.save(tmp_path / "plan.toml")
    assert Plan.load(tmp_path / "plan.toml") == made
    assert [file.name for file in tmp_path.iterdir()] == ["plan.toml"]


def test_a_person_may_edit_it():
    made = Plan.parse(
        text(
            '"body.0" = "svd:rank=3"  # as short as it gets',
            '"body.1" = "dense"',
            "head = 'tt:rank=2,in=4x8'",
            '"conv" = { use = "cp:rank=12" }',
            '[layers."other.conv"]',
            'use = "tucker:rank=2x3"',
        )
    )
    assert [(one.name, one.format and one.format.rank, one.in_modes) for one in made.layers] == [
        ("body.0", 3, None),
        ("body.1", None, None),
        ("head", 2, (4, 8)),
        ("conv", 12, None),
        ("other.conv", (2, 3), None),
    ]
    assert (made.model, made.budget, made.metric, made.seed, made.params_before, made.flops_before) == ("", None, "weight", 0, 0, None)


def test_an_edited_rank_is_carried_out():
    model = nn.Sequential(nn.Linear(32, 24), nn.Linear(24, 32))
    written = plan(model, SVD(rank=8)).to_text()
    small = compress(model, Plan.parse(written.replace("svd:rank=8", "svd:rank=5", 1)))
    assert [one.factorized.network.ranks["r"] for one in small] == [5, 8]
    dense = compress(model, Plan.parse(written.replace("svd:rank=8", "dense", 1)))
    assert type(dense[0]) is nn.Linear and type(dense[1]) is not nn.Linear


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("version = 1\n[layers\n", r"^plan is not readable as TOML: .*line 2.*; mend that line"),
        (text('"a" = "svd:rank=2"', '"a" = "svd:rank=3"'), "is not readable as TOML: .*line 5"),
        ("", r"has version None and no \[layers\] part; a plan needs version = 1 and \[layers\]: write it with Plan.save"),
        ("version = 2\n[layers]\n", r"has version 2 and a \[layers\] part; a plan needs version = 1"),
        ("version = 1\nlayers = 3\n", r"has version 1 and a \[layers\] part; a plan needs"),
        (
            "version = 1\n\nsed = 1\n[layers]\nsed = 'dense'",
            "line 3: 'sed' is unknown; known are version, model, budget, .*: correct or remove it",
        ),
        ("version = 1\nseed = 'x'\n[layers]\nseed = 'dense'", "line 2: seed is 'x'; it needs a whole number: correct it"),
        (
            "version = 1\nbudget = 'flop=1'\n[layers]",
            'line 2: budget is \'flop=1\'; it needs a text such as "flops=0.5", or "": correct it',
        ),
        ("version = 1\nmetric = 'both'\n[layers]", 'line 2: metric is \'both\'; it needs "weight" or "output"'),
        ("version = 1\nparams = [1, 2, 3]\n[layers]", r"line 2: params is \[1, 2, 3\]; it needs two whole numbers, as \[20, 10\]"),
        (text('"a" = "svd:rank=2"', '"b" = "sdv:rank=2"'), "line 5, layer 'b': 'sdv' is no format; known are bt, cp, "),
        (text('"a.b" = "svd:rnk=2"'), "line 4, layer 'a.b': 'svd:rnk=2' has 'rnk=2'; svd takes rank=.., in=.., out=.."),
        (text('"a" = "svd"'), "line 4, layer 'a': 'svd' has no rank; a plan needs one: write for instance svd:rank=8"),
        (text('"a" = { use = "ttm:in=2x2" }'), "line 4, layer 'a': 'ttm:in=2x2' has no rank; .* ttm:rank=8"),
        (text('"a" = "auto"'), "line 4, layer 'a': 'auto' is no format"),
        (text("a = 3"), "line 4, layer 'a': 3 is no entry; a text or a table with `use` is needed: write \"cp:rank=8\""),
        (text("", 'a.b.c = "svd:rank=2"'), "line 5, layer 'a': .* is no entry; .* and put a name with dots in quotes"),
        (text('a = { format = "svd:rank=2" }'), "line 4, layer 'a': .* is no entry"),
        (text('a = { use = "svd:rank=2", rank = 3 }'), "line 4, layer 'a': 'rank' is unknown; known are use, kind, shape, params, flops"),
        (text("a = { use = 3 }"), 'line 4, layer \'a\': use is 3; it needs a text such as "cp:rank=8", or "dense": correct it'),
        (
            text('a = { use = "dense", shape = [3, "x"] }'),
            r"line 4, layer 'a': shape is \[3, 'x'\]; it needs whole numbers, as \[16, 3, 3, 3\]",
        ),
        (text('a = { use = "dense", params = 3 }'), r"line 4, layer 'a': params is 3; it needs two whole numbers"),
        (text('a = { use = "dense", error = "small" }'), "line 4, layer 'a': error is 'small'; it needs a number"),
        (text("'a' = \"dense\"", '[layers."b.c"]', 'kind = "Linear"', 'use = "x:rank=1"'), "line 5, layer 'b.c': 'x' is no format"),
    ],
)
def test_mistakes_name_their_line(content: str, message: str):
    with pytest.raises(ValueError, match=message):
        Plan.parse(content)


def test_the_file_is_named(tmp_path: Path):
    path = tmp_path / "my plan.toml"
    path.write_text(text('"a" = "svd"').replace("\n", "\r\n"))
    with pytest.raises(ValueError, match="my plan.toml, line 4, layer 'a'"):
        Plan.load(path)


def test_a_path_is_no_plan_and_may_lead_nowhere(tmp_path: Path):
    for given in ("plan.toml", tmp_path / "plan.toml"):
        with pytest.raises(TypeError, match=r"the plan is the path .*plan.toml; a Plan is needed: .* read its file with tenfold.Plan.load"):
            tenfold.compress(torch.nn.Linear(8, 8), given)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match="cannot read .*plan.toml: .*; a file that you may read is needed: check the path"):
        Plan.load(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="plan.toml is not UTF-8 .*; a text in UTF-8 is needed: save it so"):
        Plan.load(tmp_path / "plan.toml")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (layer("2"), r"the plan is for another model: it has a layer '2', but this model has 0, 1; make a plan for this model, or give"),
        (
            layer("0", shape=(64, 33)),
            r"its layer '0' is a Linear of shape \(64, 33\), but here it is a Linear of shape \(64, 32\); make a plan",
        ),
        (layer("0", kind="Conv1d"), r"its layer '0' is a Conv1d of shape \(64, 32\), but here it is a Linear of shape \(64, 32\)"),
        (layer("0", format=None, shape=(2, 2)), r"is for another model: its layer '0' is a Linear of shape \(2, 2\)"),
        (
            layer("1", kind="Bilinear", shape=(2, 64, 64)),
            "the plan factorises '1', but there is no factorised layer for Bilinear; set it to \"dense\" in the plan",
        ),
        (
            layer("0", format=SVD(rank=33)),
            "layer '0' with svd:rank=33: SVD got rank 33, but ranks above 32 add nothing here; choose at most that",
        ),
        (layer("0", format=CP(rank=0)), "layer '0' with cp:rank=0: CP got rank 0; every rank must be at least 1"),
        (layer("0", in_modes=(4, 4)), r"layer '0' with svd:rank=4,in=4x4: the modes \(4, 4\) of the i axis have the product 16"),
    ],
)
def test_a_plan_that_does_not_fit_the_model(row: LayerPlan, message: str):
    with pytest.raises(ValueError, match=message):
        compress(nn.Sequential(nn.Linear(32, 64), nn.Bilinear(64, 64, 2)), example(row))


class Shared(nn.Module):
    """One layer with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(16, 16)
        self.b, self.c = self.a, nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x).relu()).relu())


@pytest.mark.parametrize("sequential", [False, True])
def test_lines_for_both_names_of_a_shared_layer_count_once(sequential: bool):
    given = Plan.parse(text('a = "svd:rank=3"', 'b = "svd:rank=3"', 'c = "svd:rank=2"'))
    small: Any = compress(Shared(), given, calibration=torch.randn(64, 16), sequential=sequential)
    assert small.a is small.b and [small.a.factorized.network.ranks["r"], small.c.factorized.network.ranks["r"]] == [3, 2]


@pytest.mark.parametrize("use", ["svd:rank=5", "dense"])
def test_lines_for_both_names_that_differ_are_refused(use: str):
    message = f"the plan says 'a' = svd:rank=3 and 'b' = {use}, but both are names of one layer, which gets one format: take one"
    with pytest.raises(ValueError, match=message):
        compress(Shared(), Plan.parse(text('a = "svd:rank=3"', f'b = "{use}"')))


def test_the_table_has_a_line_for_each_layer_and_the_totals():
    table = str(example(layer("body"), layer("", format=None, reason="tied", params_after=2048, error=None)))
    lines = table.split("\n")
    assert len(lines) == 4 and lines[0].split() == ["layer", "type", "shape", "becomes", "parameters", "FLOP/sample", "error", "speed-up"]
    assert lines[1].split() == ["body", "Linear", "64x32", "svd:rank=4", "2,048", "->", "384", "4,096", "->", "768", "0.1250"]
    assert lines[2].startswith("(the model)") and "dense (tied)" in lines[2]
    assert lines[3] == (
        "whole model: 4,000 -> 1,000 parameters (0.250 kept), 9,000 -> 4,000 FLOP a sample (0.444 kept); errors of the outputs"
    )


def test_folders_of_formats_and_layers_are_not_read_again_for_every_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, n_read, read = nn.Sequential(*[nn.Linear(6, 6) for _ in range(20)]), 0, pkgutil.iter_modules

    def counted(*arguments: Any) -> Any:
        nonlocal n_read
        n_read += 1
        return read(*arguments)

    monkeypatch.setattr(pkgutil, "iter_modules", counted)
    small = compress(model, SVD(rank=1))
    made = plan(model, SVD(rank=1))
    made.save(tmp_path / "plan.toml")
    Plan.load(tmp_path / "plan.toml")
    tenfold.save(small, tmp_path / "small.safetensors", plan=made)
    tenfold.load(tmp_path / "small.safetensors", model)
    assert n_read <= 2
