"""Smaller tables of an NCF-MLP: the same function at full rank, a better one in turns than to first order, and what the network is."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tenfold.files import write_safetensors
from tenfold.recipes.recommenders.models import NcfMlp, read_ncf_mlp
from tenfold.recipes.recommenders.tower_fit import as_model, first_order, in_turns


def _network() -> NcfMlp:
    model = NcfMlp(50, 40, (6, 6), (6, 4)).eval()
    with torch.no_grad():
        model.out.weight.mul_(3)
        for layer in model.fc:
            layer.bias.add_(0.5)  # pyright: ignore[reportCallIssue]
    return model


def _error(model: NcfMlp, small: NcfMlp) -> float:
    users, items = torch.arange(50)[:, None], torch.arange(40)
    with torch.no_grad():
        return float((model(users, items) - small(users, items)).square().mean() / model(users, items).var())


def test_forward_is_the_concatenation() -> None:
    model = _network()
    users, items = torch.tensor([1, 7]), torch.tensor([3, 0])
    x = torch.cat([model.user(users), model.item(items)], -1)
    for layer in model.fc:
        x = layer(x).relu()
    assert_close(model(users, items), model.out(x)[:, 0])


def test_full_ranks_give_the_same_scores() -> None:
    model = _network()
    assert _error(model, as_model(model, first_order(model, (6, 6)))) < 1e-3


def test_turns_lower_the_error_of_scores() -> None:
    model = _network()
    start = first_order(model, (2, 2))
    tower, errors = in_turns(model, start, sweeps=8, n_columns=40)
    small = as_model(model, tower)
    assert small.table_numel() == 2 * 90 and small.fc[0].weight.shape == (6, 4)  # pyright: ignore[reportAttributeAccessIssue]
    assert errors[-1] < errors[0]
    assert _error(model, small) < 0.8 * _error(model, as_model(model, start))
    again, _ = in_turns(model, start, sweeps=8, n_columns=40)
    assert_close(again.users.codes, tower.users.codes, rtol=0, atol=0)


def test_weights_from_a_file(tmp_path: Path) -> None:
    model = _network()
    write_safetensors(tmp_path / "one.safetensors", model.state_dict(), {})
    read = read_ncf_mlp(tmp_path / "one.safetensors")
    assert_close(read(torch.tensor(3), torch.tensor(5)), model(torch.tensor(3), torch.tensor(5)), rtol=0, atol=0)
    write_safetensors(tmp_path / "two.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(
        ValueError, match=r"two.safetensors holds a, ..; the tensors of an NCF-MLP are needed, which are .* give another file"
    ):
        read_ncf_mlp(tmp_path / "two.safetensors")
