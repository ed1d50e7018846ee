"""Convolutions and transposed ones: what differs from the dense twin's twin, beyond the conformance suite."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tenfold.nn as tnn
from tenfold.contract import convolve_run
from tenfold.format import Format
from tenfold.formats import CP, KCP, KT, STT, SVD, TR, TTM, Tucker

TRANSPOSED = pytest.mark.parametrize(
    ("kind", "places"), [(tnn.ConvTranspose1d, (5,)), (tnn.ConvTranspose2d, (5, 4)), (tnn.ConvTranspose3d, (3, 4, 3))]
)


@TRANSPOSED
def test_output_size(kind: Any, places: tuple[int, ...]) -> None:
    """As in torch: with or without batch and channels, and every size that the stride leaves open."""
    layer = kind(6, 4, 3, stride=3, padding=1, format=CP(rank=3)).double()
    dense = layer.to_dense()
    n = len(places)
    x = torch.randn(2, 6, *places, dtype=torch.float64)
    least = [3 * (size - 1) + 1 for size in places]
    for extra in range(3):
        size = [one + extra for one in least]
        assert_close(layer(x, size), dense(x, size))
        assert layer(x, output_size=size).shape[2:] == torch.Size(size)
        assert_close(layer(x, [2, 4, *size]), dense(x, [2, 4, *size]))
        assert_close(layer(x[0], size), dense(x[0], size))
    for wrong, message in (
        ([one + 3 for one in least], r"output_size is .*, but an input with the positions .* can give .* to .*; choose sizes between them"),
        ([1] * n, "output_size is .* can give"),
        ([9] * (n + 1), f"output_size has {n + 1} sizes; {kind.__name__} needs {n} or {n + 2}: give the positions"),
    ):
        with pytest.raises(ValueError, match=r"output"):
            dense(x, wrong)
        with pytest.raises(ValueError, match=message):
            layer(x, wrong)


@TRANSPOSED
def test_transposed_shapes(kind: Any, places: tuple[int, ...]) -> None:
    """The weight is (in, out / groups, *kernel) and groups stand on the input axis."""
    layer = kind(6, 9, 2, groups=3, format=Tucker(rank=2))
    assert layer.weight.shape == (6, 3, *[2] * len(places))
    assert layer.factorized.fold.axis("i").groups == 3 and layer.factorized.fold.axis("o").groups == 1
    assert layer(torch.randn(1, 6, *places)).shape == kind.dense_type(6, 9, 2, groups=3)(torch.randn(1, 6, *places)).shape
    assert "stride" in repr(layer) and "groups=3" in repr(layer)


def test_from_dense_at_full_rank() -> None:
    for dense in (
        nn.ConvTranspose2d(6, 4, 3, stride=2, output_padding=1, groups=2),
        nn.Conv2d(6, 4, 3, padding="same", padding_mode="circular"),
    ):
        kind = getattr(tnn, type(dense).__name__)
        layer = kind.from_dense(dense.double().eval(), SVD(rank=1.0))
        x = torch.randn(2, 6, 7, 7, dtype=torch.float64)
        assert_close(layer(x), dense(x))
        assert not layer.training
        assert layer.bias is not dense.bias


@pytest.mark.parametrize("kind", [tnn.ConvTranspose2d, tnn.Conv2d])
def test_wrong_inputs(kind: Any) -> None:
    layer = kind(6, 4, 3, format=TTM(rank=2))
    with pytest.raises(
        RuntimeError, match=rf"the input has shape \(2, 5, 8, 8\); {kind.__name__} needs \(N, 6\) and 2 more axes, or one sample"
    ):
        layer(torch.zeros(2, 5, 8, 8))
    with pytest.raises(RuntimeError, match=rf"the input has shape \(1, 6, 8\); {kind.__name__} needs"):  # as it was given
        layer(torch.zeros(1, 6, 8))
    with pytest.raises(TypeError, match=rf"{kind.__name__} got a list; it needs a tensor: convert it with torch.as_tensor"):
        layer([1.0])


def test_options_that_torch_refuses() -> None:
    with pytest.raises(ValueError, match='Only "zeros" padding mode is supported'):
        tnn.ConvTranspose2d(4, 4, 3, padding_mode="circular", format=SVD(rank=2))
    with pytest.raises(ValueError, match=r"padding='same' is not supported for strided convolutions"):
        tnn.Conv2d(4, 4, 3, stride=2, padding="same", format=SVD(rank=2))
    with pytest.raises(ValueError, match=r"in_channels must be divisible by groups"):
        tnn.Conv2d(4, 4, 3, groups=3, format=SVD(rank=2))


def test_plan_of_a_layer() -> None:
    layer = tnn.Conv2d(64, 64, 3, padding=1, format=CP(rank=16))
    assert [step.kind for step in layer.plan().steps] == ["linear", "convolve", "linear"]
    text = str(layer.plan(batch=16, positions=(32, 32)))
    assert "convolve: o1 r, r k1 k2, r i1 -> o1 i1 k1 k2" in text


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(
    ("kind", "format", "groups"),
    [
        (tnn.Conv2d, TTM(rank=4), 1),
        (tnn.Conv2d, TTM(rank=4), 2),
        (tnn.Conv2d, KCP(rank=4), 2),
        (tnn.Conv2d, TR(rank=4), 1),
        (tnn.Conv1d, KT(rank=4), 1),
        (tnn.ConvTranspose2d, STT(rank=4), 2),
        (tnn.Linear, KCP(rank=4), 1),
    ],
)
def test_an_empty_batch_gives_an_empty_output(kind: Any, format: Format, groups: int, is_training: bool) -> None:
    options = {} if kind is tnn.Linear else {"kernel_size": 3, "groups": groups}
    layer = kind(16, 32, **options, format=format).train(is_training)
    x = torch.zeros(0, 16, *[9] * len(getattr(layer, "kernel_size", ())))
    with torch.set_grad_enabled(is_training):
        y = layer(x)
        assert y.shape == layer.to_dense()(x).shape
    if is_training:
        y.sum().backward()
        assert not any(p.grad.any() for p in layer.factorized.parameters())


def test_workload() -> None:
    """FLOP of the dense layer for one sample: a place of the output, of the input for a transposed layer, meets the whole weight."""
    load = tnn.Conv2d.workload(nn.Conv2d(8, 16, 3, stride=2, groups=4), (5, 8, 9, 9), (5, 16, 4, 4))
    assert load.dense_flops == 2 * 16 * 16 * 2 * 9
    assert load.positions is not None and (load.positions.n_in, load.positions.n_out, load.positions.stride) == (81, 16, 4)
    load = tnn.ConvTranspose2d.workload(nn.ConvTranspose2d(8, 16, 3, stride=2), (5, 8, 4, 4), (5, 16, 9, 9))
    assert load.dense_flops == 2 * 16 * 8 * 16 * 9
    assert load.positions is not None and load.positions.is_transposed


def test_backward_through_a_kernel_that_is_a_strided_view() -> None:
    """torch's own backward stops at such a weight where there is one output channel."""
    torch.manual_seed(0)
    layer = tnn.Conv2d(2, 1, (1, 2), bias=False, format=STT(rank=(1, 2), t=3), in_modes=(3,), out_modes=(1,), dtype=torch.float64)
    for batch in (1, 2, 16):
        x = torch.randn(batch, 2, 5, 5, dtype=torch.float64, requires_grad=True)
        layer(x).sum().backward()
        assert_close(layer(x), layer.to_dense()(x))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"groups": 2}, {"bias": False}], ids=str)
@pytest.mark.parametrize("format", [SVD(rank=5), SVD(rank=12), CP(rank=5), CP(rank=12), Tucker(rank=5), Tucker(rank=12)], ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("batch", [3, 17])
def test_eval_takes_either_memory_layout_and_keeps_it(
    batch: int, kernel: int, format: Format, options: dict[str, Any], memory: torch.memory_format
) -> None:
    layer = tnn.Conv2d(24, 36, kernel, format=format, **options).eval()
    x = torch.randn(batch, 24, 7, 6).contiguous(memory_format=memory)
    before = x.clone()
    with torch.no_grad():
        y, expected = layer(x), layer.to_dense()(x)
    assert_close(y, expected, rtol=1e-4, atol=1e-5)
    assert y.is_contiguous(memory_format=memory) and torch.equal(x, before)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
def test_states_that_are_too_large_are_made_in_parts(monkeypatch: pytest.MonkeyPatch, memory: torch.memory_format) -> None:
    """Five images, two at a time."""
    layer, x = tnn.Conv2d(24, 36, 3, stride=2, format=Tucker(rank=12)).eval(), torch.randn(5, 24, 7, 6).contiguous(memory_format=memory)
    with torch.no_grad():
        whole = layer(x)
        monkeypatch.setattr(convolve_run, "FRESH_BYTES", 0)
        monkeypatch.setattr(convolve_run, "TILE_BYTES", 2 * 4 * 12 * 7 * 6)
        sizes: list[int] = []
        part = convolve_run._part
        monkeypatch.setattr(convolve_run, "_part", lambda products, x, spatial: sizes.append(len(x)) or part(products, x, spatial))
        y = layer(x)
    assert sizes == [2, 2, 1] and y.is_contiguous(memory_format=memory)
    assert_close(y, whole)
