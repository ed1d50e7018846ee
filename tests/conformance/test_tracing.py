"""Conformance, item 9, first half: every format in every layer under torch.compile and torch.export; no search in forward."""

from typing import Any

import opt_einsum
import pytest
import torch
from torch.testing import assert_close

from conformance.cases import in_turn, plain_case
from conformance.subjects import LAYERS, SUBJECTS, Subject
from tenfold.layers.base import FactorizedLayer
from tenfold.layers.linear import Linear

IN_TURN = pytest.mark.parametrize(
    ("subject", "kind"), [pytest.param(*one, id=f"{one[0]}-{one[1].__name__}") for one in in_turn(verbs=False)]
)
EVERYWHERE = pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)


@IN_TURN
def test_no_graph_break(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """fullgraph=True raises at a graph break; values and gradients are those without compilation."""
    case = plain_case(subject, kind)
    layer = case.layer()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    factors = list(layer.factorized.factors)
    wanted = layer(*case.inputs)
    flow = torch.randn_like(wanted)
    got = compiled(*case.inputs)
    assert_close(got, wanted)
    for mine, other in zip(torch.autograd.grad(got, factors, flow), torch.autograd.grad(wanted, factors, flow), strict=True):
        assert_close(mine, other)


@IN_TURN
def test_export_with_a_dynamic_batch(subject: Subject, kind: type[FactorizedLayer]) -> None:
    case = plain_case(subject, kind)
    layer = case.layer().eval()
    (x,) = case.inputs
    with torch.no_grad():
        program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        run = program.module()
        for batch in (x, x[:2], torch.cat([x] * 12)):
            assert_close(run(batch), layer(batch))


@IN_TURN
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*is deprecated")
def test_jit_trace(subject: Subject, kind: type[FactorizedLayer]) -> None:
    """torch's older tracer, which hands out sizes as tensors: what it made takes other batches too."""
    case = plain_case(subject, kind)
    layer = case.layer().eval()
    (x,) = case.inputs
    with torch.no_grad():
        layer(x)  # what eval keeps must not become a constant
        traced: Any = torch.jit.trace(layer, x, check_trace=False)
        assert len(list(traced.parameters())) == len(list(layer.parameters()))
        before = traced(x).clone()
        next(traced.factorized.parameters()).mul_(2)  # it shares the layer's factors
        assert not torch.equal(traced(x), before)
        for batch in (x, x[:2], torch.cat([x] * 3)):
            assert_close(traced(batch), layer(batch))


def test_strict_export() -> None:
    """The other way of tracing, through Dynamo, for one format."""
    for kind in LAYERS:
        case = plain_case(SUBJECTS[0], kind)
        (x,) = case.inputs
        program = torch.export.export(case.layer().eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=True)
        assert program.module()(torch.cat([x] * 3)).shape[0] == 3 * len(x)


def test_export_with_dynamic_positions() -> None:
    """Convolutions of one format take images of any size; the plan is then made for a middling one."""
    for kind in [one for one in LAYERS if hasattr(one, "is_transposed")]:
        case = plain_case(SUBJECTS[0], kind)
        layer = case.layer().eval()
        x = torch.cat([case.inputs[0]] * 2, 2)
        axes = {n: torch.export.Dim.DYNAMIC for n in range(x.dim()) if n != 1}
        program = torch.export.export(layer, (x,), dynamic_shapes=(axes,), strict=False)
        for other in (x, case.inputs[0], torch.cat([x] * 9, 2)):
            assert_close(program.module()(other), layer(other))


def test_other_batch_sizes_under_compile() -> None:
    """Batches of another class of sizes have another plan: a recompilation, not an error or the wrong plan."""
    case = plain_case(SUBJECTS[0], Linear)
    layer = case.layer()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    for batch in (6, 2, 100, 3000, 7):
        x = torch.randn(batch, layer.in_features, dtype=torch.float64)
        assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("kind", [one for one in LAYERS if hasattr(one, "is_transposed")], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("is_training", [True, False])
def test_other_image_sizes_under_compile(kind: type[FactorizedLayer], is_training: bool) -> None:
    """From the second size on torch traces sizes as symbols."""
    case = plain_case(SUBJECTS[0], kind)
    layer = case.layer().train(is_training)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    (x,) = case.inputs
    with torch.set_grad_enabled(is_training):
        for other in (x, torch.cat([x] * 2, 2), torch.cat([x] * 3, -1), torch.cat([x] * 2)):
            assert_close(compiled(other), layer(other))


@IN_TURN
def test_no_search_in_forward(subject: Subject, kind: type[FactorizedLayer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a plan for a class of sizes exists, neither forward nor backward asks opt_einsum for a path."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a contraction path was searched")

    case = plain_case(subject, kind)
    layer = case.layer()
    _run_all(layer, case.inputs)
    monkeypatch.setattr(opt_einsum, "contract_path", refuse)
    monkeypatch.setattr(opt_einsum, "contract", refuse)
    monkeypatch.setattr("tenfold.contract.search._plan", refuse)
    _run_all(layer, case.inputs)
    _run_all(layer, tuple(x[1:] for x in case.inputs))  # another batch of the same class


def _run_all(layer: Any, inputs: tuple[Any, ...]) -> None:
    layer.train()(*inputs).sum().backward()
    layer.eval()(*inputs)
    with torch.no_grad():
        layer(*inputs)
    _ = layer.weight


@pytest.mark.slow
def test_inductor() -> None:
    """One smoke test of generated code: the formats and layers differ in which torch operations they call, not in more."""
    case = plain_case(SUBJECTS[0], Linear)
    layer = case.layer().eval()
    torch._dynamo.reset()
    with torch.no_grad():
        assert_close(torch.compile(layer, fullgraph=True)(*case.inputs), layer(*case.inputs))


def test_symbolic_tracing_takes_layers_whole() -> None:
    """torch.fx replaces tensors by proxies, which a layer cannot plan for; as a leaf, like torch's own layers, it is one step."""
    case = plain_case(SUBJECTS[0], Linear)
    model = torch.nn.Sequential(case.layer()).eval()
    with pytest.raises(TypeError, match=r"^Linear got a Proxy; it needs a tensor: trace with a torch.fx.Tracer whose is_leaf_module is"):
        torch.fx.symbolic_trace(model)

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, FactorizedLayer) or super().is_leaf_module(m, module_qualified_name)

    traced = torch.fx.GraphModule(model, Tracer().trace(model))
    assert_close(traced(*case.inputs), model(*case.inputs))
