"""FLOP counted on a run: matrix products, convolutions, attention and LSTMs."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tenfold.running import batch_size, call, probing
from tenfold.wrappers import clean_name


def _recurrent(x: Any, weight_ih: Any, weight_hh: Any, *_: Any, **__: Any) -> int:
    """One direction of one layer of oneDNN's LSTM, which torch's counter does not know."""
    return 2 * math.prod(x[:-1]) * (math.prod(weight_ih) + math.prod(weight_hh))


def _recurrent_backward(x: Any, weight_ih: Any, weight_hh: Any, *_: Any, **__: Any) -> int:
    """Its gradients: of the input and of the weights."""
    return 2 * _recurrent(x, weight_ih, weight_hh)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Scores and their product with the values, by the CPU kernel that torch's counter does not know."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Attention runs as single operations: the fused kernel of torch hides its layers from hooks and from the counter."""
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


def read_by_fused_kernel(model: nn.Module) -> list[str]:
    """The names of the layers that torch's fused encoder kernel, taken in eval without gradients, reads the dense weights of."""
    names = []
    for name, one in model.named_modules():
        if isinstance(one, nn.TransformerEncoderLayer) and type(one).forward is nn.TransformerEncoderLayer.forward:
            attention: Any = one.self_attn
            if attention.batch_first and attention.num_heads % 2 == 0 and one.activation_relu_or_gelu:
                names += [clean_name(f"{name}.{part}".strip(".")) for part in ("linear1", "linear2")]
    return names


def fused_note(names: Sequence[str]) -> str:
    """What FLOP and factors of such layers are worth."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"The factors of {', '.join(names[:3])}{more} do not run where torch takes its fused encoder kernel, as in eval without gradients: "
        "it reads their dense weights, which are rebuilt once and kept, so that FLOP and memory there are those of the dense layers. "
        "torch.backends.mha.set_fastpath_enabled(False) lets the factors run, as they are counted here."
    )


@contextlib.contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Torch's counter, which also counts attention and LSTMs on a CPU; ask it when the context has ended."""
    aten = torch.ops.aten
    known = {
        "mkldnn_rnn_layer": _recurrent,
        "mkldnn_rnn_layer_backward": _recurrent_backward,
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
    }
    mapping: Any = {getattr(aten, name): formula for name, formula in known.items() if hasattr(aten, name)}
    with without_fast_path(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        yield counter


def count_flops(run: Callable[[], Any]) -> int:
    """The FLOP of one call in matrix products, convolutions, attention and LSTMs; what an earlier call keeps is not counted again."""
    return count_module_flops(run)["Global"]


def count_module_flops(run: Callable[[], Any]) -> dict[str, int]:
    """The same for every module that the call reaches, by the name that torch's counter gives it; "Global" is all of it."""
    with without_fast_path():
        run()
    with flop_counter() as counter:
        run()
    return {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()} | {"Global": counter.get_total_flops()}


def model_flops(model: nn.Module, inputs: Any) -> int:
    """FLOP for one sample of the inputs, in eval mode."""
    with probing(model):
        return count_flops(lambda: call(model, inputs)) // max(1, batch_size(inputs))
