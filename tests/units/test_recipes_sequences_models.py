"""The networks of recipes: the same start for all formats, padding that is not read, counts of their maps."""

import math

import pytest
import torch
from torch import nn

from tenfold.recipes.sequences.models import CharacterModel, Rnn, SequenceClassifier

FORMAT = "kcp:rank=3,in=4x6,out=4x8"


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
@pytest.mark.parametrize("format", ["dense", "kcp:rank=12,in=10x20,out=4x8", "svd:rank=9"])
def test_start_values_are_alike_for_all_formats(cell: str, format: str) -> None:
    """The standard deviation of a factorised map has itself a spread over starts: within 35 % here."""
    rnn = Rnn(cell, 200, 32)  # type: ignore[arg-type]
    network = rnn.build(format, seed=0).requires_grad_(False)
    assert float(network.weight_ih_l0.std()) * math.sqrt(200) == pytest.approx(1.0, abs=0.02 if format == "dense" else 0.35)  # type: ignore[operator,union-attr,arg-type]
    hidden = network.weight_hh_l0.detach()  # type: ignore[union-attr,operator]
    for gate in hidden.chunk({"LSTM": 4, "GRU": 3}[cell]):
        torch.testing.assert_close(gate @ gate.T, torch.eye(32), rtol=0, atol=1e-5)
    wanted = torch.zeros(len(hidden))
    if cell == "LSTM":
        wanted[32:64] = 1
    assert torch.equal(network.bias_ih_l0.detach(), wanted)  # type: ignore[union-attr,operator,arg-type]
    assert not network.bias_hh_l0.any()  # type: ignore[union-attr,operator]


def test_start_values_follow_from_the_seed_and_leave_torchs_own_state() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (Rnn("LSTM", 24, 32).build(FORMAT, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(one.state_dict(), same.state_dict(), rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_counts_of_maps() -> None:
    rnn = Rnn("LSTM", 24, 32, n_layers=2)
    assert (rnn.dense_map, rnn.dense_recurrent) == (128 * (24 + 32), 2 * 128 * 32)
    dense = rnn.build("dense", seed=0)
    assert (rnn.map_parameters(dense, "ih"), rnn.map_parameters(dense, "hh")) == (128 * 56, 2 * 128 * 32)
    single = Rnn("LSTM", 24, 32)
    network = single.build(FORMAT, "kcp:rank=2,in=4x8", seed=0)
    n_map, n_recurrent = single.map_parameters(network, "ih"), single.map_parameters(network, "hh")
    assert (n_map, n_recurrent) == (3 * (4 * 4 * 4 + 6 * 8), 2 * (4 * 4 * 4 + 8 * 8))
    assert n_map + n_recurrent + 2 * 128 == sum(p.numel() for p in network.parameters())


def test_a_recurrent_kronecker_product_starts_orthogonal() -> None:
    network = Rnn("LSTM", 24, 32).build(FORMAT, "kcp:rank=1,in=4x8", seed=0)
    for gate in network.weight_hh_l0.detach().chunk(4):  # type: ignore[union-attr,operator]
        torch.testing.assert_close(gate @ gate.T, torch.eye(32), rtol=0, atol=1e-5)
    assert Rnn("LSTM", 24, 32).build(FORMAT, "ttm:rank=2,in=4x8", seed=0).weight_hh_l0.shape == (128, 32)  # type: ignore[union-attr]


def test_recurrent_modes_are_given_once() -> None:
    with pytest.raises(
        ValueError, match=r"the recurrent format 'kcp:rank=1,in=4x8,out=8x4' has out=\(8, 4\) and in=\(4, 8\); .*: give in= alone"
    ):
        Rnn("LSTM", 24, 32).build(FORMAT, "kcp:rank=1,in=4x8,out=8x4", seed=0)


@pytest.mark.parametrize("format", ["dense", FORMAT])
def test_padding_is_not_read(format: str) -> None:
    model = SequenceClassifier(Rnn("LSTM", 24, 32).build(format, seed=0), 32, 5).eval()
    inputs, lengths = torch.randn(3, 7, 24), torch.tensor([7, 2, 5])
    scores = model(inputs, lengths)
    alone = torch.stack([model(one[None, :n])[0] for one, n in zip(inputs, lengths.tolist(), strict=True)])
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-6)
    changed = inputs.clone()
    changed[1, 2:] = 100.0
    torch.testing.assert_close(model(changed, lengths), scores, rtol=1e-5, atol=1e-6)


def test_a_character_model_scores_each_step_from_what_came_before() -> None:
    model = CharacterModel(Rnn("LSTM", 24, 32, n_layers=2).build("svd:rank=4", seed=0), 24, 32, 11).eval()
    characters = torch.randint(0, 11, (2, 6))
    scores = model(characters)
    assert scores.shape == (2, 6, 11)
    other = characters.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 11
    torch.testing.assert_close(model(other)[:, :4], scores[:, :4])
    assert not torch.allclose(model(other)[:, 4:], scores[:, 4:])


def test_a_format_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match="product 12, which does not fit its size 24"):
        Rnn("LSTM", 24, 32).build("kcp:rank=1,in=3x4,out=4x8", seed=0)


def test_dropout_is_for_training_only() -> None:
    model = SequenceClassifier(nn.LSTM(4, 8, batch_first=True), 8, 2, dropout=0.5)
    inputs = torch.randn(2, 3, 4)
    assert not torch.equal(model.train()(inputs), model(inputs))
    assert torch.equal(model.eval()(inputs), model(inputs))
