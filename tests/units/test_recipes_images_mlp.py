"""The recipes on images: the table with its controls, kept runs, protocols, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_cases import write_images

from tenfold.data.images import Images, read_images
from tenfold.recipes import run as run_recipe
from tenfold.recipes.images import fashion_mlp, mnist_mlp
from tenfold.recipes.images.mlp import CHOICES, ImageMlp, Mlp, parts
from tenfold.recipes.images.rank_runs import AUTOMATIC, FIXED, NULL, RankRun
from tenfold.recipes.images.rank_table import rank_table
from tenfold.recipes.images.task import ImageTask, shifted
from tenfold.recipes.options import DENSE, Options


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_a_recipe_has_its_controls_and_keeps_its_runs(tmp_path: Path) -> None:
    options = Options(
        data=write_images(tmp_path),
        formats=("cp:rank=4",),
        seeds=(3,),
        epochs=10,
        batch_size=40,
        lr=1e-2,
        temperature=0.5,
        out=tmp_path / "out",
    )
    result = run_recipe("mnist-mlp", options)
    data = result.data()
    assert [(row["format"], row["way"]) for row in data["rows"]] == [
        (DENSE, DENSE), ("cp:rank=4", AUTOMATIC), ("cp:rank=4", FIXED), ("cp:rank=4", NULL)
    ]  # fmt: skip
    dense, automatic, fixed, null = data["runs"]
    assert dense["weights"] == 784 * 512 + 512 * 10 and dense["parameters"] == 407_050
    assert dense["test"]["accuracy"] == 1.0 and automatic["test"]["accuracy"] > 0.7
    assert automatic["sampled"]["accuracy"] > 0.7 and fixed["sampled"] is None
    assert fixed["ranks"] == automatic["ranks"] and fixed["weights"] == automatic["weights"]
    assert null["test"] is None and sorted(null["ranks"]) == ["first", "second"]
    assert "Null model (the same search without data)" in " ".join(result.notes())
    assert json.loads((tmp_path / "out" / "mnist-mlp.json").read_text()) == json.loads(json.dumps(data))
    seen: list[str] = []
    again = run_recipe("mnist-mlp", dataclasses.replace(options, progress=lambda label, *_: seen.append(label)))
    assert not seen and again.data() == data
    assert str(again).startswith("## mnist-mlp")


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning", "ignore:precision is 'bfloat16':UserWarning")
def test_the_recipe_takes_a_precision(tmp_path: Path) -> None:
    options = Options(data=write_images(tmp_path), formats=("cp:rank=4",), seeds=(0,), epochs=1, batch_size=40, precision="bfloat16")
    assert run_recipe("mnist-mlp", options).data()["settings"]["precision"] == "bfloat16"


class Stopped(Exception):
    pass


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_a_recipe_that_is_stopped_goes_on_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    """Stopped when the ranks are found, before the test: no step is repeated, and the numbers are the same."""

    def stop(label: str, done: int, total: int) -> None:
        if AUTOMATIC in label and done == total:
            raise Stopped

    seen: list[str] = []
    whole = Options(data=write_images(tmp_path), formats=("cp:rank=4",), seeds=(3,), epochs=2, batch_size=40, out=tmp_path / "whole")
    killed = dataclasses.replace(whole, out=tmp_path / "killed")
    with pytest.raises(Stopped):
        run_recipe("mnist-mlp", dataclasses.replace(killed, progress=stop))
    (checkpoint,) = (tmp_path / "killed" / "runs").glob("*.ckpt")
    assert checkpoint.name.startswith("mnist-mlp-cp-rank-4-automatic-seed3-")
    again, first = (
        run_recipe("mnist-mlp", options).data()["runs"]
        for options in (dataclasses.replace(killed, progress=lambda label, *_: seen.append(label)), whole)
    )
    assert seen and not any(AUTOMATIC in label for label in seen)
    assert [{**run, "seconds": 0} for run in again] == [{**run, "seconds": 0} for run in first]
    assert not list(tmp_path.rglob("*.ckpt"))


def test_runs_of_other_images_of_the_same_number_are_other_runs(tmp_path: Path) -> None:
    options = Options(formats=(), seeds=(0,), epochs=1, batch_size=40, out=tmp_path / "out")
    for name, value in (("a", 0), ("b", 255)):
        images = torch.full((50, 28, 28), value, dtype=torch.uint8).numpy()
        labels = torch.arange(50).remainder(10).numpy()
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "images.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        run_recipe("mnist-mlp", dataclasses.replace(options, data=tmp_path / name / "images.npz"))
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


@pytest.mark.parametrize("recipe, has_norm", [(mnist_mlp, False), (fashion_mlp, True)], ids=["mnist", "fashion"])
def test_start_ranks_are_what_the_modes_say(recipe: Any, has_norm: bool) -> None:
    """Every format of the recipe builds, and has fewer weights than dense."""
    dense = sum(p.numel() for p in Mlp(DENSE, DENSE, 0.0, has_norm).parameters())
    assert dense == 407_050 + has_norm * 2 * 512
    for start in recipe.FORMATS.values():
        model = Mlp(start.first, start.second, 0.0, has_norm)
        assert model(torch.randn(2, 784)).shape == (2, 10)
        assert sum(p.numel() for p in model.parameters()) < dense / 10
    assert recipe.FORMATS["ttm"].first.endswith("in=4x7x4x7,out=4x4x8x4") and recipe.TAKES == CHOICES


def test_the_activation_stands_between_the_layers() -> None:
    x = torch.randn(5, 784)
    with torch.no_grad():
        for activation in (torch.relu, torch.abs):
            model = Mlp(DENSE, DENSE, 0.5, False, activation).eval()
            torch.testing.assert_close(model(x), model.second(activation(model.first(x))))


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_the_second_layer_of_fashion_mlp_stays_dense_and_is_not_counted(tmp_path: Path) -> None:
    options = Options(data=write_images(tmp_path), formats=("cp:rank=4",), seeds=(0,), epochs=1, batch_size=40)
    result = run_recipe("fashion-mlp", options)
    assert "BatchNorm, abs" in str(result.data()["settings"])
    dense, automatic, *_ = result.data()["runs"]
    assert dense["weights"] == dense["dense_weights"] == automatic["dense_weights"] == 784 * 512
    assert list(automatic["ranks"]) == ["first"] and automatic["parameters"] == automatic["weights"] + 3 * 512 + 5_130


def test_validation_tests_on_training_images_that_are_left_out(tmp_path: Path) -> None:
    train, test = read_images(write_images(tmp_path, 5100, 20))
    assert parts(train, test, "test") == (train, test)
    rest, held_out = parts(train, test, "validation")
    assert (len(rest), len(held_out)) == (100, 5000)
    assert torch.equal(torch.cat([rest.labels, held_out.labels]), train.labels)


def test_batches_follow_from_seed_and_epoch() -> None:
    images = Images(torch.randint(0, 256, (25, 1, 6, 6), dtype=torch.uint8), torch.arange(25))
    task = ImageTask(images, *images.moments(), 10, is_flat=True)
    batches = list(task.batches(1, 0))
    assert task.n_steps == len(batches) == 2 and batches[0][0].shape == (10, 36)
    assert torch.equal(batches[0][1], next(task.batches(1, 0))[1])
    assert not torch.equal(batches[0][1], next(task.batches(1, 1))[1])
    inputs = task.inputs(images.pixels)
    assert abs(float(inputs.mean())) < 1e-5 and abs(float(inputs.std()) - 1) < 1e-2
    torch.testing.assert_close(task.second_moment(), inputs.T @ inputs / 25)


def test_shifts_move_whole_images() -> None:
    """A single bright pixel stays one or leaves; with no reach images are at most mirrored."""
    pixels = torch.zeros(40, 3, 9, 9, dtype=torch.uint8)
    pixels[:, :, 4, 4] = 200
    moved = shifted(pixels, torch.Generator().manual_seed(0), reach=3)
    assert moved.dtype == torch.uint8 and torch.equal(moved.flatten(2).long().sum(2), torch.full((40, 3), 200))
    places = moved[:, 0].flatten(1).long().argmax(1)
    assert len(places.unique()) > 10 and set((places // 9).tolist()) <= set(range(1, 8))
    still = torch.randint(0, 256, (30, 2, 5, 4), dtype=torch.uint8)
    found = shifted(still, torch.Generator().manual_seed(1), reach=0)
    is_same, is_mirrored = ((found == one).flatten(1).all(1) for one in (still, still.flip(3)))
    assert bool((is_same | is_mirrored).all()) and is_same.any() and is_mirrored.any()


def test_a_removed_layer_and_ranks_that_still_change_are_said() -> None:
    runs = [RankRun("ttm", AUTOMATIC, seed, None, None, 0, 100, 7, {"first": {"r1": 0}}, False, ("first",), 10, 1.0) for seed in (0, 1)]
    table = rank_table("tiny", runs, {})
    assert table.cells()[0] == ("ttm", "automatic", "-", "-", "-", "-", "-", "0", "-", "15.3x", "removed")
    assert "Ranks still changed in the last evaluations before the decision: ttm (seed 0), ttm (seed 1)." in table.notes()
    assert table.values["rows"][0]["removed"] == [0, 1]


@pytest.mark.parametrize(
    ("n_kept", "said"),
    [
        (0, "everything removed in 2 of 2 runs, as it should be."),
        (1, "everything removed in 1 of 2 runs, but it should be in all: what it keeps says nothing about the data."),
    ],
)
def test_a_null_model_that_keeps_ranks_is_not_called_right(n_kept: int, said: str) -> None:
    gone = [("first",)] * (2 - n_kept) + [()] * n_kept
    runs = [RankRun("ttm", NULL, 0, None, None, 0, 100, 7, {"first": {"r1": 1}}, True, removed, 10, 1.0) for removed in gone]
    assert f"Null model (the same search without data): {said}" in rank_table("tiny", runs, {}).notes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "six"}, "there is no protocol 'six' for mnist-mlp; one of test, validation is needed: choose one of them"),
        ({"formats": ("ttm:rank=2,in=3x3,out=4x4",)}, "product 16, which does not fit its size 512"),
        ({"formats": ("mtt",)}, "'mtt' is no format"),
        ({"hidden": 3}, "mnist-mlp got hidden, which it does not take; its choices are batch_size, data, dense, "),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    options = Options(data=write_images(tmp_path), **changes)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        run_recipe("mnist-mlp", options)


@pytest.mark.parametrize(("part", "label"), [("y_train", 10), ("y_test", 12), ("y_train", -1)])
def test_labels_of_other_classes_are_refused_before_any_training(tmp_path: Path, part: str, label: int) -> None:
    place = write_images(tmp_path, 40, 20)
    arrays = dict(np.load(place))
    arrays[part][3] = label
    np.savez(place, **arrays)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=rf"the labels run from {min(0, label)} to {max(9, label)}; these networks tell 10 classes apart"):
        run_recipe("mnist-mlp", Options(data=place, formats=("cp:rank=4",), seeds=(0,), epochs=1, batch_size=10))


def test_validation_needs_more_images_than_it_keeps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there are 400 training images, of which 'validation' keeps 5000 for the test; it needs more"):
        run_recipe("mnist-mlp", Options(data=write_images(tmp_path), protocol="validation"))


def test_other_images_are_refused(tmp_path: Path) -> None:
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "mnist.npz", **{name: np.zeros((4, 8, 8) if name[0] == "x" else 4, np.uint8) for name in names})  # pyright: ignore
    with pytest.raises(ValueError, match="the images of .* have 64 values; 28 x 28 of one channel are needed: resize them"):
        ImageMlp("mnist-mlp", mnist_mlp.DATA, mnist_mlp.TRAINING, 0.0, mnist_mlp.FORMATS).run(Options(data=tmp_path))
