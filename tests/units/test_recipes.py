"""Recipes: found by being there, described, and what is said where they cannot run."""

import inspect
from pathlib import Path

import pytest

import tenfold.recipes
from tenfold.recipes.options import Options


def test_a_recipe_is_a_file_with_a_function_run() -> None:
    folder = Path(tenfold.recipes.__file__).parent
    texts = [(path.stem, path.read_text("utf-8")) for path in folder.rglob("*.py")]
    files = sorted(name for name, text in texts if "\nTAKES = " in text and "\ndef run(options: Options) -> " in text)
    assert tenfold.recipes.names() == tuple(name.replace("_", "-") for name in files)
    assert {"clips-lstm", "speech-gru", "ucf11-lstm", "ucf50-lstm", "ytc-lstm", "series-lstm", "charlm-lstm"} < set(tenfold.recipes.names())


@pytest.mark.parametrize("name", tenfold.recipes.names())
def test_every_recipe_says_what_it_is(name: str) -> None:
    recipe = tenfold.recipes.recipe(name)
    text = inspect.getdoc(recipe) or ""
    assert text.startswith(f"{name}: ")
    assert f"Command: tenfold train {name} --data" in text
    assert all(part in text for part in ("Source", "Protocol", "Expected"))
    assert any(word in text for word in ("confirm", "published", "measured"))
    assert recipe.DATA


def test_the_two_protocols_of_ucf11_are_named() -> None:
    text = " ".join((tenfold.recipes.recipe("ucf11-lstm").__doc__ or "").split())
    assert "tt-rnn all frames" in text
    assert "bt-rnn 6 random frames" in text


def test_an_unknown_recipe() -> None:
    with pytest.raises(ValueError, match=r"there is no recipe 'ucf12-lstm'; one of charlm-lstm, .* is needed: choose one of them"):
        tenfold.recipes.train("ucf12-lstm")
    with pytest.raises(ValueError, match="there is no recipe 'training'"):
        tenfold.recipes.recipe("training")


def test_an_unknown_choice() -> None:
    with pytest.raises(ValueError, match="train got learning_rate; the choices are data, .*lr.*: use one of them"):
        tenfold.recipes.train("clips-lstm", learning_rate=0.1)


@pytest.mark.parametrize("name", tenfold.recipes.names())
def test_data_that_are_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"the data .*nowhere do not exist; .* is needed: check the path"):
        tenfold.recipes.train(name, data=tmp_path / "nowhere")
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"does not hold the data; .* is needed in it: give another folder, or the path itself"):
        tenfold.recipes.train(name)
    monkeypatch.delenv("TENFOLD_DATA")
    with pytest.raises(ValueError, match=r"no data are given; .* is needed: give its path"):
        tenfold.recipes.train(name)


def test_options_find_the_data_below_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "speech" / "digits.npz"
    place.parent.mkdir()
    place.touch()
    names = ("other/digits.npz", "speech/digits.npz")
    assert Options(data=tmp_path).find(names) == place
    assert Options(data=place).find(names) == place
    assert Options(data=place.parent).find(names, is_folder=True) == place.parent
    with pytest.raises(ValueError, match="the folder .*speech does not hold the data; other/digits.npz or speech/digits.npz is needed"):
        Options(data=place.parent).find(names)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"epochs": 0}, r"the recipe got \{'epochs': 0\}; each needs to be at least 1"),
        ({"lr": 2.0}, r"the recipe got \{'lr': 2.0\}; a learning rate between 0 and 1 is needed"),
        ({"dense_lr": float("nan")}, "a learning rate between 0 and 1 is needed"),
        ({"temperature": 0.0}, r"the recipe got the temperature 0.0; it needs a finite number above 0: leave it out"),
        ({"precision": "half"}, r"the recipe got the precision 'half'; one of auto, float32, bfloat16 is needed: choose one"),
        ({"seeds": ()}, r"the seeds are \(\); at least one is needed"),
        ({"seeds": (1, 1)}, r"the seeds are \(1, 1\); at least one is needed, all different"),
        ({"seeds": (-1,)}, r"the seeds are \(-1,\)"),
    ],
)
def test_choices_out_of_range(choices: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**choices)
