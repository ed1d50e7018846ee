"""Conformance, item 9, second half: what any torch module may be asked for."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from conformance.cases import in_turn, plain_case
from conformance.checks import state_of
from conformance.subjects import LAYERS, SUBJECTS, Subject
from tenfold.layers.base import FactorizedLayer

IN_TURN = pytest.mark.parametrize(
    ("subject", "kind"), [pytest.param(*one, id=f"{one[0]}-{one[1].__name__}") for one in in_turn(verbs=True)]
)
EVERYWHERE = pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)


@IN_TURN
def test_forward_changes_nothing(subject: Subject, kind: type[FactorizedLayer]) -> None:
    case = plain_case(subject, kind)
    layer = case.layer()
    before, attributes = state_of(layer), set(vars(layer))
    layer(*case.inputs)
    with torch.no_grad():
        layer.eval()(*case.inputs)
        assert layer.weight.shape == case.dense.weight.shape  # type: ignore[union-attr]
    assert set(vars(layer)) == attributes
    assert all(type(tensor) is torch.Tensor for tensor in layer.state_dict().values())
    assert_close(state_of(layer), before, rtol=0, atol=0)
    assert sum(p.numel() for p in layer.factorized.parameters()) == layer.factorized.network.numel


@IN_TURN
def test_copies(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """deepcopy, pickle and torch.save give layers of their own with the same outputs, also after results have been kept."""
    case = plain_case(subject, kind)
    layer = case.layer().eval()
    with torch.no_grad():
        wanted = layer(*case.inputs)
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        loaded = case.layer().eval()
        loaded(*case.inputs)
        loaded.load_state_dict(torch.load(file, weights_only=True))
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
            assert_close(other(*case.inputs), wanted, rtol=0, atol=0)
            for term in other.factorized.network.term_slices:
                other.factorized.factors[term.start].mul_(2)
            assert_close(other.weight, 2 * layer.weight)
            assert_close(layer(*case.inputs), wanted, rtol=0, atol=0)


@IN_TURN
def test_dtypes(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """`to` keeps values to the dtype's accuracy, outputs have the dtype of the layer, gradients that of the factors."""
    case = plain_case(subject, kind)
    layer = case.layer()
    wanted = layer(*case.inputs).detach()
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.2), (torch.float16, 0.03)):
        small = copy.deepcopy(layer).to(dtype)
        inputs = [x.to(dtype) if x.is_floating_point() else x for x in case.inputs]
        output = small(*inputs)
        assert output.dtype == small.weight.dtype == dtype
        assert_close(output.double(), wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max()))
        output.sum().backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in small.parameters())
    assert layer.to("meta").weight.is_meta


@IN_TURN
def test_autocast(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """Under autocast the output has the dtype of the dense layer's, and nothing kept there is used outside of it."""
    case = plain_case(subject, kind, dtype=torch.float32)
    layer = case.layer().float()
    dense = layer.to_dense()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine, theirs = layer(*case.inputs), dense(*case.inputs)
        assert mine.dtype == theirs.dtype
        assert layer.weight.dtype == torch.float32
        mine.float().sum().backward()
    assert_close(mine.float(), theirs.float(), rtol=0.1, atol=0.1 * float(theirs.detach().float().abs().max()))
    layer.eval()
    with torch.no_grad():
        wanted = layer(*case.inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(*case.inputs).dtype == theirs.dtype
        assert_close(layer(*case.inputs), wanted, rtol=0, atol=0)


@IN_TURN
def test_shapes_on_meta(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """On "meta" a layer gives the shape and the dtype of its outputs, as torch's layers do."""
    case = plain_case(subject, kind)
    layer = case.layer()
    wanted = layer(*case.inputs)
    for is_training in (True, False):
        got = layer.to("meta").train(is_training)(*(x.to("meta") for x in case.inputs))
        assert got.is_meta
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)


@IN_TURN
def test_grad_modes(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """inference_mode, no_grad, frozen factors and training follow each other in any order."""
    case = plain_case(subject, kind)
    layer = case.layer().eval()
    wanted = layer(*case.inputs).detach()
    with torch.inference_mode():
        assert_close(layer(*case.inputs), wanted)
    with torch.no_grad():
        assert_close(layer(*case.inputs), wanted)
    assert layer(*case.inputs).requires_grad
    layer.requires_grad_(False)
    assert not layer(*case.inputs).requires_grad
    layer.requires_grad_(True).train()
    layer(*case.inputs).sum().backward()
    assert all(factor.grad is not None for factor in layer.factorized.factors)


@IN_TURN
def test_kept_results_follow_the_factors(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """In eval, what was kept is renewed when an optimiser, a user or torch.func changes a factor."""
    case = plain_case(subject, kind)
    layer = case.layer().eval()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with torch.no_grad():
        layer(*case.inputs)
    layer(*case.inputs).sum().backward()
    optimizer.step()
    _assert_fresh(layer, case.inputs)
    with torch.no_grad():
        layer.factorized.factors[-1].mul_(3)
    _assert_fresh(layer, case.inputs)
    for scale in (2.0, 5.0):
        other = {name: p.detach() * scale for name, p in layer.named_parameters()}
        with torch.no_grad():
            got = torch.func.functional_call(layer, other, case.inputs)
            twin = copy.deepcopy(layer)
            twin.load_state_dict(other)
            assert_close(got, twin(*case.inputs))
    _assert_fresh(layer, case.inputs)


def _assert_fresh(layer: Any, inputs: Any) -> None:
    with torch.no_grad():
        got = layer(*inputs), layer.weight
    assert_close(got, (layer(*inputs).detach(), layer.weight.detach()))
    assert_close(got[0], layer.to_dense()(*inputs).detach())


@EVERYWHERE
def test_memory_is_given_back_in_training(kind: type[FactorizedLayer]) -> None:
    case = plain_case(SUBJECTS[0], kind)
    layer = case.layer().eval()
    with torch.no_grad():
        first = layer.weight
        assert layer.weight is first, "kept between calls"
    layer.train()
    assert not layer.factorized._prepared
