"""One step of training: its loss, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tenfold.evaluate import evaluate
from tenfold.learner import Learner, Teacher
from tenfold.loss import distillation_loss
from tenfold.optimizer import Schedule

INPUTS, TARGETS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))


def learner(teacher: Teacher | None = None, **settings) -> Learner:
    model = network().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rest = {"precision": "float32", "clip_norm": None, "loss": None, **settings}
    return Learner(model, optimizer, Schedule(optimizer, 10, 1), teacher=teacher, **rest)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_mixes_task_and_teacher(weight):
    teacher = network(seed=1)
    output = network().eval()(INPUTS)
    distance = distillation_loss(output, network(seed=1).eval()(INPUTS), TARGETS, 2.0)
    expected = weight * distance + (1 - weight) * F.cross_entropy(output, TARGETS)
    value, lr = learner(Teacher(teacher, weight, 2.0)).learn(INPUTS, TARGETS, 0)
    assert (value, lr) == pytest.approx((expected.item(), 0.05))
    assert teacher.training


def test_the_step_goes_down_the_gradient():
    one = learner()
    expected = network().eval()
    F.cross_entropy(expected(INPUTS), TARGETS).backward()
    one.learn(INPUTS, TARGETS, 1)
    wanted = [p - 0.1 * p.grad for p in expected.parameters()]
    torch.testing.assert_close(list(one.model.parameters()), wanted)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_clip_norm_out_of_range(clip_norm):
    with pytest.raises(ValueError, match=r"clip_norm is -?[\w.]+; it needs a norm above 0, or None for gradients as they are, e.g. 1.0"):
        learner(clip_norm=clip_norm)


def test_teacher_settings_out_of_range():
    with pytest.raises(ValueError, match=r"teacher_weight is 1.5; it needs a share of the loss, 0 to 1, e.g. 0.9"):
        Teacher(network(), 1.5, 4.0)
    with pytest.raises(ValueError, match=r"temperature is 0.0; it needs to be above 0 and finite, e.g. 4"):
        Teacher(network(), 0.5, 0.0)
    with pytest.raises(ValueError, match=r"outputs is 'logits'; what the outputs are is needed: give .classes., .values., or leave it out"):
        Teacher(network(), 0.5, 1.0, outputs="logits")


@pytest.mark.parametrize("targets", [None, [1, 2]])
def test_targets_that_are_not_tensors(targets):
    with pytest.raises(
        ValueError, match=r"targets of type \w+, not tensors; fine-tuning needs \(input, target\) or a teacher: give labelled"
    ):
        learner().learn(INPUTS, targets, 0)


def test_a_loss_of_the_users_own_gets_what_model_and_data_give():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network().eval()

        def forward(self, x):
            return {"classes": self.net(x), "loss": None}

    model, seen = Both(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(output, targets):
        seen.append((output, targets))
        return F.cross_entropy(output["classes"], targets["labels"][0])

    one = Learner(model, optimizer, Schedule(optimizer, 10, 1), "float32", None, None, loss)
    expected = F.cross_entropy(network().eval()(INPUTS), TARGETS).item()
    assert one.learn(INPUTS, {"labels": [TARGETS]}, 0)[0] == pytest.approx(expected)
    found = evaluate(network().eval(), [(INPUTS, {"labels": [TARGETS]})], loss=lambda output, wanted: loss({"classes": output}, wanted))
    assert (found.loss, found.accuracy, found.n) == (pytest.approx(expected), None, 6)
    assert len(seen) == 2


def test_a_teacher_that_would_learn():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for teacher in (model, nn.Sequential(model[0], nn.Linear(4, 2))):
        with pytest.raises(
            ValueError, match=r"the teacher shares parameters with the model.*; a model of its own is needed: compress without"
        ):
            Learner(model, optimizer, Schedule(optimizer, 10, 1), "float32", None, Teacher(teacher, 0.5, 1.0), None)
