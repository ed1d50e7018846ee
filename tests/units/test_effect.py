"""What errors of layers cost a model, measured."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold import SVD, TTM
from tenfold.calibrate import input_moments
from tenfold.ranks import effect
from tenfold.ranks.candidates import Candidate, candidates
from tenfold.ranks.effect import divergence, effects
from tenfold.selection import Choice
from tenfold.survey import Found, survey

PLAIN = SVD()


def offers(found: Found, format: Any = PLAIN) -> list[Candidate]:
    return candidates([found], format, None, Choice(format).fold(found), [None], sweeps=5, seed=0)[0]


class Weighed(nn.Module):
    """Two equal branches of which the second counts a hundredth."""

    def __init__(self) -> None:
        super().__init__()
        self.strong, self.weak, self.unused = (nn.Linear(32, 8) for _ in range(3))
        self.weak.load_state_dict(self.strong.state_dict())
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.strong(x) + 0.01 * self.weak(x)


def test_layers_that_matter_weigh_more():
    model = Weighed().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = [(one, offers(one), None) for one in survey(model)]
    strong, weak, unused = (one.loss for one in effects(model, layers, (torch.randn(64, 32), None)))
    assert 3000 < strong / weak < 30000  # about the square of 100
    assert weak <= unused <= strong  # one that the outputs do not depend on is taken for an average one
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())


def test_the_weight_comes_back_when_the_model_fails():
    model = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 8))
    kept = [one.weight.detach().clone() for one in model]
    calls = []

    def fail(module: nn.Module, inputs: Any) -> None:
        calls.append(module)
        if len(calls) == 2:
            raise ArithmeticError

    model[1].register_forward_pre_hook(fail)
    with pytest.raises(ArithmeticError):
        effects(model, [(one, offers(one), None) for one in survey(model)], (torch.randn(4, 32), None))
    assert all(torch.equal(one.weight, weight) for one, weight in zip(model, kept, strict=True))


@pytest.mark.parametrize("format", [SVD(), TTM()], ids=str)
def test_layers_with_a_metric_also_where_modes_are_padded(format: Any):
    model, x = nn.Linear(101, 103), torch.randn(60, 101)
    [found] = survey(model)
    moments = input_moments(model, [found], x)
    [effect] = effects(model, [(found, offers(found, format), moments[""])], (x, None))
    assert effect.loss > 0
    assert 0.01 < effect.scale < 100


def test_a_mean_that_will_be_corrected_costs_nothing():
    """Inputs with a large constant part: of a layer with a bias the compressed model gets the mean back, so the probe must not count it."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(32, 16)).eval(), 0.1 * torch.randn(200, 32) + 10 * torch.randn(32)
    [found] = survey(model)
    moment = input_moments(model, [found], x)["0"]
    free, counted = (
        effects(model, [(found, offers(found), replace(moment, is_mean_free=is_free))], (x, None))[0] for is_free in (True, False)
    )
    change = model[0].weight.detach()
    hook = effect._without_shift(moment, change)
    output = F.linear(x, change)
    torch.testing.assert_close(hook(model[0], (x,), output).mean(0), torch.zeros(16), rtol=0, atol=1e-3)
    assert effect._without_shift(None, change)(model[0], (x,), output) is None
    assert free.loss > 0 and counted.loss > 0


def test_groups_of_different_size_count_by_their_size():
    """The error that a plan names, that of the probe and that of the weight are the same number."""
    model = nn.Conv1d(24, 36, 3, groups=3)
    with torch.no_grad():
        model.weight[:12] *= 100
        model.weight[12:24] = torch.outer(torch.randn(12), torch.randn(24)).reshape(12, 8, 3)  # of rank one
    [found] = survey(model)
    [effect] = effects(model, [(found, offers(found), None)], (torch.randn(8, 24, 20), None))
    assert effect.scale == pytest.approx(1, rel=1e-6)


class Tolerant(nn.Module):
    """A linear layer whose small errors are forgiven."""

    def __init__(self, x: Tensor, forgiven: float) -> None:
        super().__init__()
        self.linear, self.forgiven = nn.Linear(24, 20), forgiven
        with torch.no_grad():
            self.linear.weight.mul_(0.8 ** torch.arange(24))  # so that small errors are among the candidates
        self.register_buffer("wanted", self.linear(x).detach())

    def forward(self, x: Tensor) -> Tensor:
        return self.wanted + F.softshrink(self.linear(x) - self.wanted, self.forgiven)


def test_large_errors_count_more_than_in_proportion_where_the_model_says_so():
    torch.manual_seed(0)
    x = torch.randn(64, 24)
    found = []
    for forgiven in (0.0, 0.1):
        model = Tolerant(x, forgiven)
        [layer] = survey(model)
        found += effects(model, [(layer, offers(layer), None)], (x, None))
    assert found[0].power == pytest.approx(1, abs=0.2) and found[1].power > 1.4
    assert all(one.loss_of(one.knee) == pytest.approx(one.loss * one.knee) for one in found)
    assert found[1].loss_of(0.3) > 1.5 * found[1].loss * 0.3


def test_divergence_of_logits_is_kullback_leiblers():
    p, q, labels = torch.randn(7, 5), torch.randn(7, 5), torch.arange(7) % 5
    expected = F.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="batchmean")
    assert divergence(p, q, labels) == pytest.approx(float(expected), rel=1e-5)
    assert divergence({"logits": p}, {"logits": q}) == pytest.approx(float(expected), rel=1e-5)
    assert divergence(p, p, labels) == 0 and 0 <= divergence(p, p + 3, labels) < 1e-12

    def spread(one: Tensor, *shape: int) -> Tensor:
        return one.reshape(7, *(1 if n != 5 else 5 for n in shape)).expand(7, *shape)

    words = divergence(spread(p, 4, 5), spread(q, 4, 5), labels[:, None].expand(7, 4))
    steps = divergence(spread(p, 5, 4), spread(q, 5, 4), labels[:, None].expand(7, 4))
    images = divergence(spread(p, 5, 2, 3), spread(q, 5, 2, 3), labels[:, None, None].expand(7, 2, 3))
    assert [words, steps, images] == pytest.approx([float(expected)] * 3, rel=1e-5)


def test_divergence_of_masked_logits_is_finite():
    p, q, labels = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([1, 2, 3])
    p[:, 0] = q[:, 0] = -torch.inf
    found = divergence(p, q, labels)
    assert 0 < found < torch.inf and found == pytest.approx(divergence(p[:, 1:], q[:, 1:], labels - 1))


@pytest.mark.parametrize("targets", [None, torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)], ids=["none", "values", "classes"])
def test_divergence_of_values_is_the_squared_relative_error(targets: Tensor | None):
    """Class labels that do not fit the outputs, as of the images that an autoencoder rebuilds, do not make them logits."""
    images = torch.full((3, 3, 4, 4), 2.0)
    assert divergence(images, images + 1, targets) == pytest.approx(0.25)
    assert divergence(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0])) == 1
    assert divergence(torch.full((3, 1), 2.0), torch.full((3, 1), 3.0)) == pytest.approx(0.25)


def test_divergence_of_one_logit_is_bernoullis():
    x, y, labels = torch.randn(9, 1), torch.randn(9, 1), torch.arange(9) % 2
    p, q = (torch.distributions.Bernoulli(logits=one.double()) for one in (x, y))
    expected = float(torch.distributions.kl_divergence(p, q).mean())
    assert divergence(x, y, labels) == pytest.approx(divergence(x, y, labels[:, None])) == pytest.approx(expected)


@dataclass
class Heads:
    name: str
    scores: Tensor | None
    boxes: Tensor


def test_divergence_of_several_outputs_is_their_sum():
    boxes, scores, labels = torch.full((4, 2), 2.0), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = 0.25 + divergence(scores, scores.flip(1), labels)
    assert divergence((scores, {"b": boxes}), (scores.flip(1), {"b": boxes + 1}), labels) == pytest.approx(expected)
    assert divergence(Heads("a", None, boxes), Heads("b", None, boxes + 1)) == pytest.approx(0.25)
    with pytest.raises(TypeError, match="the model's output is a Heads without predictions"):
        divergence(Heads("a", None, labels), Heads("a", None, labels))
    with pytest.raises(
        ValueError, match=r"the shapes \[\(3, 2\)\] with a layer approximated, and \[\(4, 2\)\] without; .* before they are"
    ):
        divergence(boxes, boxes[:3])


class Level(nn.Module):
    """A regression whose first branch makes a hundred times as much of the outputs as the second, the same for all outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.level, self.shape = nn.Linear(32, 16), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return 10 * self.level(x).sum(-1, keepdim=True) + 0.1 * self.shape(x)


def test_values_are_no_logits():
    """A softmax would not see what all outputs share, and call the layer that makes them unimportant."""
    model, x = Level(), torch.randn(64, 32)
    layers = [(one, offers(one), None) for one in survey(model)]
    level, shape = (one.loss for one in effects(model, layers, (x, torch.randn(64, 16))))
    assert level > 100 * shape


def test_outputs_that_are_not_finite():
    model = nn.Sequential(nn.Linear(32, 16), nn.LogSigmoid())
    model.register_forward_hook(lambda module, arguments, output: output.log())
    with pytest.raises(ValueError, match="Sequential has outputs that are NaN or infinite for the calibration data; .* check the weights"):
        effects(model, [(one, offers(one), None) for one in survey(model)], (torch.randn(4, 32), None))
