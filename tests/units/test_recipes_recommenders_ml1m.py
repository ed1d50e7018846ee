"""ml1m on a small network of its own: all ways and controls, kept runs, and what does not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.data.movielens import Candidates
from tenfold.files import write_safetensors
from tenfold.recipes.options import Options
from tenfold.recipes.recommenders import frappe, ml1m, ml100k
from tenfold.recipes.recommenders.models import NcfMlp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = NcfMlp(30, 40, (20, 20), (20, 4))
    (tmp_path / "ml1m_leave1out").mkdir()
    (tmp_path / "weights").mkdir()
    write_safetensors(tmp_path / ml1m.WEIGHTS[0], model.state_dict(), {})
    items = torch.stack([torch.randperm(40)[:20] for _ in range(30)]).numpy()
    np.savez(tmp_path / ml1m.DATA[0], user=np.arange(30), items=items)
    return tmp_path


def test_all_ways_and_controls(folder: Path) -> None:
    result = ml1m.run(Options(data=folder, seeds=(0,), epochs=2, out=folder / "out"))
    names = [row[0] for row in result.rows]
    ways = ["closest tables", "closest vectors", "first order", "in turns", "in order", "sparse rows"]
    assert names[:3] == ["dense", "no user table", "no item table"]
    assert [name.partition(",")[0] for name in names[3:]] == ways * 3
    assert [row[7:9] for row in result.rows[:4]] == [("1,400", "1.00x"), ("800", "1.75x"), ("600", "2.33x"), ("420", "3.33x")]
    assert [row[-1] for row in result.rows[:4]] == ["2.00x", "3.50x", "4.67x", "6.67x"]
    assert (folder / "out" / "ml1m.md").read_text() == result.markdown()
    kept = sorted((folder / "out" / "runs").iterdir())
    times = [one.stat().st_mtime_ns for one in kept]
    assert len(kept) == 18 and ml1m.run(Options(data=folder, seeds=(0,), epochs=2, out=folder / "out")).rows == result.rows
    assert [one.stat().st_mtime_ns for one in kept] == times


def test_runs_of_another_network_are_other_runs(folder: Path) -> None:
    first = ml1m.run(Options(data=folder, seeds=(0,), epochs=1, out=folder / "out"))
    torch.manual_seed(1)
    write_safetensors(folder / ml1m.WEIGHTS[0], NcfMlp(30, 40, (20, 20), (20, 4)).state_dict(), {})
    second = ml1m.run(Options(data=folder, seeds=(0,), epochs=1, out=folder / "out"))
    assert all(
        one["hit_rate"] != other["hit_rate"] for one, other in zip(first.values["runs"][3:5], second.values["runs"][3:5], strict=True)
    )


def test_bfloat16_rounds_the_tables_of_a_copy_alone() -> None:
    model = NcfMlp(30, 40, (20, 20), (20, 4))
    rounded = ml1m.in_bfloat16(model)
    assert torch.equal(rounded.user.weight, model.user.weight.bfloat16().float()) and not torch.equal(
        rounded.item.weight, model.item.weight
    )
    assert torch.equal(rounded.out.weight, model.out.weight)


def test_what_does_not_fit(folder: Path) -> None:
    model = NcfMlp(3, 4, (2, 2), (2,))
    with pytest.raises(
        ValueError, match="the test has user 5 and item 1, but the network has 3 users and 4 items, .* give the test of the"
    ):
        ml1m.check_fit(Candidates(torch.tensor([5]), torch.tensor([[0, 1]])), model)
    (folder / ml1m.WEIGHTS[0]).unlink()
    with pytest.raises(
        ValueError, match=r"no weights were found near .*; weights/ml1m_ncf_mlp.safetensors or .* is needed in its folder or"
    ):
        ml1m.run(Options(data=folder))


@pytest.mark.parametrize("recipe", [ml100k, frappe, ml1m], ids=lambda one: one.__name__.rpartition(".")[2])
def test_no_data(recipe: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not hold the data; .* is needed in it"):
        recipe.run(Options(data=tmp_path))  # pyright: ignore[reportAttributeAccessIssue]
