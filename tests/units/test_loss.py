"""Losses against torch's own on outputs of every layout."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tenfold.loss import by_class, check_labels, distillation_loss, first_tensor, task_loss, tensors_of


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_first_tensor_of_every_kind_of_output():
    x = draw(2)
    assert first_tensor(x) is x
    assert first_tensor((x, draw(3))) is x
    assert first_tensor([(x,), 1]) is x
    assert first_tensor({"loss": draw(1), "logits": x}) is x
    assert first_tensor({"last_hidden_state": x}) is x
    assert first_tensor(SimpleNamespace(logits=(x,))) is x


@dataclass
class Heads:
    box: torch.Tensor
    loss: torch.Tensor | None
    more: list[torch.Tensor]


def test_tensors_of_every_kind_of_output():
    x, y, z = draw(2), draw(3), draw(4)
    for output in (
        Heads(x, None, [y, z]),
        {"a": x, "b": (None, y), "c": z},
        (torch.zeros(2, dtype=torch.long), x, x.mean(), [y, z], "text"),
    ):
        assert all(one is other for one, other in zip(tensors_of(output), (x, y, z), strict=True))
        assert first_tensor(output) is x
    assert len(tensors_of({"logits": x, "hidden_states": (y, z)})) == 1


@pytest.mark.parametrize("output", [(), {}, None, "text", [None], [torch.zeros(2, dtype=torch.long)], Heads])
def test_output_without_a_tensor(output):
    name = type(output).__name__
    with pytest.raises(TypeError, match=rf"the model's output is a {name} without predictions; floating-.*: wrap the model in a module"):
        first_tensor(output)


def test_several_outputs_are_all_learned():
    """Labels are those of the first one; what the teacher does not give, as of auxiliary heads, is left out."""
    scores, box, more, labels = draw(6, 5), draw(6, 4), draw(3, 3), torch.arange(6) % 5
    teacher = Heads(scores * 2, None, [box * 2])
    expected = distillation_loss(scores, scores * 2, labels, 3.0) + distillation_loss(box, box * 2, None, 3.0)
    torch.testing.assert_close(distillation_loss(Heads(scores, draw(1).sum(), [box, more]), teacher, labels, 3.0), expected)
    values = F.mse_loss(scores, scores * 2) + F.mse_loss(box, box * 2)
    torch.testing.assert_close(distillation_loss((scores, box), [scores * 2, box * 2], draw(6, 5), 3.0), values)


def test_classes_on_the_last_axis():
    output, targets = draw(4, 7, 5), torch.arange(28).reshape(4, 7) % 5
    torch.testing.assert_close(task_loss(output, targets), F.cross_entropy(output.reshape(28, 5), targets.reshape(28)))
    torch.testing.assert_close(task_loss(output[:, 0], targets[:, 0]), F.cross_entropy(output[:, 0], targets[:, 0]))


def test_classes_on_axis_one():
    output, targets = draw(4, 5, 2, 3), torch.arange(24).reshape(4, 2, 3) % 5
    torch.testing.assert_close(task_loss(output, targets), F.cross_entropy(output, targets))


def test_places_without_a_target_do_not_count():
    output, targets = draw(6, 5), torch.tensor([0, 1, -100, 2, -100, 3])
    torch.testing.assert_close(task_loss(output, targets), F.cross_entropy(output[targets >= 0], targets[targets >= 0]))


def test_small_integers_are_classes_too():
    output = draw(3, 2)
    expected = F.cross_entropy(output, torch.tensor([0, 1, 1]))
    torch.testing.assert_close(task_loss(output, torch.tensor([0, 1, 1], dtype=torch.uint8)), expected)
    torch.testing.assert_close(task_loss(output, torch.tensor([False, True, True])), expected)


def test_values():
    output, targets = draw(4, 2), draw(4, 2) + 1
    torch.testing.assert_close(task_loss(output, targets.double()), F.mse_loss(output, targets))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_have_a_loss_in_float32(dtype):
    loss = task_loss(draw(4, 5).to(dtype), torch.zeros(4, dtype=torch.long))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(draw(4, 5), torch.zeros(4, dtype=torch.long)), rtol=2e-2, atol=0)


def test_distillation_is_the_divergence_from_the_teacher():
    output, teacher, targets = draw(6, 5), draw(6, 5) * 2, torch.zeros(6, dtype=torch.long)
    p, q = (teacher / 3).softmax(-1), (output / 3).softmax(-1)
    expected = 9 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(output, teacher, targets, 3.0), expected)
    torch.testing.assert_close(distillation_loss(output, teacher, None, 3.0, "classes"), expected)
    torch.testing.assert_close(distillation_loss({"logits": output}, {"logits": teacher}, None, 3.0), expected)
    torch.testing.assert_close(distillation_loss(output, teacher, draw(6, 5), 3.0), F.mse_loss(output, teacher))
    images, wanted = draw(2, 5, 3, 3), draw(2, 5, 3, 3) * 2
    flat = distillation_loss(images.movedim(1, -1).reshape(-1, 5), wanted.movedim(1, -1).reshape(-1, 5), None, 1.0, "classes")
    torch.testing.assert_close(distillation_loss(images, wanted, None, 1.0, "classes"), flat)


def test_without_targets_both_distances_count_and_one_column_is_a_value():
    output, teacher = draw(6, 5), draw(6, 5) * 2
    alone = [distillation_loss(output, teacher, None, 3.0, kind) for kind in ("classes", "values")]
    torch.testing.assert_close(alone[1], F.mse_loss(output, teacher))
    torch.testing.assert_close(distillation_loss(output, teacher, None, 3.0), sum(alone))
    labels_of_something_else = torch.zeros(6, 3, dtype=torch.long)
    torch.testing.assert_close(distillation_loss(output, teacher, labels_of_something_else, 3.0), sum(alone))
    for shape in ((6,), (6, 1), (6, 1, 4, 4)):
        output, teacher = draw(*shape), draw(*shape) * 2
        torch.testing.assert_close(distillation_loss(output, teacher, None, 3.0), F.mse_loss(output, teacher))


@pytest.mark.parametrize(("shape", "labels"), [((6, 1), (6,)), ((6, 1), (6, 1)), ((6,), (6,)), ((6, 1, 2, 2), (6, 2, 2))])
def test_one_logit_is_that_of_class_one(shape, labels):
    output, teacher, targets = draw(*shape), draw(*shape) * 2, torch.ones(labels, dtype=torch.long)
    p, q = (teacher / 3).sigmoid(), (output / 3).sigmoid()
    expected = 9 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(distillation_loss(output, teacher, targets, 3.0), expected)
    torch.testing.assert_close(distillation_loss(output, teacher, None, 3.0, "classes"), expected)


def test_distillation_needs_equal_shapes():
    with pytest.raises(
        ValueError, match=r"output has shape \(6, 5\), but the teacher's has \(6, 4\); distillation needs equal shapes: take"
    ):
        distillation_loss(draw(6, 5), draw(6, 4), None, 1.0)


@pytest.mark.parametrize(("label", "shown"), [(10, "10"), (-1, "-1"), (-99, "-99")])
def test_labels_out_of_range(label, shown):
    targets = torch.tensor([0, 9, label])
    with pytest.raises(
        ValueError, match=rf"have the label {shown}, but the model has 10 classes, 0 to 9; number the labels from 0, or give"
    ):
        check_labels(targets, 10)
    with pytest.raises(ValueError, match=rf"have the label {shown}, but the model has 10 classes"):
        task_loss(draw(3, 10), targets)


def test_shapes_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"output has shape \(4,\) for integer targets of shape \(4,\); classes need .*: reshape one of them"
    ):
        by_class(draw(4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(
        ValueError, match=r"output has shape \(4, 1\), but the targets have \(4,\); a regression needs equal shapes: reshape"
    ):
        task_loss(draw(4, 1), draw(4))
