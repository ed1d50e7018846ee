"""Factorisation machines: against the sum over pairs, their tables, what training does, and the comparison with all its controls."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tenfold import bayes
from tenfold.data.feature_rows import FeatureRows, FieldGroup
from tenfold.formats import SVD
from tenfold.recipes.options import Options
from tenfold.recipes.recommenders.experiment import FmExperiment
from tenfold.recipes.recommenders.models import FactorizationMachine, FeatureTable, GroupTables
from tenfold.recipes.recommenders.training import FmTraining, predictions, table_frequencies, train_fm
from tenfold.weight import FactorizedWeight

GROUPS = (FieldGroup("user", 0, 1, 0, 40), FieldGroup("item", 1, 2, 40, 30))


def _planted(n: int = 3000, rank: int = 2) -> FeatureRows:
    """Ratings of 40 users and 30 items by a machine with vectors of this rank, and noise of 0.1."""
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(40, rank, generator=generator), torch.randn(30, rank, generator=generator)
    ids = torch.stack([torch.randint(40, (n,), generator=generator), torch.randint(30, (n,), generator=generator)], 1)
    targets = 3 + 0.5 * (users[ids[:, 0]] * items[ids[:, 1]]).sum(1) + 0.1 * torch.randn(n, generator=generator)
    ids[:, 1] += 40
    return FeatureRows(ids, targets, 70, ("user", "item"), GROUPS)


def test_forward_is_the_sum_over_pairs() -> None:
    table = FeatureTable("dense", 4).layer(70, GROUPS)
    model = FactorizationMachine(table, constant=0.5)
    ids = torch.tensor([[3, 50, 7], [1, 69, 2]])
    rows = model.rows(ids)
    want = 0.5 + rows[..., 0].sum(1)
    for f in range(3):
        for g in range(f):
            want = want + (rows[:, f, 1:] * rows[:, g, 1:]).sum(1)
    assert_close(model(ids), want)
    assert model.table_numel() == 70 * 5


def test_tables() -> None:
    ids = torch.tensor([[3, 50], [1, 69]])
    sizes = {"hashed": 6 * 5, "linear": 70, "removed": 0}
    for kind, size in sizes.items():
        model = FactorizationMachine(FeatureTable(kind, 4, rows=6).layer(70, GROUPS), constant=1.0)  # pyright: ignore[reportArgumentType]
        assert model.table_numel() == size and model(ids).shape == (2,)
    assert_close(FactorizationMachine(None, constant=1.0)(ids), torch.ones(2))


def test_tables_of_groups() -> None:
    choice = FeatureTable("factorized", 4, SVD(rank=3), (("item", (2,)),))
    table = choice.layer(70, GROUPS)
    assert isinstance(table, GroupTables)
    assert sum(p.numel() for p in table.parameters()) == 3 * (40 + 5) + 2 * (30 + 5)
    rows = table(torch.tensor([[3, 50]]))
    assert_close(rows[0, 1], table.tables["item"](torch.tensor(10)))
    gone = dataclasses.replace(choice, ranks=(("item", (0,)),)).layer(70, GROUPS)
    assert gone is not None and not gone(torch.tensor([[3, 50]]))[0, 1].any()


def test_planted_ranks_are_found() -> None:
    """Both tables of rank 6 end at rank 2 (vectors of 2; no linear weights were planted), the error near the noise of 0.1."""
    rows = _planted()
    torch.manual_seed(0)
    model = FactorizationMachine(FeatureTable("factorized", 8, SVD(rank=6)).layer(70, GROUPS), constant=3.0)
    run = train_fm(model, rows, FmTraining(lr=2e-2, epochs=40, batch_size=500, temperature=0.5), "ratings", seed=0)
    assert run.decision is not None and run.n_steps == 240
    assert list(run.decision.ranks.values()) == [{"r": 2}, {"r": 2}]
    assert float((predictions(model, rows) - rows.targets).square().mean().sqrt()) < 0.13


def test_the_penalty_of_the_search_keeps_rows_small() -> None:
    norms, rows = {}, _planted(500)
    for penalty in (0.0, 0.5):
        torch.manual_seed(0)
        model = FactorizationMachine(FeatureTable("factorized", 8, SVD(rank=6)).layer(70, GROUPS), constant=3.0)
        training = FmTraining(lr=1e-2, epochs=4, temperature=1e-3, decided=0.99, search_penalty=penalty)
        train_fm(model, rows, training, "ratings", seed=0)
        norms[penalty] = float(model.rows(rows.ids).detach().norm())
    assert norms[0.5] < 0.9 * norms[0.0]


def test_a_table_is_cut_to_a_ratio() -> None:
    """70 rows of 9 values: ranks of 6 store 1.1 times fewer, ranks of 1 7.2 times."""
    rows = _planted(500)
    training = FmTraining(lr=1e-2, epochs=4, temperature=1e-3, least_ratio=3.0)

    def model() -> FactorizationMachine:
        return FactorizationMachine(FeatureTable("factorized", 8, SVD(rank=6)).layer(70, GROUPS), constant=3.0)

    run = train_fm(model(), rows, training, "ratings", seed=0)
    assert run.decision is not None and 630 / 4.5 <= sum(one.numel_after for one in run.decision.layers) <= 630 / 3
    with pytest.raises(ValueError, match="least_ratio is 9; with all ranks at 1 these weights reach 7.159: ask for less"):
        train_fm(model(), rows, dataclasses.replace(training, least_ratio=9.0), "ratings", seed=0)


def test_ranks_are_decided_by_the_rows_that_occur() -> None:
    """Users 20 to 39 never occur; they alone have more than one direction."""
    rows = _planted(500)
    rows.ids[:, 0] %= 20
    model = FactorizationMachine(FeatureTable("factorized", 8, SVD(rank=6)).layer(70, GROUPS), constant=3.0)
    counted = table_frequencies(model, rows)
    assert counted["table.tables.user"]["i1"].tolist() == torch.bincount(rows.ids[:, 0], minlength=40).tolist()
    weight = model.get_submodule("table.tables.user.factorized")
    assert isinstance(weight, FactorizedWeight)
    [(number, axis)] = weight.network.carriers("i1")
    with torch.no_grad():
        weight.factors[number].movedim(axis, 0)[:20, 1:] = 0
    posterior = bayes.attach(model, n_examples=500)
    found = [posterior.decide(bayes.Rounding(0.05, n_spreads=0, moments=given)) for given in ({}, counted)]
    assert [one["table.tables.user"].sizes["r"] for one in found] == [6, 1]
    posterior.finish()


def test_a_diverged_run_is_refused() -> None:
    rows = _planted(100)
    bad = FeatureRows(rows.ids, rows.targets.fill_(torch.nan), 70, rows.fields, GROUPS)
    with pytest.raises(ValueError, match="the loss is nan after 0 steps; a finite one is needed: lower the learning rate"):
        train_fm(FactorizationMachine(FeatureTable("linear").layer(70, GROUPS)), bad, FmTraining(), "ratings", seed=0)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_too_few_steps_to_find_ranks_are_refused(n_steps: int) -> None:
    training = FmTraining(epochs=n_steps, temperature=1.0)
    model = FactorizationMachine(FeatureTable("factorized", 8, SVD(rank=6)).layer(70, GROUPS))
    with pytest.raises(
        ValueError, match=f"200 rows in batches of 512 are {n_steps} steps; at least 5 are needed, .*: take smaller batches"
    ):
        train_fm(model, _planted(200), training, "ratings", seed=0)


def test_comparison(tmp_path: Path) -> None:
    common = FmTraining(lr=3e-2, epochs=40, batch_size=400)
    grid, found = (common,), (dataclasses.replace(common, temperature=0.5),)
    experiment = FmExperiment("planted", "ratings", "Planted.", _planted(2000), 8, ("svd:rank=4",), grid, found)
    result = experiment.run(Options(seeds=(0,), out=tmp_path))
    names = [row[0] for row in result.rows]
    ours = "found svd:rank=4"
    controls = [f"hashed, as {ours}", f"fixed, as {ours}", "no data, svd:rank=4", "linear weights alone", "no table"]
    assert names == ["dense", ours, *controls]
    loss = {row[0]: float(row[1].split()[0]) for row in result.rows}
    assert loss[ours] < 0.8 * loss[f"hashed, as {ours}"] and loss[ours] < 0.5 * loss["no table"]
    data = json.loads((tmp_path / "planted.json").read_text())
    assert [run["numel"] for run in data["runs"] if run["network"].startswith("no data")] == [0]
    assert len(data["runs"]) == 7 and len(data["tried"]["dense"]) == 1
    with pytest.raises(ValueError, match="'tt:rank=2,in=5x8' has modes; the tables of planted differ in size, so their .* leave modes out"):
        experiment.run(Options(seeds=(0,), out=tmp_path, formats=("tt:rank=2,in=5x8",)))
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "runs").iterdir())]
    again = experiment.run(Options(seeds=(0,), out=tmp_path))
    assert again.rows == result.rows
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "runs").iterdir())] == times


def test_runs_on_other_rows_of_the_same_number_are_other_runs(tmp_path: Path) -> None:
    """As the five parts of MovieLens-100k have, u1.base to u5.base."""
    grid = (FmTraining(epochs=1, batch_size=100),)
    rows = _planted(200)
    others = FeatureRows(rows.ids.flip(0), rows.targets, 70, rows.fields, GROUPS)
    found = []
    for one in (rows, others, rows):
        experiment = FmExperiment("planted", "ratings", "Planted.", one, 8, (), grid, grid)
        found.append(experiment.run(Options(seeds=(0,), out=tmp_path)).rows[:2])
    assert found[0] == found[2] != found[1]
