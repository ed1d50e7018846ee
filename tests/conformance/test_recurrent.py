"""Conformance of recurrent layers: every format in LSTM, GRU and RNN and their cells against torch's layers with the same weights."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.testing import assert_close

import tenfold
from conformance.subjects import SUBJECTS, Subject
from tenfold import recurrent
from tenfold.recurrent.base import Recurrent
from tenfold.recurrent.cells import Cell

LAYERS = [one for one in vars(recurrent).values() if isinstance(one, type) and issubclass(one, Recurrent)]
CELLS = [one for one in vars(recurrent).values() if isinstance(one, type) and issubclass(one, Cell)]
EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
KINDS = pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bias": False, "bidirectional": True},
)
IN, HIDDEN, STEPS, BATCH = 12, 8, 5, 3


def layer_of(kind: type[Recurrent], **options: Any) -> Any:
    return kind(IN, HIDDEN, dtype=torch.float64, **options)


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, PackedSequence):
        return [value.data]
    return [value] if isinstance(value, Tensor) else [part for one in value for part in tensors_of(one)]


def state_for(layer: Any, batch: int | None = BATCH) -> Any:
    rows = layer.num_layers * layer.n_directions
    widths = (layer.n_out, layer.hidden_size)[: layer.n_states]
    parts = tuple(torch.randn(*((rows, width) if batch is None else (rows, batch, width)), dtype=torch.float64) for width in widths)
    return parts if layer.n_states > 1 else parts[0]


def inputs_for(layer: Any) -> dict[str, tuple[Any, Any]]:
    """Inputs and states of every kind that a layer takes."""
    x = torch.randn(STEPS, BATCH, IN, dtype=torch.float64)
    padded = x.transpose(0, 1) if layer.batch_first else x
    packed = {
        name: pack_padded_sequence(x, lengths, enforce_sorted=False) for name, lengths in {"falling": [5, 4, 1], "mixed": [2, 5, 3]}.items()
    }
    return {
        "padded": (padded, None),
        "padded with a state": (padded, state_for(layer)),
        "unbatched": (x[:, 0], None),
        "unbatched with a state": (x[:, 0], state_for(layer, None)),
        **{f"packed, {name}": (one, None) for name, one in packed.items()},
        **{f"packed, {name}, with a state": (one, state_for(layer)) for name, one in packed.items()},
    }


def check(layer: Any) -> None:
    """Outputs, states and the gradients of all maps are those of torch's layer."""
    dense = layer.to_dense()
    for name, (x, state) in inputs_for(layer).items():
        got, wanted = tensors_of(layer(x, state)), tensors_of(dense(x, state))
        for mine, other in zip(got, wanted, strict=True):
            assert_close(mine, other, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    flows = [torch.randn_like(one) for one in wanted]
    torch.autograd.backward(got, flows)
    torch.autograd.backward(wanted, flows)
    for name, one in layer.named_children():
        weight = getattr(dense, f"weight_{name}")
        if isinstance(one, nn.Linear):
            assert_close(one.weight.grad, weight.grad, rtol=1e-9, atol=1e-9)
        else:
            factors = list(one.factorized.factors)
            for factor, through in zip(factors, torch.autograd.grad(one.weight, factors, weight.grad), strict=True):
                assert_close(factor.grad, through, rtol=1e-9, atol=1e-9)
        if one.bias is not None:
            assert_close(one.bias.grad, getattr(dense, f"bias_{name}").grad, rtol=1e-9, atol=1e-9)


@EVERY
@KINDS
def test_every_format_for_inputs_and_states(subject: Subject, kind: type[Recurrent]) -> None:
    check(layer_of(kind, format=subject.ranked(2), recurrent_format=subject.ranked(1)))


@KINDS
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_torch(kind: type[Recurrent], options: dict[str, Any]) -> None:
    for formats in ({}, {"format": tenfold.TTM(rank=2)}, {"recurrent_format": tenfold.KCP(rank=2)}):
        check(layer_of(kind, **options, **formats))
    check(layer_of(recurrent.LSTM, **options, proj_size=3, format=tenfold.KCP(rank=2)))


@KINDS
def test_one_map_of_input_and_state(kind: type[Recurrent]) -> None:
    layer = layer_of(kind, joint_format=tenfold.TTM(rank=2), num_layers=2, bidirectional=True)
    dense = layer.to_dense()
    for x, state in inputs_for(layer).values():
        for mine, other in zip(tensors_of(layer(x, state)), tensors_of(dense(x, state)), strict=True):
            assert_close(mine, other, rtol=1e-10, atol=1e-10)


@KINDS
def test_a_map_with_hooks_is_called_at_every_step(kind: type[Recurrent]) -> None:
    for formats in ({}, {"recurrent_format": tenfold.KCP(rank=2)}):
        layer = layer_of(kind, **formats)
        x = torch.randn(STEPS, BATCH, IN, dtype=torch.float64)
        wanted = layer(x)[0]
        calls: list[Any] = []
        layer.hh_l0.register_forward_hook(lambda module, inputs, output, calls=calls: calls.append(inputs[0]))
        assert_close(layer(x)[0], wanted)
        assert len(calls) == STEPS
        assert_close(torch.stack(calls[1:]), wanted[:-1])
        layer.hh_l0.register_full_backward_hook(lambda *_, calls=calls: calls.append(None))
        layer(x)[0].sum().backward()
        assert calls.count(None) == STEPS


@KINDS
def test_a_map_with_a_forward_of_its_own_is_called(kind: type[Recurrent]) -> None:
    class Adapted(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 0.5 * input.sum(-1, keepdim=True)

    layer, x = layer_of(kind), torch.randn(STEPS, BATCH, IN, dtype=torch.float64)
    merged, adapted = copy.deepcopy(layer), Adapted(HIDDEN, layer.hh_l0.out_features, dtype=torch.float64)
    adapted.load_state_dict(layer.hh_l0.state_dict())
    layer.hh_l0 = adapted
    with torch.no_grad():
        merged.hh_l0.weight.add_(0.5)
    assert_close(layer(x)[0], merged(x)[0])


@pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
def test_cells(kind: type[Cell]) -> None:
    for formats in ({}, {"format": tenfold.TTM(rank=2), "recurrent_format": tenfold.KCP(rank=2)}, {"bias": False}):
        cell = kind(IN, HIDDEN, dtype=torch.float64, **formats)
        dense: Any = cell.to_dense()
        x = torch.randn(BATCH, IN, dtype=torch.float64)
        state = torch.randn(BATCH, HIDDEN, dtype=torch.float64)
        states: Any = (state, state.flip(0)) if kind.n_states > 1 else state
        for arguments in ((x,), (x, states), (x[0],)):
            for mine, other in zip(tensors_of([cell(*arguments)]), tensors_of([dense(*arguments)]), strict=True):
                assert_close(mine, other, rtol=1e-10, atol=1e-10)
        assert set(cell.factorized) == ({"weight_ih", "weight_hh"} if "format" in formats else set())


def test_a_cell_of_another_nonlinearity() -> None:
    cell = recurrent.RNNCell(IN, HIDDEN, nonlinearity="relu")
    x = torch.randn(BATCH, IN)
    assert_close(cell(x), cell.to_dense()(x))
    layer = recurrent.RNN(IN, HIDDEN, 2, "relu")
    assert_close(layer(x)[0], layer.to_dense()(x)[0])


@KINDS
def test_state_dicts_go_both_ways(kind: type[Recurrent]) -> None:
    dense: Any = kind.dense_type(IN, HIDDEN, 2, bidirectional=True)
    opened: Any = kind.opened(dense)
    x = torch.randn(STEPS, BATCH, IN)
    assert_close(opened(x)[0], dense(x)[0])
    assert all(opened._modules[name].weight is getattr(dense, f"weight_{name}") for name, _ in opened.named_children()), "shared"
    other = nn.Sequential(kind(IN, HIDDEN, 2, bidirectional=True))
    other.load_state_dict({f"0.{name}": value for name, value in dense.state_dict().items()})
    assert_close(other[0](x)[0], dense(x)[0])
    assert other[0].to_dense().state_dict().keys() == dense.state_dict().keys()
    for name, parameter in dense.named_parameters():
        assert_close(getattr(other[0], name), parameter)


@KINDS
def test_torch_names_of_factorised_maps(kind: type[Recurrent]) -> None:
    layer = layer_of(kind, format=tenfold.TTM(rank=2))
    assert list(layer.factorized) == ["weight_ih_l0"]
    assert_close(layer.weight_ih_l0, layer.ih_l0.factorized.dense())
    assert layer.bias_ih_l0 is layer.ih_l0.bias and layer.weight_hh_l0 is layer.hh_l0.weight
    for name in ("weight_ih_l1", "weight_hr_l0", "anything"):
        with pytest.raises(AttributeError, match=name):
            getattr(layer, name)
    layer.flatten_parameters()


@KINDS
def test_from_dense(kind: type[Recurrent]) -> None:
    """At full rank the layer is the trained one; its parameters are its own."""
    torch.manual_seed(0)
    dense: Any = kind.dense_type(IN, HIDDEN, 2, batch_first=True, dtype=torch.float64).eval()
    layer: Any = kind.from_dense(dense, tenfold.TTM(rank=1.0), recurrent_format=tenfold.SVD(rank=1.0))
    assert set(layer.factorized) == {"weight_ih_l0", "weight_ih_l1", "weight_hh_l0", "weight_hh_l1"} and not layer.training
    x = torch.randn(BATCH, STEPS, IN, dtype=torch.float64)
    assert_close(layer(x)[0], dense(x)[0], rtol=1e-8, atol=1e-8)
    assert not {p.data_ptr() for p in layer.parameters()} & {p.data_ptr() for p in dense.parameters()}
    with pytest.raises(TypeError, match=rf"{kind.__name__}.from_dense got a Linear; it needs a torch.nn.{kind.__name__}"):
        kind.from_dense(nn.Linear(2, 2))  # type: ignore[arg-type]


@KINDS
def test_copies_dtypes_and_tracing(kind: type[Recurrent]) -> None:
    layer: Any = kind(IN, HIDDEN, format=tenfold.KCP(rank=2), recurrent_format=tenfold.KCP(rank=1)).eval()
    x = torch.randn(STEPS, BATCH, IN)
    wanted = layer(x)[0]
    assert_close(copy.deepcopy(layer)(x)[0], wanted)
    assert_close(pickle.loads(pickle.dumps(layer))(x)[0], wanted)
    assert copy.deepcopy(layer).double()(x.double())[0].dtype == torch.float64
    assert copy.deepcopy(layer).to("meta")(x.to("meta"))[0].shape == wanted.shape
    torch._dynamo.reset()
    assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x)[0], wanted)
    assert_close(torch.export.export(layer, (x,)).module()(x)[0], wanted)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other: Any = kind(IN, HIDDEN, format=tenfold.KCP(rank=2), recurrent_format=tenfold.KCP(rank=1))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_close(other(x)[0], wanted)


@KINDS
def test_wrong_inputs_raise_what_torch_raises(kind: type[Recurrent]) -> None:
    layer = layer_of(kind, format=tenfold.KCP(rank=2))
    dense = layer.to_dense()
    x = torch.randn(STEPS, BATCH, IN, dtype=torch.float64)
    wrong: dict[str, tuple[Any, Any, str]] = {
        "features": (x[..., 1:], None, r"an input of 11 features; it has input_size=12: give as many"),
        "axes": (x[None], None, r"an input with 4 axes; it needs 2 \(steps, features\) or 3 \(steps, batch, features\)"),
        "no step": (x[:0], None, r"a sequence of 0 steps; at least one is needed: leave empty sequences out"),
        "dtype": (x.float(), None, r"the dtype torch.float32; its weights have torch.float64: convert one of them"),
    }
    for given, state, message in wrong.values():
        with pytest.raises((RuntimeError, ValueError)) as theirs:
            dense(given, state)
        with pytest.raises(theirs.type, match=message):
            layer(given, state)
    parts = state_for(layer)
    for other in (torch.float32, torch.int64):
        wrong_parts = (parts[0], parts[1].to(other)) if layer.n_states > 1 else parts.to(other)
        with pytest.raises(RuntimeError, match=rf"got a state of the dtype {other}; its input has torch.float64: convert one of them"):
            layer(x, wrong_parts)
    parts = state_for(layer, BATCH + 1)
    with pytest.raises(RuntimeError, match=r"a state of shape \(1, 4, 8\); it needs \(1, 3, 8\): build it for this input"):
        layer(x, parts)
    with pytest.raises(TypeError, match=r"a state of type (tuple|Tensor); it needs .*: give that, or nothing for zeros"):
        layer(x, parts[0] if layer.n_states > 1 else (parts, parts))
    with pytest.raises(TypeError, match=r"got a list; it needs a tensor or a PackedSequence: convert it with torch.as_tensor"):
        layer([1.0])
    empty = PackedSequence(x[0, :0], torch.zeros(0, dtype=torch.int64))
    with pytest.raises(RuntimeError, match=r"got a PackedSequence of zero length; at least one step is needed: leave empty sequences out"):
        layer(empty)
