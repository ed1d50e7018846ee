"""Reproduce stable-cpd: tables and pictures from a small network, cells that are made once, the published rows with their marks."""

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

import tenfold
from recipe_data import write_network
from tenfold.diagnosis import diagnose, stable_step
from tenfold.recipes.papers.stable_cpd import accuracy, published, stability
from tenfold.recipes.papers.stable_cpd.networks import NETWORKS, Case, case
from tenfold.recipes.papers.stable_cpd.picture import picture
from tenfold.recipes.papers.stable_cpd.plain import PlainCP, correct
from tenfold.recipes.reproduce import reproduce
from tenfold.recipes.reproduction import Request


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def small_case(folder: Path) -> Case:
    return case(NETWORKS[0], folder, n_train=64, n_test=50)


@pytest.mark.filterwarnings("ignore:cp_als for")
def test_quick_makes_all_files_and_makes_them_once(folder: Path, tmp_path: Path) -> None:
    found = reproduce("stable-cpd", data=folder, out=tmp_path, quick=True)
    data = json.loads((tmp_path / "results.json").read_text())
    (cells,) = data["accuracy"].values()
    assert [cell["method"] for cell in cells] == ["dense", "CP", "CP-EPC", "SVD"]
    assert all(cell["flops"] <= 0.5 for cell in cells[1:])
    assert all(len(cell["after"]) == 1 and 0 <= cell["before_agreement"] <= 1 for cell in cells)
    assert [one["variant"] for one in data["stability"]] == ["CP", "CP-EPC"] * 4  # learning rates
    assert sorted(data["missing"]) == ["googlenet", "resnet32", "resnet8", "tinydarknet"]
    text = (tmp_path / "results.md").read_text()
    assert "## Accuracy against FLOP: resnet20" in text and "## Stability" in text and "## Published, on ImageNet" in text
    assert "googlenet: not run, its files are not there" in text
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    again = reproduce("stable-cpd", data=folder, out=tmp_path, quick=True)
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == before


def test_the_picture_is_whole(folder: Path) -> None:
    dense = accuracy.Cell("net", "dense", 1.0, "", 1.0, 1.0, 0.9, 1.0, (0.91,), (0.99,))
    one = accuracy.Cell("net", "CP <3", 0.5, "output", 0.49, 0.4, 0.5, 0.6, (0.8, 0.82), (0.8, 0.8))
    failed = accuracy.Cell("net", "SVD", 0.1, "output", note="out of reach")
    root = ET.fromstring(picture([dense, one, dataclasses.replace(one, budget=0.3, flops=0.3), failed]))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "net: top-1 accuracy against FLOP" in texts and "CP <3" in texts and "SVD" not in texts
    lines = [element.get("points", "") for element in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(line.split()) for line in lines] == [2, 2]


def test_correction_keeps_the_error_and_lowers_the_sensitivity(small_case: Case) -> None:
    name, conv = stability.spatial(small_case.model)[0]
    plain = tenfold.compress(small_case.model, {name: PlainCP(rank=20)})
    better = correct(plain, small_case.model, slack=1.01, sweeps=30)
    errors = [
        float((torch.as_tensor(model.get_submodule(name).weight) - conv.weight).norm().detach() / conv.weight.norm().detach())
        for model in (plain, better)
    ]
    assert errors[0] < errors[1] <= 1.01 * errors[0] * (1 + 1e-4)
    eigenvalues = [diagnose(model)[0].largest_eigenvalue for model in (plain, better)]
    assert eigenvalues[1] < eigenvalues[0]


def test_a_loss_that_is_not_finite_is_a_result(small_case: Case) -> None:
    effort = dataclasses.replace(stability.QUICK, lrs=(1e30,))
    found = stability.trials(small_case, Request(seeds=(0,)), effort)
    assert [(one.after, one.is_stable) for one in found] == [(None, False)] * 2
    assert stability.table(found, effort).rows[0][-4:] == ("not finite", "not finite", "0 of 1", "0 of 1")


def test_the_largest_step_is_that_of_a_diagnosis() -> None:
    trials = [
        stability.Trial("resnet8", 0.5, variant, 1e-3, 0, 0.1, value, 0.5) for variant, value in zip(("CP", "CP-EPC"), (8, 4), strict=True)
    ]
    made = stability.table(trials, stability.QUICK)
    found = dict(zip(made.columns, made.rows[0], strict=True))
    assert [found[f"{name} largest step"] for name in ("CP", "CP-EPC")] == ["0.12", "0.25"] == [f"{stable_step(v):.2g}" for v in (8, 4)]


def test_a_budget_out_of_reach_is_a_note(small_case: Case) -> None:
    effort = dataclasses.replace(accuracy.QUICK, budgets=(0.001,), methods=("SVD",))
    found = accuracy.cells(small_case, Request(seeds=(0,)), effort)
    assert found[0].after and found[1].before is None
    assert "0.001" in found[1].note
    table = accuracy.table(found, effort)
    assert table.rows[1][5] == "none" and found[1].note in table.notes[-1]


def test_published_rows_say_what_is_known_of_them() -> None:
    states = [row[-1] for row in published.ROWS]
    assert [state.startswith("confirmed") for state in states].count(True) == 1
    assert all(state == "unconfirmed" or "4.93" in row for state, row in zip(states, published.ROWS, strict=True))


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the parts vgg are asked for; some of accuracy, stability, resnet20, .* are needed: choose among"):
        reproduce("stable-cpd", data=tmp_path, only=("vgg",))
    with pytest.raises(ValueError, match=r"the budgets are \[1.5\]; fractions between 0 and 1 are needed"):
        reproduce("stable-cpd", data=tmp_path, budgets=(1.5,))
    with pytest.raises(ValueError, match=r"the seeds are \(\); at least one is needed, all from 0"):
        reproduce("stable-cpd", data=tmp_path, seeds=())
    with pytest.raises(ValueError, match="kcp got budgets; it trains formats of given ranks and needs none: leave --budgets out"):
        reproduce("kcp", data=tmp_path, budgets=(0.5,))
