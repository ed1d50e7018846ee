"""Layer-wise distillation: what is compared, and that every layer learns from it."""

import copy

import pytest
import torch
from torch import nn

import tenfold
from tenfold.features import Features
from tenfold.finetune import finetune
from tenfold.formats import SVD
from tenfold.layers.base import FactorizedLayer

INPUTS = torch.randn(64, 12, generator=torch.Generator().manual_seed(0)) * 0.6 ** torch.arange(12)


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    return tenfold.compress(dense, {"0": SVD(rank=6), "2": SVD(rank=6)}), dense


def test_the_distance_is_the_mean_relative_squared_error_of_the_layers():
    model, teacher = pair()
    features = Features(model, teacher)
    with features.recorded():
        model(INPUTS)
        teacher(INPUTS)
    hidden, other = INPUTS, INPUTS
    expected = []
    for number in (0, 2):
        mine, theirs = model[number](hidden), teacher[number](other)
        expected.append((mine - theirs).square().sum() / theirs.square().sum())
        hidden, other = mine.relu(), theirs.relu()
    torch.testing.assert_close(features.distance(), torch.stack(expected).mean())
    assert not any(module._forward_hooks for module in [*model.modules(), *teacher.modules()])


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
    "parts": lambda model: nn.Sequential(*(torch.compile(part, backend="eager") for part in model)),
}


@pytest.mark.parametrize("is_student", [False, True])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_models_are_compared_like_those_inside(wrapper: str, is_student: bool):
    options = {"batch_size": 16, "teacher_weight": 1.0, "feature_weight": 0.5}
    model, teacher = pair()
    expected = finetune(model, INPUTS, teacher=teacher, **options).losses
    model, teacher = pair()
    model, teacher = (WRAPPERS[wrapper](model), teacher) if is_student else (model, WRAPPERS[wrapper](teacher))
    assert finetune(model, INPUTS, teacher=teacher, **options).losses == pytest.approx(expected)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.rnn(x)[0])


def test_recurrent_layers_are_compared_as_a_whole():
    torch.manual_seed(0)
    teacher = Recurrent()
    model = tenfold.compress(teacher, {"rnn.*": SVD(rank=2)})
    features, x = Features(model, teacher), torch.randn(5, 4, 6)
    with features.recorded():
        model(x)
        teacher(x)
    mine, theirs = model.rnn(x)[0], teacher.rnn(x)[0]
    torch.testing.assert_close(features.distance(), (mine - theirs).square().sum() / theirs.square().sum())


def test_a_first_stage_on_features_alone_brings_every_layer_closer_and_leaves_the_teacher():
    model, teacher = pair()
    kept = copy.deepcopy(teacher.state_dict())

    def gaps() -> list[float]:
        found, hidden, other = [], INPUTS, INPUTS
        with torch.no_grad():
            for mine, theirs in zip(model, teacher, strict=True):
                hidden, other = mine(hidden), theirs(other)
                if isinstance(mine, FactorizedLayer):
                    found.append(float((hidden - other).norm() / other.norm()))
        return found

    before = gaps()
    finetune(model, INPUTS, epochs=60, batch_size=32, lr=3e-3, teacher=teacher, teacher_weight=1.0, feature_weight=1.0)
    assert all(after < 0.9 * first for after, first in zip(gaps(), before, strict=True))
    assert all(torch.equal(value, kept[name]) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("setting", [{"feature_weight": 0.5}, {"outputs": "values"}])
def test_lessons_without_a_teacher_are_refused(setting):
    with pytest.raises(
        ValueError, match=r"feature_weight is [\d.]+ and outputs (None|'values') without a teacher; a model to learn from is"
    ):
        finetune(pair()[0], (INPUTS, INPUTS[:, :3]), **setting)


def test_what_cannot_be_compared():
    model, teacher = pair()
    with pytest.raises(ValueError, match=r"the teacher Sequential has no layer 2; features are compared .*: give the model before compr"):
        Features(model, teacher[:2])
    with pytest.raises(ValueError, match=r"has no counterpart, as the model has no factorised layer; features are"):
        Features(teacher, teacher)
    with pytest.raises(ValueError, match=r"feature_weight is 1.5; it needs a share of the teacher's part of the loss, 0 to 1"):
        finetune(model, INPUTS, teacher=teacher, feature_weight=1.5)
    features = Features(model, teacher)
    with features.recorded():
        model(INPUTS)
    with pytest.raises(ValueError, match=r"no factorised layer of the model ran on this batch together with that of the teacher"):
        features.distance()
