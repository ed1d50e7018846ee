"""The search for a loss of accuracy: it finds the threshold with few fine-tunings, goes on where it was stopped, and refuses what is unsound."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

import tenfold
from tenfold import SVD, Budget, Plan, search
from tenfold.ranks import bisection, latency
from tenfold.ranks import search as module

pytestmark = pytest.mark.filterwarnings("ignore:cp_als .* did not converge", "ignore:cp_als .* is degenerate")


def samples(n: int, seed: int) -> TensorDataset:
    x = torch.randn(n, 24, generator=torch.Generator().manual_seed(seed))
    mixed = torch.randn(24, 12, generator=torch.Generator().manual_seed(7)) * (0.9 ** torch.arange(24.0))[:, None]
    return TensorDataset(x, (x @ mixed).argmax(1))


TRAINING, VALIDATION = samples(2000, 0), samples(1000, 1)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A network that knows its task, which needs about 12 directions of different weight."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(24, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 12))
        tenfold.finetune(made, TRAINING, epochs=12, lr=3e-3, batch_size=100)
    return made


def accuracy(model: nn.Module) -> float:
    found = tenfold.evaluate(model, VALIDATION).accuracy
    assert found is not None
    return found


def uses(found: Any) -> list[Any]:
    return [one.format for one in found.plan.layers]


def searched(model: nn.Module, budget: Any = "accuracy_drop=1,smallest=params", **changes: Any) -> Any:
    given = {"validation": VALIDATION, "calibration": TRAINING, "format": SVD(), **changes}
    return search(model, budget, **given)


def test_without_training_the_smallest_place_inside_is_found(model: nn.Module):
    before = [p.clone() for p in model.parameters()]
    found = searched(model)
    assert found.best is not None and found.best.drop <= 1 < found.trials[0].drop
    assert found.best.params < 0.5 and found.plan.params_after == found.best.params * found.plan.params_before
    assert 100 * (accuracy(model) - accuracy(found.model)) == pytest.approx(found.best.drop)
    limits = {round(one.limit / 0.02): one for one in found.trials}
    assert not limits[round(found.best.limit / 0.02) - 1].is_inside  # the next smaller one was tried, too
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_fine_tuning_goes_further_down_and_few_trials_are_tuned(model: nn.Module):
    calls: list[int] = []

    def tune(small: nn.Module, checkpoint: Path | None, progress: Any) -> Any:
        calls.append(1)
        return tenfold.finetune(small, TRAINING, teacher=model, batch_size=100, lr=3e-3, epochs=4)

    one_shot, found = searched(model), searched(model, finetune=tune)
    assert found.best.params < one_shot.best.params and found.best.tuned is not None and found.history is not None
    assert 100 * (accuracy(model) - accuracy(found.model)) == pytest.approx(found.best.drop) and found.best.drop <= 1
    assert len(calls) == sum(one.tuned is not None for one in found.trials)
    assert len(calls) < len(found.trials), str(found)
    assert "points lost from" in str(found) and str(found).count("\n") == len(found.trials) + 1


def test_fractions_beside_the_loss_are_limits(model: nn.Module):
    free, found = (searched(model, Budget(accuracy_drop=1, smallest="bytes", params=most)) for most in (None, 0.485))
    assert max(one.params for one in free.trials) > 0.485 >= max(one.params for one in found.trials), "the limit binds"
    assert found.best is not None and found.best.drop <= 1
    tight = searched(model, "accuracy_drop=1,smallest=params,params=0.1")  # within 0.1 of the parameters one point is not enough
    assert tight.best is None and tight.trials and all(one.limit <= 0.1 for one in tight.trials)
    assert "nothing that was tried stays inside" in str(tight)
    assert all(one.format is None for one in tight.plan.layers) and accuracy(tight.model) == accuracy(model)


def test_where_nothing_gets_smaller_the_reason_is_told(model: nn.Module):
    words = "no plan for accuracy_drop=1.0.* keeps less of the flops: .* is flops=1; layers so small .*; or search .* add smallest=params$"
    with pytest.raises(ValueError, match=words):
        searched(model, "accuracy_drop=1")  # so small matrices run as their dense kernels


@pytest.mark.parametrize("fastest", [200_000, 0], ids=["some are fast", "none is"])
def test_times_are_looked_at_unless_all_is_slower(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, fastest: int):
    monkeypatch.setattr(
        latency,
        "measured_speedups",
        lambda _, picked, __: {(name, one): 2.0 if one.flops < fastest else 0.5 for name, one in picked.items()},
    )
    wide = nn.Sequential(nn.Linear(24, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 12))
    found = searched(wide, "accuracy_drop=99")
    rows = [row for row in found.plan.layers if row.format is not None]
    assert rows and all(row.flops_after < 200_000 for row in rows if fastest)
    assert [str(one.message).startswith("all that could be chosen runs slower than dense here") for one in recwarn] == [True] * (
        not fastest
    )


@pytest.mark.filterwarnings("ignore:0 could not be decomposed as SVD")
def test_a_layer_that_cannot_be_decomposed_saves_nothing(model: nn.Module, monkeypatch: pytest.MonkeyPatch):
    decomposing = sys.modules["tenfold.decompose"]
    decompose = decomposing.decompose

    def failing(*args: Any, names: list[str], **kwargs: Any) -> Any:
        if "0" in names:
            raise RuntimeError("linalg.eigh: failed to converge")
        return decompose(*args, names=names, **kwargs)

    monkeypatch.setattr(decomposing, "decompose", failing)
    found = searched(model)
    rows = {row.name: row for row in found.plan.layers}
    assert rows["0"].format is None and rows["0"].reason == "it could not be decomposed"
    assert rows["2"].format is not None and found.best is not None
    n_kept = sum(p.numel() for p in found.model.parameters())
    assert n_kept == found.plan.params_after == pytest.approx(found.best.params * found.plan.params_before)


class Stopped(Exception):
    pass


OPTIONS: dict[str, Any] = {"data": TRAINING, "finetune": {"epochs": 1, "batch_size": 100, "lr": 1e-3, "save_every": 5}}


@pytest.fixture(scope="module")
def whole(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search that nothing stopped."""
    return searched(model, folder=tmp_path_factory.mktemp("whole"), **OPTIONS)


@pytest.mark.parametrize("moment", ["while it is fine-tuned", "after the model is written", "between trials"])
def test_a_killed_search_goes_on_and_ends_the_same(
    model: nn.Module, whole: Any, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train, save, count = module.train, bisection.save, 0

    def stop(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if moment == "while it is fine-tuned" and count == 2:

            def kill(what: str, done: int, total: int) -> None:
                if what == "fine-tuning" and done == 17:
                    raise Stopped

            return train(*args, **{**kwargs, "progress": kill})
        if moment == "between trials" and count == 2:
            raise Stopped
        return train(*args, **kwargs)

    def stop_saving(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        if moment == "after the model is written":
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(module, "train", stop)
        patched.setattr(bisection, "save", stop_saving)
        with pytest.raises(Stopped):
            searched(model, folder=tmp_path / "part", **OPTIONS)
    assert (tmp_path / "part/search.json").exists()
    resumed = searched(model, folder=tmp_path / "part", **OPTIONS)
    assert resumed.trials == whole.trials and resumed.best == whole.best and uses(resumed) == uses(whole)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == ["best.safetensors", "search.json"]


def test_a_killed_trial_goes_on_with_its_plan_where_times_have_changed(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow: set[str] = set()
    monkeypatch.setattr(
        latency, "measured_speedups", lambda _, picked, __: {(name, one): 0.5 if name in slow else 2.0 for name, one in picked.items()}
    )

    def kill(what: str, done: int, total: int) -> None:
        if "fine-tuning" in what and done == 17:
            raise Stopped

    settings = {"latency": "measured", "tunings": 1, **OPTIONS}
    expected = searched(model, folder=tmp_path / "whole", **settings)
    with pytest.raises(Stopped):
        searched(model, folder=tmp_path / "part", progress=kill, **settings)
    slow.add("2")
    resumed = searched(model, folder=tmp_path / "part", **settings)
    assert resumed.trials == expected.trials and uses(resumed) == uses(expected)
    assert any(one.tuned is not None and "2 SVD" in one.plan for one in resumed.trials)


def test_a_finished_search_is_read_not_made_again(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = searched(model, folder=tmp_path)
    monkeypatch.setattr(module, "compress", lambda *_, **__: pytest.fail("made again"))
    again = searched(model, folder=tmp_path)
    assert again.trials == first.trials and accuracy(again.model) == accuracy(first.model)
    assert [one.format for one in again.plan.layers] == [one.format for one in first.plan.layers]


def test_a_folder_of_another_search_or_a_damaged_one_is_refused(model: nn.Module, tmp_path: Path):
    searched(model, folder=tmp_path)
    with pytest.raises(
        ValueError, match=r"search.json is of a search with budget = accuracy_drop=1.0,smallest=params, but this one has .*=2.0"
    ):
        searched(model, "accuracy_drop=2,smallest=params", folder=tmp_path)
    with pytest.raises(ValueError, match=r"with model = Sequential .*, but this one has Linear .*; to go on all settings must be the same"):
        searched(nn.Linear(24, 4), folder=tmp_path)
    with pytest.raises(ValueError, match=r"with inputs = \[\(32, 24\)\], but this one has \[\(3, 24\)\]"):
        searched(model, inputs=torch.zeros(3, 24), folder=tmp_path)
    data = json.loads((tmp_path / "search.json").read_text())
    (tmp_path / "search.json").write_text(json.dumps({**data, "version": 99}))
    with pytest.raises(ValueError, match="search.json is of version 99; 1 is needed: delete it, or give another folder"):
        searched(model, folder=tmp_path)
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(ValueError, match=r"search.json cannot be read .*; a whole file of a search is needed: delete it"):
        searched(model, folder=tmp_path)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("budget", "changes", "message"),
    [
        ("flops=0.5", {}, "the budget flops=0.5 has no accuracy_drop; a search needs the points that may be lost"),
        ("accuracy_drop=1", {"validation": None}, "comes without validation data; a loss of accuracy has to be measured: give validation="),
        ("accuracy_drop=1", {"data": VALIDATION}, "the validation data share 1000 rows of the same data set with the data of the fine"),
        ("accuracy_drop=1", {"data": Subset(VALIDATION, [5, 6])}, "share 2 rows of the same data set"),
        ("accuracy_drop=1", {"finetune": {"epochs": 1}}, "finetune= comes without data=; training data are needed to fine-tune: give"),
        ("accuracy_drop=1", {"resolution": 0}, "resolution is 0 and tunings 8; 0.001 to 0.5 and at least 1 are needed"),
        ("accuracy_drop=1", {"calibration": None}, "counts FLOP, which needs an example input: give inputs="),
        (
            "accuracy_drop=1",
            {"validation": (torch.randn(8, 24), torch.randn(8, 12))},
            r"the validation data have targets without classes; accuracy_drop=1.0 needs class numbers: give a budget of fractions",
        ),
    ],
)
def test_what_is_unsound_is_refused(model: nn.Module, budget: str, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        searched(model, budget, **changes)


def test_the_plan_of_the_best_trial_is_one_that_compress_takes(model: nn.Module, tmp_path: Path):
    found = searched(model, folder=tmp_path)
    plan = Plan.parse(found.plan.to_text())
    again = tenfold.compress(model, plan, calibration=TRAINING)
    assert accuracy(again) == accuracy(found.model)
