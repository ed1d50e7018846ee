"""The cost of a training step, against what can be counted by hand."""

import torch
from torch import nn

from tenfold.recipes.measure import peak_bytes, step_costs
from tenfold.recipes.sequences.training import Step, Training

TRAINING = Training(epochs=1, batch_size=8, lr=1e-3, dense_lr=1e-3)


def test_peak_bytes_counts_what_is_alive_at_one_time() -> None:
    def one_after_another() -> None:
        for _ in range(3):
            torch.zeros(1000)

    def together() -> None:
        kept = [torch.zeros(1000) for _ in range(3)]
        assert len(kept) == 3

    there = torch.zeros(5000)

    def view_and_change() -> None:
        there.view(50, 100).add_(1.0)

    assert peak_bytes(one_after_another) == 4000
    assert peak_bytes(together) == 12_000
    assert peak_bytes(view_and_change) == 0


def test_peak_bytes_holds_saved_activations_and_gradients() -> None:
    weight = torch.randn(100, 100, requires_grad=True)

    def step() -> None:
        weight.grad = None
        weight.exp().sum().backward()

    found = peak_bytes(step)
    assert found >= 2 * 40_000, "the output of exp, and the gradient"
    assert found <= 3 * 40_000 + 1000


def test_a_step_trains_and_its_flop_are_those_of_forward_and_backward() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.ReLU(), nn.Linear(32, 4, bias=False))
    data = (torch.randn(20, 16), torch.randint(0, 4, (20,)))
    step = Step(model, data, TRAINING, 1e-2)
    cost = step_costs({"model": step}, n_turns=5)["model"]
    first, second = 2 * 8 * 16 * 32, 2 * 8 * 32 * 4
    assert cost.flops == 2 * first + 3 * second  # the inputs need no gradient
    assert cost.n_turns == 5
    assert 0 < cost.seconds_min <= cost.seconds
    before = step()
    for _ in range(50):
        step()
    assert step() < 0.5 * before


def test_flop_of_torchs_own_lstm_are_counted_in_both_directions() -> None:
    model = nn.LSTM(24, 16, batch_first=True)
    x = torch.randn(8, 5, 24)
    cost = step_costs({"lstm": lambda: model(x)[0].sum().backward()}, n_turns=3)["lstm"]
    forward = 2 * 8 * 5 * 64 * (24 + 16)
    assert 2 * forward <= cost.flops <= 3 * forward  # a backend may leave out the gradient of the inputs
