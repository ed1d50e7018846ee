"""Calls in eval are done as earlier ones were, until something that they depend on changes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize, prune
from torch.testing import assert_close

import tenfold.nn as tnn
from tenfold.contract import kept
from tenfold.formats import CP, SVD, TT, Tucker
from tenfold.weight import FactorizedWeight

LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "linear": (lambda: tnn.Linear(24, 36, format=SVD(rank=5)), (3, 24)),
    "three factors": (lambda: tnn.Linear(24, 36, format=TT(rank=3)), (2, 3, 24)),
    "conv1d": (lambda: tnn.Conv1d(24, 36, 3, padding=1, format=CP(rank=5)), (2, 24, 9)),
    "conv2d": (lambda: tnn.Conv2d(24, 36, 3, format=Tucker(rank=12)), (2, 24, 7, 6)),
    "many images": (lambda: tnn.Conv2d(24, 36, 3, format=CP(rank=12)), (17, 24, 7, 6)),
    "large images": (lambda: tnn.Conv2d(16, 16, 3, padding=1, format=CP(rank=16)), (1, 16, 65, 64)),
    "pointwise": (lambda: tnn.Conv2d(24, 36, 1, format=SVD(rank=12)), (2, 24, 7, 6)),
    "sum of terms": (lambda: tnn.Conv2d(24, 36, 3, groups=2, bias=False, format=CP(rank=4)), (2, 24, 7, 6)),
    "transposed": (lambda: tnn.ConvTranspose2d(24, 36, 3, stride=2, format=Tucker(rank=12)), (2, 24, 7, 6)),
}


@pytest.fixture(params=LAYERS)
def called(request: pytest.FixtureRequest) -> tuple[Any, torch.Tensor]:
    """A layer that has been called in eval, and the input."""
    make, shape = LAYERS[request.param]
    torch.manual_seed(0)
    layer, x = make().eval(), torch.randn(shape)
    with torch.no_grad():
        layer(x)
    return layer, x


def is_recalled(layer: Any, x: torch.Tensor) -> bool:
    """Whether a call with x is done as an earlier one was."""
    verb = "apply" if isinstance(layer, tnn.Linear) else "convolve"
    return layer.factorized.recall(verb, x) is not None


def check(layer: Any, x: torch.Tensor) -> None:
    assert_close(layer(x), layer.to_dense()(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_call_like_an_earlier_one_is_done_as_that_was(called: tuple[Any, torch.Tensor]) -> None:
    layer, x = called
    assert is_recalled(layer, x)
    check(layer, torch.randn_like(x))
    assert not is_recalled(layer, x.double()) and not is_recalled(layer, x[:1].repeat(5, *[1] * (x.dim() - 1)))
    if x.dim() == 4:
        last = x.contiguous(memory_format=torch.channels_last)
        check(layer, last)
        assert layer(last).is_contiguous(memory_format=torch.channels_last)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda layer: layer.factorized.factors[0].mul_(2),
    "another tensor": lambda layer: setattr(layer.factorized.factors[0], "data", layer.factorized.factors[0].data * 2),
    "another parameter": lambda layer: layer.factorized.factors.__setitem__(-1, nn.Parameter(layer.factorized.factors[-1] * 2)),
    "a loaded state": lambda layer: layer.load_state_dict({k: 2 * v for k, v in layer.state_dict().items()}),
    "an assigned state": lambda layer: layer.load_state_dict({k: 2 * v for k, v in layer.state_dict().items()}, assign=True),
    "another weight": lambda layer: setattr(layer, "factorized", copy.deepcopy(layer.factorized)),
    "bias": lambda layer: None if layer.bias is None else setattr(layer, "bias", nn.Parameter(layer.bias + 1)),
    "bias in place": lambda layer: None if layer.bias is None else layer.bias.add_(1),
    "pruned first": lambda layer: prune.l1_unstructured(layer.factorized.factors, "0", 0.5),
    "pruned last": lambda layer: prune.l1_unstructured(layer.factorized.factors, str(len(layer.factorized.factors) - 1), 0.5),
    "parametrised": lambda layer: parametrize.register_parametrization(layer.factorized.factors, "0", nn.Tanh()),
    "trained between": lambda layer: layer.train().eval(),
    "double": lambda layer: layer.double().float(),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_what_changes_is_seen(called: tuple[Any, torch.Tensor], change: str) -> None:
    layer, x = called
    CHANGES[change](layer)
    for _ in range(3):
        check(layer, x)


@torch.no_grad()
def test_a_changed_factor_is_seen_by_calls_with_other_inputs_too() -> None:
    """The second input was not known before the change, the first one was."""
    layer, x, other = tnn.Linear(24, 36, format=SVD(rank=5)).eval(), torch.randn(3, 24), torch.randn(300, 24)
    layer(x)
    layer.factorized.factors[0].mul_(2)
    check(layer, other)
    check(layer, x)


@torch.no_grad()
def test_few_inputs_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_CALLS", 2)
    layer = tnn.Linear(24, 36, format=SVD(rank=5)).eval()
    for rows in (1, 2, 3):
        check(layer, torch.randn(rows, 24))
    assert [is_recalled(layer, torch.randn(rows, 24)) for rows in (1, 2, 3)] == [False, False, True]


def test_gradients_autocast_and_transforms_are_not_lost(called: tuple[Any, torch.Tensor]) -> None:
    layer, x = called
    layer(x.requires_grad_()).sum().backward()
    assert x.grad is not None and all(parameter.grad is not None for parameter in layer.parameters())
    with torch.no_grad():
        expected = layer(x)
        with torch.autocast("cpu"):
            assert layer(x).dtype == torch.bfloat16
        doubled = {name: 2 * value for name, value in layer.state_dict().items()}
        assert not torch.allclose(torch.func.functional_call(layer, doubled, (x,)), expected)
        assert_close(layer(x), expected)
        assert_close(torch.vmap(layer)(torch.stack([x, 2 * x]))[0], expected)


@torch.no_grad()
def test_values_that_lie_where_earlier_ones_lay_are_seen() -> None:
    """Memory that is freed is soon taken again, with the same version; held, it cannot be."""
    for _ in range(50):
        layer, x = tnn.Linear(64, 64, format=SVD(rank=12)).eval(), torch.randn(1, 64)
        factor = layer.factorized.factors[0]
        layer(x)
        same, doubled = factor.data.clone(), factor.data * 2
        factor.data = same
        del same
        factor.data = doubled.clone()
        check(layer, x)


@torch.no_grad()
def test_what_is_replaced_is_not_held(called: tuple[Any, torch.Tensor]) -> None:
    layer, _ = called
    layer.double()
    assert not layer.factorized._prepared


@torch.no_grad()
def test_factors_can_be_swapped(called: tuple[Any, torch.Tensor]) -> None:
    """As `to` does where torch is told so; torch refuses to swap a tensor that has views."""
    layer, x = called
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    check(layer, x.double())


@torch.no_grad()
def test_inference_tensors_can_be_swapped_in() -> None:
    """They have no version."""
    layer, x = tnn.Linear(24, 36, format=SVD(rank=5)).eval(), torch.randn(3, 24)
    layer(x)
    with torch.inference_mode():
        other = nn.Parameter(layer.factorized.factors[0] * 2)
    torch.utils.swap_tensors(layer.factorized.factors[0], other)
    check(layer, x)


@torch.no_grad()
def test_a_factor_that_changes_during_a_call_is_seen_by_the_next(called: tuple[Any, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where one thread loads a state while another one calls the layer."""
    layer, x = called
    remember = kept.Kept.remember

    def late(*given: Any) -> None:
        layer.factorized.factors[0].mul_(2)
        remember(*given)

    layer.factorized._prepared.clear()
    with monkeypatch.context() as patch:
        patch.setattr(kept.Kept, "remember", late)
        layer(x)
    check(layer, x)


@torch.no_grad()
def test_what_another_thread_drops_is_still_returned() -> None:
    """With gradients on in one thread, it drops what the others have just stored."""

    class Dropped(kept.Kept):
        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            self.clear()

    layer, x = tnn.Linear(24, 36, format=SVD(rank=5)).eval(), torch.randn(3, 24)
    layer.factorized._prepared = Dropped()
    check(layer, x)
    assert not is_recalled(layer, x)


@torch.no_grad()
def test_what_is_made_of_fake_tensors_stays_among_them(called: tuple[Any, torch.Tensor]) -> None:
    layer, x = called
    layer.factorized._prepared.clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert layer(mode.from_tensor(x)).shape == layer(mode.from_tensor(x)).shape
    assert not layer.factorized._prepared
    check(layer, x)


@torch.no_grad()
def test_what_a_transform_makes_stays_there(called: tuple[Any, torch.Tensor]) -> None:
    """What torch.func wraps would be unwrapped in every later call; how calls under torch.vmap are done is slower for large images."""
    layer, x = called
    layer.factorized._prepared.clear()
    expected = layer.to_dense()(x)
    assert_close(torch.func.jvp(layer, (x,), (x,))[0], expected, rtol=1e-4, atol=1e-5)
    assert_close(torch.vmap(layer)(x[None])[0], expected, rtol=1e-4, atol=1e-5)
    layer(x[:1].repeat(5, *[1] * (x.dim() - 1)))
    torch.vmap(layer)(x[None])
    assert not is_recalled(layer, x)
    check(layer, x)


@pytest.mark.parametrize("wrap", [lambda layer: layer, torch.func.functionalize], ids=["plain", "functionalised"])
@torch.no_grad()
def test_sizes_that_a_tracer_leaves_open_are_no_error(called: tuple[Any, torch.Tensor], wrap: Callable[[Any], Any]) -> None:
    layer, x = called
    traced = make_fx(wrap(layer), tracing_mode="symbolic", _allow_non_fake_inputs=True)(x)
    assert_close(traced(x), layer.to_dense()(x), rtol=1e-4, atol=1e-5)
    check(layer, x)


class Doubled(FactorizedWeight):
    """A weight with calls of its own."""

    def apply(self, x: Any) -> Any:
        return 2 * super().apply(x)

    def convolve(self, *given: Any) -> torch.Tensor:
        return 2 * super().convolve(*given)


class Around(nn.Module):
    """What stands in the place of a weight, and has nothing but its calls."""

    def __init__(self, inner: FactorizedWeight) -> None:
        super().__init__()
        self.inner = inner

    def apply(self, x: Any) -> Any:
        return 2 * self.inner.apply(x)

    def convolve(self, *given: Any) -> torch.Tensor:
        return 2 * self.inner.convolve(*given)

    def is_kept(self) -> bool:
        return self.inner.is_kept()


@torch.no_grad()
def test_other_weights_are_always_called(called: tuple[Any, torch.Tensor]) -> None:
    layer, x = called
    layer.bias = None
    expected = 2 * layer(x)
    weight = layer.factorized
    layer.factorized = Around(weight)
    assert_close(layer(x), expected)
    layer.factorized = weight
    weight.__class__ = Doubled
    for _ in range(2):
        assert_close(layer(x), expected)


@pytest.mark.parametrize("option", ["stride", "padding", "dilation"])
@torch.no_grad()
def test_options_can_be_set_later(called: tuple[Any, torch.Tensor], option: str) -> None:
    layer, x = called
    if isinstance(layer, tnn.Linear):
        return
    before = getattr(layer, option)
    for value in (2, 1):
        setattr(layer, option, (value,) * len(before))
        check(layer, x)
        check(layer, x)
    setattr(layer, option, before)
    check(layer, x)
    layer.padding = 1
    check(layer, x)
