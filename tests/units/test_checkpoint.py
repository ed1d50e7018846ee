"""The checkpoint file: written whole or not at all, and only taken up by the run that it is of."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tenfold.checkpoint import Checkpoint, tensors_of


def network(n: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, n), nn.BatchNorm1d(n))


def trained(path: Path) -> nn.Module:
    """A model whose values have changed since its run began, and its file."""
    model = network()
    file = Checkpoint(path, {"lr": "1"}, model)
    with torch.no_grad():
        for value in tensors_of(model).values():
            value.add_(1)
    file.save({"epoch": 3})
    return model


def test_values_buffers_and_state_come_back(tmp_path):
    model = trained(tmp_path / "run.pt")
    fresh = network()
    state = Checkpoint(tmp_path / "run.pt", {"lr": "1"}, fresh).load()
    assert state["epoch"] == 3
    assert fresh[1].num_batches_tracked == 1
    torch.testing.assert_close(fresh.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_buffers_that_a_state_dict_leaves_out_come_back(tmp_path):
    model, fresh = network(), network()
    for one in (model, fresh):
        one.register_buffer("count", torch.zeros(1), persistent=False)
    model.count += 5
    Checkpoint(tmp_path / "run.pt", {}, model).save({})
    Checkpoint(tmp_path / "run.pt", {}, fresh).load()
    assert fresh.count == 5


def test_no_path_and_no_file():
    assert Checkpoint(None, {}, network()).load() is None
    Checkpoint(None, {}, network()).save({})


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    trained(tmp_path / "new" / "folder" / "run.pt")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["run.pt"]


def test_two_runs_on_one_path_do_not_write_into_each_other(tmp_path, monkeypatch):
    first, second = (Checkpoint(tmp_path / "run.pt", {}, network()) for _ in range(2))
    save = torch.save

    def interrupted(whole: object, file: object) -> None:
        monkeypatch.setattr(torch, "save", save)
        second.save({"run": 2})
        save(whole, file)

    monkeypatch.setattr(torch, "save", interrupted)
    first.save({"run": 1})
    assert first.load()["run"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    trained(tmp_path / "run.pt")
    before = (tmp_path / "run.pt").read_bytes()
    file = Checkpoint(tmp_path / "run.pt", {}, network())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        OSError, match=r"cannot be written \(.*No space left on device\); it needs a writable folder with about 0 MB: choose"
    ):
        file.save({})
    assert (tmp_path / "run.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"the checkpoint .*run.pt cannot be written \(.*\); it needs a writable folder .*: choose another path"
    ):
        Checkpoint(tmp_path / "file" / "run.pt", {}, network()).save({})


def test_another_model(tmp_path):
    trained(tmp_path / "run.pt")
    model = network(5)
    before = [p.clone() for p in model.parameters()]
    message = (
        r"is of another model: it has 0.bias of shape \(4,\), this Sequential has \(5,\); give the same model, or delete the checkpoint"
    )
    with pytest.raises(ValueError, match=message):
        Checkpoint(tmp_path / "run.pt", {"lr": "1"}, model).load()
    torch.testing.assert_close(list(model.parameters()), before, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"it has 0.bias of shape \(4,\), this Linear has none; give the same model"):
        Checkpoint(tmp_path / "run.pt", {"lr": "1"}, nn.Linear(2, 2)).load()


def test_another_start(tmp_path):
    trained(tmp_path / "run.pt")
    with pytest.raises(
        ValueError, match=r"started from other values of this Sequential; to go on the start must be the same: give the same"
    ):
        Checkpoint(tmp_path / "run.pt", {"lr": "1"}, network(seed=1)).load()


def test_the_start_or_where_the_run_had_got_to_are_both_taken(tmp_path):
    model = trained(tmp_path / "run.pt")
    assert Checkpoint(tmp_path / "run.pt", {"lr": "1"}, model).load()["epoch"] == 3
    almost = network()
    with torch.no_grad():
        almost[0].weight.mul_(1 + 1e-6)
    assert Checkpoint(tmp_path / "run.pt", {"lr": "1"}, almost).load()["epoch"] == 3


@pytest.mark.parametrize("settings", [{"lr": "2"}, {}, {"lr": "1", "seed": "0"}])
def test_other_settings(tmp_path, settings):
    trained(tmp_path / "run.pt")
    with pytest.raises(
        ValueError, match=r"is of a run with (lr|seed) = (1|None), but this one has (2|None|0); to go on all settings must be"
    ):
        Checkpoint(tmp_path / "run.pt", settings, network()).load()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"not a checkpoint"])
def test_a_damaged_file(tmp_path, damage):
    trained(tmp_path / "run.pt")
    (tmp_path / "run.pt").write_bytes(damage((tmp_path / "run.pt").read_bytes()))
    with pytest.raises(
        ValueError, match=r"the checkpoint .*run.pt cannot be read \(.+\); a whole file is needed: delete it, or give another"
    ):
        Checkpoint(tmp_path / "run.pt", {"lr": "1"}, network()).load()


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def test_a_file_with_code_is_not_run(tmp_path, capsys):
    torch.save({"version": Code()}, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"cannot be read \(.+\); a whole file is needed"):
        Checkpoint(tmp_path / "run.pt", {}, network()).load()
    assert "this ran" not in capsys.readouterr().out


def test_a_file_of_something_else(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "run.pt")
    with pytest.raises(
        ValueError, match=r"run.pt is not a tenfold checkpoint 1; a file that such a run has written is needed: give another"
    ):
        Checkpoint(tmp_path / "run.pt", {}, network()).load()
