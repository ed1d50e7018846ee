"""tenfold reproduce bayesian-ranks: the counts, what is trained on the data that are there, and what is refused."""

import json
from pathlib import Path

import pytest
from image_cases import write_images

from tenfold.recipes import names
from tenfold.recipes.papers.bayesian_counts import BOTTOM, DENSE, ROWS, TOP, perceptron
from tenfold.recipes.papers.bayesian_ranks import IMAGES, LONG, RECOMMENDATION, options
from tenfold.recipes.reproduce import reproduce
from tenfold.recipes.reproduction import Request


def test_counts_of_the_released_rank_lists() -> None:
    assert [row.weights for row in ROWS] == [
        1_141_597, 1_130_048, 1_135_752, 1_131_212, 563_839, 570_685, 199_504, 163_976, 153_582, 159_529, 666_535, 1_131_212
    ]  # fmt: skip
    assert [round(row.ratio) for row in ROWS[4:11]] == [7_535, 7_445, 21_297, 25_911, 27_664, 26_633, 6_374]
    assert DENSE == 4_248_739_968 and perceptron(BOTTOM) + perceptron(TOP) == 614_529


def test_end_to_end_the_model_shrinks_59_fold() -> None:
    """4.322e9 weights to 7.36e7: the other 21 tables stay dense."""
    row = next(row for row in ROWS if row.published)
    assert (row.format, row.prior, row.published) == ("TTM", "half-Cauchy", "1.6e5 weights")
    assert round(row.model_ratio) == 59
    assert row.cells() == ("TTM", "half-Cauchy", "16,2 16,2 16,1 16,1 16,2", "163,976", "25,911x", "58.7x", "1.6e5 weights")


def test_without_data_there_are_the_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    found = reproduce("bayesian-ranks")
    assert [one.title for one in found.tables()] == ["Weights of the five tables of Criteo Kaggle"]
    notes = " ".join(found.notes())
    assert "mnist-mlp: not trained, its data are not there (mnist/mnist.npz or mnist.npz)." in notes
    assert "the same prior without data" in notes and "hashed tables of equal size" in notes
    assert "| TTM | half-Cauchy | 16,2 16,2 16,1 16,1 16,2 | 163,976 |" in found.markdown()
    assert len(found.data()["counts"]) == 12 and found.data()["results"] == []


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_what_is_there_is_trained(tmp_path: Path) -> None:
    write_images(tmp_path / "data")
    found = reproduce("bayesian-ranks", data=tmp_path / "data", out=tmp_path / "out", quick=True, only=["mnist-mlp"])
    assert [one.title for one in found.tables()][1:] == ["mnist-mlp"]
    rows = found.data()["results"][0]["rows"]
    assert [row["way"] for row in rows][:2] == ["dense", "automatic"] and rows[-1]["way"] == "null"
    assert found.notes()[-1] == "--quick: these accuracies say that everything works, nothing more"
    assert json.loads((tmp_path / "out" / "results.json").read_text())["paper"] == "bayesian-ranks"
    assert "## mnist-mlp" in (tmp_path / "out" / "results.md").read_text()


def test_long_ones_are_trained_only_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "train_jpg.npz").touch()
    found = reproduce("bayesian-ranks", data=tmp_path)
    assert "cifar-resnet: not trained, it takes hours without a GPU: ask for it with --only cifar-resnet." in found.notes()
    with pytest.raises(ValueError, match="there is no test file beside"):
        reproduce("bayesian-ranks", data=tmp_path, only=["cifar-resnet"])


def test_quick_is_one_seed_and_one_epoch() -> None:
    request = Request(seeds=(4, 5), is_quick=True)
    assert {*IMAGES, *LONG} <= set(names())
    for name in (*IMAGES, *RECOMMENDATION):
        made = options(request, name)
        assert made.seeds == (4,) and made.epochs == 1
        assert (made.formats is None) == (name in RECOMMENDATION)
    assert options(Request(seeds=(4, 5)), "mnist-mlp").seeds == (4, 5)


def test_what_is_refused() -> None:
    with pytest.raises(
        ValueError, match="bayesian-ranks got budgets; its ranks are found by training and it needs none: leave --budgets out"
    ):
        reproduce("bayesian-ranks", budgets=[0.5])
    with pytest.raises(ValueError, match="the parts kcp are asked for; some of mnist-mlp, fashion-mlp, .* are needed: choose among them"):
        reproduce("bayesian-ranks", only=["kcp"])
