"""What survey finds in networks of every construction."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from tenfold import SVD
from tenfold import nn as tnn
from tenfold.layers import all_layers
from tenfold.sizes import n_bytes, n_parameters
from tenfold.survey import survey


def rows(model: nn.Module) -> dict[str, tuple[bool, str]]:
    """{name: (can be factorised, reason)}."""
    return {one.name: (one.layer is not None, one.reason) for one in survey(model)}


class Shared(nn.Module):
    """A layer that stands at four places, two of them in one parent."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = self.first
        self.steps = nn.Sequential(self.first, nn.ReLU(), self.first)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.steps(x))


class Tied(nn.Module):
    """An output layer whose weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.words(ids)))


def test_every_torch_layer_with_a_factorised_twin_is_found():
    for kind in all_layers().values():
        arguments: dict[str, Any] = {"kernel_size": 3} if "Conv" in kind.__name__ else {}
        [found] = survey(nn.Sequential(kind.dense_type(6, 8, **arguments)))
        assert (found.name, found.layer, found.reason) == ("0", kind, "")
        assert found.weight is found.module.weight and found.shape == tuple(found.module.weight.shape)


def test_nested_modules_keep_their_order_and_norms_are_left_out():
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.LayerNorm(4)))
    assert rows(nn.Sequential(block, nn.Linear(4, 2))) == {"0.0": (True, ""), "0.2.0": (True, ""), "1": (True, "")}


def test_norms_with_a_weight_of_two_axes_have_a_row():
    assert rows(nn.Sequential(nn.LayerNorm((4, 4)))) == {"0": (False, "there is no factorised layer for LayerNorm")}


def test_a_layer_at_several_places_is_one_row_with_all_names():
    [found] = survey(Shared())
    assert found.names == ("first", "second", "steps.0", "steps.2")


def test_a_tied_weight_stays_dense_with_the_other_user_named():
    found = rows(Tied())
    assert found["words"] == (False, "its weight is shared with head; factorising one of them would untie them")
    assert found["head"] == (False, "its weight is shared with words; factorising one of them would untie them")
    assert found["body"] == (True, "")


def test_a_weight_that_a_parameter_list_also_holds_stays_dense():
    model = nn.Module()
    model.layer = nn.Linear(3, 4)
    model.others = nn.ParameterList([model.layer.weight])
    assert rows(model)["layer"] == (False, "its weight is shared with others; factorising one of them would untie them")


def test_attention_has_a_row_with_a_reason_and_its_out_proj_can_be_factorised():
    found = rows(nn.TransformerEncoderLayer(8, 2, 16))
    assert found.keys() == {"self_attn", "self_attn.out_proj", "linear1", "linear2"}
    assert found["self_attn"][0] is False and "packed in one parameter" in found["self_attn"][1]
    assert all(found[name] == (True, "") for name in ("self_attn.out_proj", "linear1", "linear2"))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell])
def test_recurrent_layers_have_a_row_with_a_reason(kind: type[nn.Module]):
    [found] = survey(nn.Sequential(kind(4, 6)))
    assert found.layer is None and found.reason == f"there is no factorised layer for {kind.__name__}"
    assert found.shape == found.weight.shape and found.n_values > 0


def test_weights_that_are_computed_have_a_row_with_a_reason():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 6, bias=False)), spectral_norm(nn.Conv2d(3, 4, 3)), nn.Linear(5, 6))
    prune.l1_unstructured(model[2], "weight", 0.5)
    found = survey(model)
    assert [(one.name, one.layer) for one in found] == [("0", None), ("1", None), ("2", None)]
    assert "parametrization" in found[0].reason and found[0].shape == (6, 5) and found[0].n_values == 30
    assert found[1].reason == found[2].reason == "its weight is not a parameter"


def test_a_bias_that_a_hook_makes_keeps_the_layer():
    """The hook would go on to the factorised layer, which has not what it computes the bias from."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Conv2d(3, 4, 3, bias=False))
    prune.l1_unstructured(model[0], "bias", 0.5)
    reason = "its bias is not a parameter, but made by a hook, as in pruning; remove that first (torch.nn.utils.prune.remove)"
    assert [one.reason for one in survey(model)] == [reason, ""]


def test_layers_inside_a_parametrized_module_are_still_found():
    attention = nn.MultiheadAttention(8, 2)
    parametrizations.orthogonal(attention, "in_proj_weight")
    assert rows(nn.Sequential(attention))["0.out_proj"] == (True, "")


def test_lazy_layers_have_a_row_until_they_have_a_shape():
    model = nn.Sequential(nn.LazyLinear(6), nn.LazyConv2d(6, 3))
    found = survey(model)
    assert [one.reason for one in found] == ["its weight has no shape yet; run the model once"] * 2
    assert [one.shape for one in found] == [(), ()] and n_parameters(model) == n_bytes(model) == 0
    model[0](torch.zeros(1, 4))
    assert rows(model)["0"] == (True, "")


def test_a_subclass_is_replaced_only_where_it_computes_the_same():
    class Renamed(nn.Linear):
        pass

    class Scaled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    class Standardised(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super()._conv_forward(input, weight - weight.mean(), bias)

    patched = nn.Linear(3, 3)
    patched.forward = lambda input: input  # type: ignore[method-assign]
    model = nn.Sequential(Renamed(3, 4), Scaled(3, 4), Standardised(3, 4, 3), patched)
    assert list(rows(model).values()) == [
        (True, ""),
        (False, "Scaled has a forward of its own, which a factorised Linear would not run"),
        (False, "Standardised has a _conv_forward of its own, which a factorised Conv2d would not run"),
        (False, "Linear has a forward of its own, which a factorised Linear would not run"),
    ]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_values_or_with_options_that_need_a_dense_table():
    found = rows(nn.Sequential(nn.Linear(0, 3), nn.Embedding(5, 4, max_norm=1.0), nn.Embedding(5, 4, sparse=True)))
    assert found["0"] == (False, "its weight has no values")
    assert found["1"][0] is False and found["1"][1].startswith("max_norm=1.0")
    assert found["2"][0] is False and found["2"][1].startswith("sparse=True")


def test_factorised_layers_have_one_row_and_their_factors_none():
    layer = tnn.Conv2d(4, 6, 3, format=SVD(rank=2))
    [found] = survey(nn.Sequential(layer))
    assert (found.name, found.layer, found.reason) == ("0", None, "it is factorised already")
    assert found.shape == (6, 4, 3, 3) and found.n_values == 2 * (6 + 36)


def test_the_whole_model_may_be_one_layer():
    [found] = survey(nn.Linear(3, 4))
    assert (found.name, found.names) == ("", ("",))


def test_names_from_torch_compile_are_those_of_the_model():
    def compiled(module: nn.Module) -> Any:
        return torch.compile(module, backend="eager")

    model = nn.Sequential(nn.Linear(3, 4), compiled(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), compiled(nn.Linear(4, 2)))
    assert list(rows(compiled(model))) == list(rows(model)) == ["0", "1.0", "2"]


def test_no_parameter_with_two_axes_is_left_out():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3, 4))
            self.weight = nn.Parameter(torch.zeros(7))
            self.scale = nn.Bilinear(2, 3, 4)

    found = survey(Mixed())
    assert [(one.name, one.shape) for one in found] == [("", (3, 4)), ("scale", (4, 2, 3))]
