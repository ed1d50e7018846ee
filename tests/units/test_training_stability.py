"""Training that keeps factors stable: the penalty on sensitivity, and rates divided by what factors magnify."""

from functools import partial

import pytest
import torch
from torch import nn

import tenfold
import tenfold.nn
from tenfold.diagnosis import diagnose
from tenfold.finetune import finetune
from tenfold.formats import CP, SVD
from tenfold.layers.conv import Conv2d
from tenfold.optimizer import make_optimizer
from tenfold.training_stability import SensitivityPenalty, stable_scales

DATA = (torch.randn(48, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 4)


def network(groups: int = 1, scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    conv = tenfold.nn.Conv2d(3 * groups, 8, 3, groups=groups, format=CP(rank=4))
    with torch.no_grad():
        conv.factorized.factors[0].mul_(scale)
    return nn.Sequential(conv, nn.Flatten(), nn.Linear(8 * 16, 4))


def test_the_penalty_is_the_sensitivity_relative_to_the_start_and_has_gradients():
    model = network()
    start = diagnose(model)[0].sensitivity
    penalty = SensitivityPenalty(model)
    assert penalty().item() == pytest.approx(1)
    with torch.no_grad():
        model[0].factorized.factors[1].mul_(1.5)
    value = penalty()
    assert value.item() == pytest.approx(diagnose(model)[0].sensitivity / start, rel=1e-5)
    value.backward()
    assert all(float(factor.grad.norm()) > 0 for factor in model[0].factorized.factors)


def test_a_run_with_the_penalty_ends_less_sensitive():
    ends = []
    for weight in (0.0, 1.0):
        model = network()
        finetune(model, DATA, epochs=10, batch_size=16, lr=0.02, sensitivity_weight=weight)
        ends.append(diagnose(model)[0].sensitivity)
    assert ends[1] < 0.7 * ends[0]


@pytest.mark.parametrize("groups", [1, 2])
def test_rates_are_divided_by_the_largest_eigenvalue(groups):
    model = network(groups, scale=20.0)
    bound = min(1.0, diagnose(model)[0].stable_step)
    assert bound < 0.5
    scales = stable_scales(model)
    assert list(scales.values()) == pytest.approx([bound] * 3, rel=0.05)
    made = make_optimizer(model, partial(torch.optim.SGD, momentum=0.9), 0.1, None, 10, scales)
    rates = {parameter: group["lr"] for group in made.param_groups for parameter in group["params"]}
    assert [rates[factor] for factor in model[0].factorized.factors] == pytest.approx([0.1 * bound] * 3, rel=0.05)
    assert rates[model[2].weight] == rates[model[2].bias] == 0.1


def test_a_rate_that_suits_the_dense_model_is_stable_with_the_bound_and_not_without():
    def last(bound_lr: bool) -> float:
        model = network(scale=50.0)
        history = finetune(model, DATA, epochs=6, batch_size=16, optimizer=torch.optim.SGD, lr=0.05, clip_norm=None, bound_lr=bound_lr)
        return sum(history.losses[-3:])

    bounded = last(True)
    try:
        free = last(False)
    except RuntimeError:  # the loss overflowed
        free = float("inf")
    assert bounded < 0.5 * free


def test_a_resumed_run_keeps_the_start_of_the_penalty_and_the_rates(tmp_path):
    settings = {"epochs": 4, "batch_size": 16, "optimizer": torch.optim.SGD, "lr": 0.05, "sensitivity_weight": 0.1, "bound_lr": True}
    whole = network(scale=5.0)
    expected = finetune(whole, DATA, **settings)
    broken = network(scale=5.0)

    def stop(what: str, done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    file = tmp_path / "run.ckpt"
    with pytest.raises(KeyboardInterrupt):
        finetune(broken, DATA, checkpoint=file, save_every=2, progress=stop, **settings)
    assert finetune(broken, DATA, checkpoint=file, save_every=2, **settings) == expected
    assert all(torch.equal(a, b) for a, b in zip(broken.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("size", [0.9, 0.5], ids=["in another order", "equal to 1 no more"])
def test_a_half_trained_model_has_the_same_groups_of_rates(tmp_path, size):
    def layers() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
        with torch.no_grad():
            model[0].weight.mul_(size / 0.9)
            model[2].weight.mul_(size)
        return tenfold.compress(model, {"0": SVD(rank=4), "2": SVD(rank=4)})

    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    settings = {"epochs": 4, "batch_size": 16, "lr": 0.3, "bound_lr": True}
    whole, broken = layers(), layers()
    expected = finetune(whole, (x, torch.arange(64) % 4), **settings)

    def stop(what: str, done: int, total: int) -> None:
        if done == 13:
            raise KeyboardInterrupt

    file = tmp_path / "run.ckpt"
    with pytest.raises(KeyboardInterrupt):
        finetune(broken, (x, torch.arange(64) % 4), checkpoint=file, save_every=1, progress=stop, **settings)
    before, after = (list(stable_scales(one).values()) for one in (layers(), broken))
    assert before[0] < before[2] and after[0] > after[2]
    assert finetune(broken, (x, torch.arange(64) % 4), checkpoint=file, save_every=1, **settings) == expected
    assert all(torch.equal(a, b) for a, b in zip(broken.parameters(), whole.parameters(), strict=True))


def test_no_factorised_weight_to_train():
    with pytest.raises(ValueError, match=r"Linear has no factorised weight to train, so there is no sensitivity; compress the model first"):
        SensitivityPenalty(nn.Linear(3, 3))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_of_the_penalty_out_of_range(weight):
    with pytest.raises(ValueError, match=rf"sensitivity_weight is {weight}; a weight of at least 0 that is finite is needed: give for"):
        finetune(network(), DATA, sensitivity_weight=weight)


@pytest.mark.parametrize("layer", [Conv2d(3, 8, 3, groups=1, format=CP(rank=4)), tenfold.nn.ConvTranspose2d(3, 8, 3, format=CP(rank=4))])
def test_training_with_rebuilt_weights_is_the_same_to_rounding(layer):
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    results = []
    for is_rebuilt in (False, True):
        layer.zero_grad()
        layer.factorized.is_rebuilt = is_rebuilt
        y = layer(x)
        y.square().sum().backward()
        results.append([y.detach(), *(factor.grad.clone() for factor in layer.factorized.factors)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_finetune_with_rebuilt_weights_and_channels_last():
    ends = []
    for settings in ({}, {"rebuild": True, "channels_last": True}):
        model = network()
        ends.append(finetune(model, DATA, epochs=2, batch_size=16, lr=0.01, **settings).losses)
        assert not model[0].factorized.is_rebuilt
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)
