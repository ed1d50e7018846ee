"""Conformance of layers, item 2: every format in every layer, with every option of torch's constructor."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from conformance.cases import LayerCase, layer_cases, plain_case
from conformance.checks import check_layer, for_all
from conformance.subjects import LAYERS, SUBJECTS, Subject
from tenfold.layers.base import FactorizedLayer, uniform_std

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
EVERYWHERE = pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@EVERY
@EVERYWHERE
def test_outputs_and_gradients_are_the_dense_layers(subject: Subject, kind: type[FactorizedLayer]) -> None:
    for_all(layer_cases(subject, kind), check_layer)


@EVERYWHERE
def test_constructor_is_torchs_with_a_format(kind: type[FactorizedLayer]) -> None:
    """tenfold.nn.X(..., format=) gives the layer that stands for torch.nn.X(...): same options, fold, bias and start."""

    def check(case: LayerCase) -> None:
        built = kind(**case.arguments, format=case.subject.ranked(case.rank), **case.modes, dtype=torch.float64)  # type: ignore[call-arg]
        other = case.layer()
        assert built.factorized.fold == other.factorized.fold
        assert built.factorized.network == other.factorized.network
        assert built.extra_repr() == other.extra_repr()
        dense = built.to_dense()
        assert type(dense) is kind.dense_type and dense.extra_repr() == case.dense.extra_repr()
        assert_close(dense.weight, built.weight)
        assert {name: p.shape for name, p in dense.named_parameters()} == {name: p.shape for name, p in case.dense.named_parameters()}
        assert all(p.dtype == torch.float64 for p in built.parameters())

    for_all(layer_cases(SUBJECTS[0], kind), check)


@EVERYWHERE
def test_start_has_the_deviation_of_torchs(kind: type[FactorizedLayer]) -> None:
    """The mean square of the weight over 200 starts is that of the torch layer's own start, within 4 standard errors of both."""
    case = plain_case(SUBJECTS[0], kind)
    layer: Any = kind(**case.arguments, format=SUBJECTS[0].ranked(2), **case.modes)  # type: ignore[call-arg]
    ours, theirs = torch.empty(200), torch.empty(200)
    for number in range(200):
        layer.reset_parameters()
        ours[number] = layer.weight.detach().square().mean()
        dense: Any = kind.dense_type(**case.arguments)
        theirs[number] = dense.weight.detach().square().mean()
    spread = (ours.var() + theirs.var()).div(200).sqrt()
    assert (ours.mean() - theirs.mean()).abs() < 4 * spread


def test_uniform_std() -> None:
    """Numbers that are uniform between -b and b have the standard deviation b / sqrt(3)."""
    assert uniform_std(12) == pytest.approx(1 / 6)
