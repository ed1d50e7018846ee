"""Experiments: all formats alike, finished runs kept, interrupted ones continued, other settings run anew."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tenfold.recipes.options import Options
from tenfold.recipes.sequences.experiment import Experiment, Fold
from tenfold.recipes.sequences.models import Rnn, SequenceClassifier
from tenfold.recipes.sequences.training import Training

FORMATS = ("kcp:rank=2,in=3x4,out=2x4", "svd:rank=2")


def folds(seed: int) -> list[Fold]:
    """Two folds of sequences whose class is the sign of their mean."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(60, 5, 12, generator=generator)
    targets = (inputs.mean((1, 2)) > 0).long()
    cuts = (slice(0, 40), slice(40, 60)), (slice(20, 60), slice(0, 20))
    return [lambda one=one, two=two: ((inputs[one], targets[one]), (inputs[two], targets[two])) for one, two in cuts]


EXPERIMENT = Experiment(
    name="tiny",
    protocol="two folds",
    data="60 sequences",
    rnn=Rnn("LSTM", 12, 8),
    head=lambda rnn: SequenceClassifier(rnn, 8, 2),
    folds=folds,
    formats=FORMATS,
    training=Training(epochs=3, batch_size=10, lr=2e-2, dense_lr=1e-2),
)


def files(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}


def test_all_formats_seeds_and_folds_are_run_alike(tmp_path: Path) -> None:
    result = EXPERIMENT.run(Options(turns=3, seeds=(0, 1), out=tmp_path))
    assert [row.format for row in result.rows] == ["dense", *FORMATS]
    assert len(result.runs) == 3 * 2 * 2
    assert {(run.n_steps, run.n_test) for run in result.runs} == {(3 * 4, 20)}
    dense, kcp, svd = result.rows
    assert (dense.map_parameters, kcp.map_parameters, svd.map_parameters) == (32 * 12, 2 * (2 * 3 * 4 + 4 * 4), 2 * (32 + 12))
    head = 8 * 2 + 2
    assert [row.model_parameters for row in result.rows] == [row.map_parameters + 32 * 8 + 64 + head for row in result.rows]
    assert kcp.map_ratio == pytest.approx(384 / 80)
    assert kcp.model_ratio == pytest.approx(dense.model_parameters / kcp.model_parameters)
    assert all(row.cost.flops > 0 and row.cost.seconds > 0 and row.cost.peak_bytes > 0 for row in result.rows)
    assert json.loads((tmp_path / "tiny.json").read_text())["settings"]["lr"] == 2e-2
    assert (tmp_path / "tiny.md").read_text() == result.markdown()
    assert not list(tmp_path.rglob("*.ckpt"))


def test_finished_runs_are_not_repeated_and_others_are(tmp_path: Path) -> None:
    options = Options(turns=3, seeds=(0,), out=tmp_path)
    first = EXPERIMENT.run(options)
    before = files(tmp_path)
    assert EXPERIMENT.run(options) == first
    assert files(tmp_path) == before
    more = EXPERIMENT.run(dataclasses.replace(options, seeds=(0, 1)))
    assert more.runs[:6] == first.runs
    assert len(files(tmp_path)) == len(before) + 6
    other = EXPERIMENT.run(dataclasses.replace(options, lr=1e-2))
    assert [run for run in other.runs if run.format == "dense"] == [run for run in first.runs if run.format == "dense"]
    assert [run.loss for run in other.runs if run.format == FORMATS[0]] != [run.loss for run in first.runs if run.format == FORMATS[0]]


def test_an_interrupted_run_goes_on_and_ends_alike(tmp_path: Path) -> None:
    options = Options(turns=3, seeds=(0,), has_dense_twin=False, folds=1, formats=FORMATS[:1])
    whole = EXPERIMENT.run(options)

    def stop(what: str, done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EXPERIMENT.run(dataclasses.replace(options, out=tmp_path, progress=stop))
    assert [path.suffix for path in (tmp_path / "runs").iterdir()] == [".ckpt"]
    steps: list[int] = []
    again = EXPERIMENT.run(dataclasses.replace(options, out=tmp_path, progress=lambda what, done, total: steps.append(done)))
    assert [dataclasses.replace(run, seconds=0.0) for run in again.runs] == [dataclasses.replace(run, seconds=0.0) for run in whole.runs]
    assert steps[0] == 9, "two of three epochs were kept"


def test_a_damaged_file_of_a_run_is_made_again(tmp_path: Path) -> None:
    options = Options(turns=3, seeds=(0,), has_dense_twin=False, folds=1, formats=FORMATS[:1], out=tmp_path)
    first = EXPERIMENT.run(options)
    (place,) = [path for path in (tmp_path / "runs").iterdir() if "seed0" in path.name]
    place.write_text(place.read_text()[:40])
    again = EXPERIMENT.run(options)
    assert [dataclasses.replace(run, seconds=0.0) for run in again.runs] == [dataclasses.replace(run, seconds=0.0) for run in first.runs]


def test_two_spellings_are_one_format() -> None:
    result = EXPERIMENT.run(Options(turns=3, seeds=(0,), folds=1, epochs=1, formats=("svd:rank=2", "svd: rank=2")))
    assert [row.format for row in result.rows] == ["dense", "svd:rank=2"]


def test_the_recurrent_map_can_be_factorised_too() -> None:
    result = EXPERIMENT.run(Options(turns=3, seeds=(0,), folds=1, epochs=1, formats=FORMATS[:1], recurrent_format="kcp:rank=1,in=2x4"))
    dense, kcp = result.rows
    assert (dense.recurrent_parameters, kcp.recurrent_parameters) == (32 * 8, 2 * 2 * 4 + 4 * 4)
    assert kcp.model_ratio == pytest.approx(dense.model_parameters / kcp.model_parameters)


def test_what_does_not_fit_is_said_before_any_training(tmp_path: Path) -> None:
    def never(what: str, done: int, total: int) -> None:
        raise AssertionError("nothing should be trained")

    options = Options(turns=3, seeds=(0,), out=tmp_path, progress=never)
    with pytest.raises(ValueError, match="product 6, which does not fit its size 12"):
        EXPERIMENT.run(dataclasses.replace(options, formats=("kcp:rank=1,in=2x3,out=2x4",)))
    with pytest.raises(ValueError, match="'kpc' is no format"):
        EXPERIMENT.run(dataclasses.replace(options, formats=("kpc:rank=1",)))
    with pytest.raises(ValueError, match="3 folds are asked for; the protocol 'two folds' has 2: ask for fewer"):
        EXPERIMENT.run(dataclasses.replace(options, folds=3))
