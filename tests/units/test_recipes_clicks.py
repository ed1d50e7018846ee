"""DLRM on clicks: the model, its training with ranks found on the way, scores, sizes and the recipes."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from resumable_clicks import MODES, PLANTED, run
from torch import nn

import tenfold
import tenfold.recipes
from tenfold.data.ctr_synthetic import PlantedClicks, SyntheticClicks, write_clicks
from tenfold.recipes.auc import auc
from tenfold.recipes.clicks.metrics import click_scores
from tenfold.recipes.clicks.model import DLRM, KAGGLE_MODES, TableSpec, kaggle_tables, largest, with_tables
from tenfold.recipes.clicks.sizes import dlrm_sizes
from tenfold.recipes.clicks.training import ClickTraining, _Trainer, predict_scores, train_clicks

DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))
TTM = TableSpec(210, tenfold.TTM(rank=4), MODES, (2, 2, 2))


def model(*tables: TableSpec, **options: Any) -> DLRM:
    torch.manual_seed(0)
    return DLRM(tables, options.pop("n_numbers", 13), dim=8, bottom=(16,), top=(16,), **options)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_auc_is_the_part_of_pairs_in_the_right_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (2, 5, 60):
        scores = torch.randint(0, 8, (n,), generator=generator).double()
        labels = torch.randint(0, 2, (n,), generator=generator)
        labels[0], labels[1] = 0, 1
        pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
        assert auc(scores, labels) == pytest.approx(float(((pairs > 0).double() + 0.5 * (pairs == 0)).mean()), abs=1e-12)
    assert math.isnan(auc(torch.rand(4), torch.ones(4)))


def test_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(3000, generator=generator) * 2).round(decimals=1)
    labels = (torch.rand(3000, generator=generator) < torch.sigmoid(logits)).float()
    found = click_scores(logits, labels)
    p = torch.sigmoid(logits.double()).numpy()
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, logits), abs=1e-12)
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, p), abs=1e-9)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, logits > 0), abs=1e-12)
    assert (found.n, found.rate) == (3000, pytest.approx(float(labels.mean())))


def test_scores_refuse_what_they_cannot_judge() -> None:
    with pytest.raises(ValueError, match=r"logits of shape \(3, 1\) were given with labels of shape \(3,\); two vectors of one length"):
        click_scores(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(ValueError, match=r"1 of 2 predictions are not finite; finite ones are needed: the model has diverged"):
        click_scores(torch.tensor([0.0, math.nan]), torch.zeros(2))


# -- the model ---------------------------------------------------------------------------------------------------------


def test_logits_are_those_of_the_formula() -> None:
    net = model(TableSpec(9), TTM, TableSpec(4)).double()
    numbers, ids = torch.rand(6, 13).double(), torch.stack([torch.randint(0, n, (6,)) for n in (9, 210, 4)], 1)
    rows = [net.tables[str(k)].weight for k in range(3)]  # type: ignore[union-attr]
    for n in range(6):
        z = net.bottom(numbers[n])  # type: ignore[misc]
        vectors = [z, *(rows[k][ids[n, k]] for k in range(3))]
        dots = [vectors[a] @ vectors[b] for a in range(4) for b in range(a + 1, 4)]
        torch.testing.assert_close(net(numbers, ids)[n], net.top(torch.cat((z, torch.stack(dots))))[0], rtol=1e-9, atol=1e-12)


def test_tables_are_dense_factorised_hashed_or_left_out() -> None:
    net = model(TableSpec(9), TTM, TableSpec(1000, hashed=11), TableSpec(50, is_removed=True))
    assert net.kept == [0, 1, 2]
    assert [type(one).__name__ for one in net.tables.values()] == ["Embedding", "Embedding", "HashedEmbedding"]
    assert list(net.factorized()) == [1]
    ids = torch.stack([torch.randint(0, n, (64,)) for n in (9, 210, 1000, 50)], 1)
    numbers = torch.rand(64, 13)
    changed = ids.clone()
    changed[:, 3] = 0
    torch.testing.assert_close(net(numbers, changed), net(numbers, ids), rtol=0, atol=0)
    hashed = net.tables["2"](torch.arange(1000))
    counts = torch.unique((hashed[:, None] == net.tables["2"].table.weight).all(-1).nonzero()[:, 1], return_counts=True)[1]  # type: ignore[union-attr]
    assert len(counts) == 11 and counts.max() < 160, "91 on average"
    with pytest.raises(ValueError, match=r"DLRM got 1 tables, of which none is kept, and no numbers; it needs one of them at least"):
        model(TableSpec(5, is_removed=True), n_numbers=0)
    assert model(TableSpec(5), TableSpec(6), n_numbers=0)(torch.zeros(3, 0), torch.zeros(3, 2, dtype=torch.int64)).shape == (3,)


@pytest.mark.parametrize("format", [tenfold.CP(rank=4), tenfold.TT(rank=3), tenfold.Tucker(rank=2), tenfold.TTM(rank=2)], ids=str)
def test_every_published_format_looks_up_rows(format: Any) -> None:
    net = model(TableSpec(205, format, MODES, (2, 2, 2) if isinstance(format, tenfold.TTM) else (8,)), TableSpec(4))
    ids = torch.stack([torch.randint(0, n, (9,)) for n in (205, 4)], 1)
    table = net.factorized()[0].dense()
    torch.testing.assert_close(net.tables["0"](ids[:, 0]), table[ids[:, 0]], rtol=1e-4, atol=1e-6)
    assert 0.4 < float(table.detach().std()) / math.sqrt(2 / (205 + 8)) < 2.5, "start values of the published size"
    net(torch.rand(9, 13), ids).sum().backward()
    assert all(one.grad is not None for one in net.factorized()[0].parameters())


def test_the_published_weights_are_counted() -> None:
    tables = kaggle_tables(tenfold.TTM(rank=16), (4, 4, 8))
    assert sum(tables[n].rows * 128 for n in KAGGLE_MODES) == 4_248_739_968
    assert largest([one.rows for one in tables], 5) == tuple(KAGGLE_MODES)
    stored = 0
    for number in KAGGLE_MODES:
        one = tables[number].layer(128, is_sparse=True)
        assert one is not None
        stored += sum(p.numel() for p in one.parameters())
    assert stored == 1_130_048, "the published count at the largest ranks"


def test_sizes_are_told_three_ways() -> None:
    dense = [TableSpec(210, None, MODES), TableSpec(9)]
    net = model(TTM, TableSpec(9))
    sizes = dlrm_sizes(net, dense, (0,), 12 * 500)
    n_table = net.factorized()[0].network.numel
    rest = sum(p.numel() for p in net.parameters()) - n_table
    assert (sizes.table_values, sizes.table_dense) == (n_table, 210 * 8)
    assert sizes.ratios == pytest.approx((210 * 8 / n_table, (rest + 210 * 8) / (rest + n_table), (rest + 210 * 8) / 500))
    with torch.no_grad():
        for one in net.factorized()[0].parameters():
            one.zero_()
    assert dlrm_sizes(net, dense, (0,)).table_values == 0, "a removed table stores nothing"
    assert dlrm_sizes(model(TTM, TableSpec(9)), dense, (0,)).model_values == rest + n_table
    assert dlrm_sizes(model(*with_tables([TTM, TableSpec(9)], (0,), is_removed=True)), dense, (0,)).ratios[0] == 0


# -- training ----------------------------------------------------------------------------------------------------------


def stream(n: int = 6400) -> SyntheticClicks:
    return SyntheticClicks(PLANTED, 64, (0, n))


def test_the_prior_weighs_as_much_however_often_the_rows_are_read() -> None:
    for epochs in (1, 3):
        trainer = _Trainer(model(TTM), stream(), ClickTraining(64, epochs), 6400, has_prior=True, is_null=False)
        assert trainer.n_steps == 100 * epochs
        assert trainer.posterior is not None and trainer.posterior.n_examples == 6400


def test_a_network_learns_and_ranks_are_found() -> None:
    net = model(TTM, TTM, TableSpec(5))
    n = 256 * 150
    run = train_clicks(net, SyntheticClicks(PLANTED, 256, (0, n)), ClickTraining(256, lr=5e-3, factor_lr=2e-2), n, has_prior=True)
    test = SyntheticClicks(PLANTED, 4096, (n + 8192, n + 3 * 8192))
    found = predict_scores(net, test)
    removed = model(TableSpec(210, is_removed=True), TableSpec(210, is_removed=True), TableSpec(5))
    train_clicks(removed, SyntheticClicks(PLANTED, 256, (0, n)), ClickTraining(256, lr=5e-3), n)
    control = predict_scores(removed, test)
    bayes = PLANTED.bayes_log_loss((n + 8192, n + 3 * 8192))
    assert bayes < found.log_loss < control.log_loss - 0.5 * (control.log_loss - bayes)
    assert run.decision is not None and net.training
    assert all(1 <= rank <= 4 for ranks in run.decision.ranks.values() for rank in ranks.values())
    assert run.n_steps == 150 and len(run.losses) == 150 and run.training_bytes > 0
    assert "tables.0" in run.report and all(isinstance(w.factors, nn.ParameterList) for w in net.factorized().values())


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_the_prior_without_data_removes_the_tables_and_trains_nothing_else() -> None:
    net = model(TTM, TTM, TableSpec(5))
    before = [one.clone() for one in net.top.parameters()]
    training = ClickTraining(64, factor_lr=5e-2)
    run = train_clicks(net, stream(), training, 6400, has_prior=True, is_null=True)
    assert run.decision is not None and set(run.decision.removed) == {"tables.0", "tables.1"}
    torch.testing.assert_close(list(net.top.parameters()), before, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"is_null=True without has_prior=True; the null model is the prior without data"):
        train_clicks(net, stream(), training, 6400, is_null=True)
    with pytest.raises(ValueError, match=r"640 rows in batches of 64 are 10 steps; at least 20 are needed to find ranks"):
        train_clicks(net, stream(), training, 640, has_prior=True)


@pytest.mark.parametrize("when", [3, 30, 38])
def test_a_killed_run_goes_on_with_the_same_numbers(tmp_path: Path, when: int) -> None:
    whole, first = run(None)
    path = tmp_path / "run.ckpt"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("resumable_clicks.py")), str(path), str(when)], env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert path.exists()
    again, continued = run(path)
    assert continued.losses == pytest.approx(first.losses, abs=1e-6)
    assert continued.decision == first.decision
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=1e-6, atol=1e-6)
    assert not path.exists()


class Stopped(Exception):
    pass


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"

    def watch(_: str, done: int, total: int) -> None:
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train_clicks(
            model(TableSpec(210), TableSpec(210), TableSpec(5)),
            stream(),
            ClickTraining(64),
            6400,
            checkpoint=path,
            save_every=1,
            progress=watch,
        )
    with pytest.raises(
        ValueError, match=r"run\.ckpt is of a run with lr = 0\.001, but this one has 0\.1; to go on all settings must be the same"
    ):
        train_clicks(model(TableSpec(210), TableSpec(210), TableSpec(5)), stream(), ClickTraining(64, lr=0.1), 6400, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"the checkpoint .*run\.ckpt cannot be read \(.*\); a whole file is needed: delete it"):
        train_clicks(model(TableSpec(210), TableSpec(210), TableSpec(5)), stream(), ClickTraining(64), 6400, checkpoint=path)
    torch.save({"version": "other"}, path)
    with pytest.raises(ValueError, match=r"run\.ckpt is not a tenfold run checkpoint 1; a file that such a run has written is needed"):
        train_clicks(model(TableSpec(210), TableSpec(210), TableSpec(5)), stream(), ClickTraining(64), 6400, checkpoint=path)


def test_a_loss_that_is_not_finite_stops_a_run() -> None:
    net = model(TableSpec(210), TableSpec(210), TableSpec(5))
    with torch.no_grad():
        net.top[-1].bias.fill_(math.nan)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"the loss is nan at step 1; a finite one is needed: lower the learning rate"):
        train_clicks(net, stream(), ClickTraining(64), 6400)


# -- recipes -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_the_recipe_has_every_control(tmp_path: Path) -> None:
    path = tmp_path / "clicks.tsv"
    write_clicks(PlantedClicks((300,) * 6 + (4,) * 20, {}), path, (0, 1000))
    choices = {"data": path, "seeds": 1, "batch_size": 40, "hidden": 4, "out": tmp_path / "out"}
    result = tenfold.recipes.train("dlrm", format="ttm:rank=2", **choices)
    rows = {cells[0]: cells for cells in result.cells()}
    assert list(rows) == [
        "dense", "start ranks (ttm:rank=2)", "ranks found (ttm:rank=2)", "found ranks from scratch", "hashed to that size",
        "tables removed", "prior without data", "constant",
    ]  # fmt: skip
    runs = result.data()["runs"]
    assert all(run["scores"]["n"] == 200 for run in runs if run["scores"] is not None)
    assert rows["prior without data"][1] == "-" and rows["tables removed"][6] == "all"
    found, scratch, hashed = (
        next(run for run in runs if run["kind"] == k) for k in ("ranks found", "found ranks from scratch", "hashed to that size")
    )
    live = {number: ranks for number, ranks in found["ranks"].items() if all(ranks.values())}
    assert scratch["ranks"] == live and scratch["sizes"]["table_values"] == found["sizes"]["table_values"]
    row_of_each = 4 * 5  # values of one row in each of the five tables; each keeps a row at least
    assert hashed["sizes"]["table_values"] == row_of_each * max(1, round(found["sizes"]["table_values"] / row_of_each))
    assert "800 rows for training" in result.notes()[0] and "the last 200 for the test" in result.notes()[0]
    assert json.loads((tmp_path / "out" / "dlrm.json").read_text())["runs"] == runs
    again = tenfold.recipes.train("dlrm", format="ttm:rank=2", progress=_never, **choices)
    assert again.cells() == result.cells(), "finished runs are not repeated"


def _never(label: str, done: int, total: int) -> None:
    raise AssertionError(f"{label} was trained again")


def test_the_recipe_refuses_formats_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "clicks.tsv"
    write_clicks(PlantedClicks((30,) * 26, {}), path, (0, 50))
    with pytest.raises(ValueError, match=r"2 formats were given; the controls of equal size belong to one format"):
        tenfold.recipes.train("dlrm", data=path, format=["ttm:rank=2", "tt:rank=2"])
    with pytest.raises(
        ValueError, match=r"has modes of the rows, but 5 tables of different sizes are factorised; modes are chosen for each"
    ):
        tenfold.recipes.train("dlrm", data=path, format="ttm:rank=2,in=5x6")


@pytest.mark.skipif(not (DATA / "avazu" / "train.csv.gz").exists(), reason="needs the Avazu sample of $TENFOLD_DATA")
def test_the_avazu_sample_trains() -> None:
    net_rows = tenfold.recipes.train("dlrm-avazu", data=DATA, seeds=1, batch_size=256, hidden=8).data()["runs"]
    assert {run["kind"] for run in net_rows} >= {"dense", "ranks found", "tables removed"}
    assert all(run["scores"]["auc"] > 0.5 for run in net_rows if run["scores"] is not None)
