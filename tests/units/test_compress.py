"""Compression: the plan is carried out exactly, the original is untouched, and calibration lowers the error of outputs."""

import copy
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tenfold
from tenfold import CP, SVD, TT, TTM, Tucker, compress, factorize, plan
from tenfold.layers.base import FactorizedLayer

pytestmark = pytest.mark.filterwarnings("ignore:cp_als .* did not converge", "ignore:cp_als .* is degenerate")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16, momentum=0.3)
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.5))
        self.down = nn.Conv2d(16, 32, 3, stride=2, groups=2)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(F.relu(self.norm(self.stem(x))))
        return self.head(F.relu(self.down(x)).mean((2, 3)))


FORMATS = {"body.0": Tucker(rank=10), "down": CP(rank=8), "head": SVD(rank=5)}


def images(n: int = 8, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, 8, 8)


def kinds(model: nn.Module) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in model.named_modules() if isinstance(module, FactorizedLayer)}


def state(model: nn.Module) -> dict[str, Any]:
    return {name: (value.clone(), value._version, value.data_ptr()) for name, value in model.state_dict().items()}


def assert_untouched(model: nn.Module, before: dict[str, Any]) -> None:
    after = state(model)
    assert after.keys() == before.keys()
    for name, (value, version, place) in before.items():
        assert torch.equal(after[name][0], value) and after[name][1:] == (version, place)


# -- what comes out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calibration", [None, "images"])
def test_the_original_is_untouched_and_shares_nothing(calibration: str | None):
    model = Network().train()
    model.body.eval()
    before, modes = state(model), [module.training for module in model.modules()]
    small = compress(model, FORMATS, calibration=images(70) if calibration else None)
    assert_untouched(model, before)
    assert [module.training for module in model.modules()] == modes and not kinds(model)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert kinds(small) == {"body.0": "Conv2d", "down": "Conv2d", "head": "Linear"}
    ours, theirs = ({p.data_ptr() for p in one.state_dict().values()} for one in (model, small))
    assert not ours & theirs


def test_everything_but_the_layers_is_copied():
    model = Network()
    small = compress(model, FORMATS)
    assert torch.equal(small.stem.weight, model.stem.weight) and torch.equal(small.head.bias, model.head.bias)
    assert small.down.stride == (2, 2) and small.down.groups == 2 and small.body[0].bias is None
    torch.testing.assert_close(small.norm.state_dict(), model.norm.state_dict(), rtol=0, atol=0)


def test_modes_devices_dtypes_and_gradients_are_kept():
    model = Network().double().train()
    model.body.eval()
    model.head.requires_grad_(False)
    small = compress(model, FORMATS)
    assert [small.training, small.body[0].training, small.down.training, small.head.training] == [True, False, True, True]
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in small.head.parameters()) and all(p.requires_grad for p in small.down.parameters())
    small(images().double()).sum().backward()
    assert all(p.grad is not None for p in small.down.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype: torch.dtype):
    model = Network().eval().to(dtype)
    x = images().to(dtype)
    small = compress(model, FORMATS, calibration=images(40).to(dtype))
    assert {p.dtype for p in small.parameters()} == {dtype} and torch.isfinite(small(x)).all()
    exact = compress(model, {"body.0": Tucker(rank=1.0), "down": SVD(rank=1.0), "head": SVD(rank=1.0)})
    torch.testing.assert_close(exact(x), model(x), rtol=0.03, atol=0.01)


def test_in_place_changes_the_model_itself():
    model = Network()
    expected = compress(model, FORMATS)
    kept, small = model.stem, compress(model, FORMATS, inplace=True)
    assert small is model and model.stem is kept and kinds(model) == kinds(expected)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_the_result_can_be_copied_pickled_by_state_and_trained():
    model = Network()
    small = compress(model, FORMATS)
    again = copy.deepcopy(small)
    torch.testing.assert_close(again.state_dict(), small.state_dict(), rtol=0, atol=0)
    other = factorize(Network(), FORMATS)
    assert other.load_state_dict(small.state_dict(), strict=True)
    torch.testing.assert_close(other.eval()(images(2).fill_(1)), small.eval()(images(2).fill_(1)))


def test_the_same_seed_gives_the_same_result():
    model, data = Network(), images(70)
    torch.manual_seed(1)
    first = compress(model, FORMATS, calibration=data)
    torch.manual_seed(2)
    second = compress(model, FORMATS, calibration=data)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    high = {"down": CP(rank=30)}
    a, b = (compress(model, high, seed=seed, sweeps=3) for seed in (0, 1))
    assert not torch.equal(a.down.weight, b.down.weight)
    made = plan(model, "cp:rank=30", filter="down", seed=1)
    assert torch.equal(compress(model, made, sweeps=3).down.weight, b.down.weight), "a plan is carried out with its seed"
    assert torch.equal(compress(model, made, seed=0, sweeps=3).down.weight, a.down.weight)


@pytest.mark.parametrize("format", [SVD(rank=3), Tucker(rank=3), TT(rank=3)], ids=str)
def test_layers_of_the_same_shape_are_solved_as_one_by_one(format: Any):
    model = nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(4)]).double()
    together = compress(model, format)
    for name in "0123":
        alone = compress(model, {name: format})
        errors = [(one[int(name)].weight - model[int(name)].weight).norm() for one in (together, alone)]
        torch.testing.assert_close(errors[0], errors[1], rtol=1e-8, atol=0)


def test_explicit_modes_with_padding():
    model = nn.Sequential(nn.Linear(50, 1000), nn.Embedding(997, 12))
    made = {"0": "ttm:rank=25,in=8x8,out=10x101", "1": "ttm:rank=20,in=10x100,out=3x4"}
    small = compress(model, made)
    assert [axis.modes for axis in small[0].factorized.fold.axes] == [(10, 101), (8, 8)]
    assert [axis.padding for axis in small[1].factorized.fold.axes] == [3, 0]
    x, ids = torch.randn(3, 50), torch.tensor([0, 996])
    torch.testing.assert_close(small[0](x), F.linear(x, small[0].weight, model[0].bias), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(small[1](ids), small[1].weight[ids], rtol=1e-4, atol=1e-4)
    full = compress(model, {"1": "ttm:rank=1.0,in=10x100,out=3x4"})
    torch.testing.assert_close(full[1].weight, model[1].weight, rtol=1e-4, atol=1e-4)


LAYERS: dict[str, tuple[nn.Module, Any]] = {
    "linear": (nn.Linear(12, 10), (12,)),
    "conv1d": (nn.Conv1d(6, 8, 3, stride=2, padding=1), (6, 9)),
    "conv3d": (nn.Conv3d(4, 6, 2, padding=1, padding_mode="circular"), (4, 3, 4, 3)),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4, padding="same"), (8, 6, 5)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6), (6, 5, 5)),
    "transposed1d": (nn.ConvTranspose1d(6, 8, 4, stride=2, output_padding=1), (6, 5)),
    "transposed2d": (nn.ConvTranspose2d(8, 6, 3, groups=2, dilation=2), (8, 5, 4)),
    "transposed3d": (nn.ConvTranspose3d(4, 5, 2), (4, 3, 3, 3)),
    "embedding": (nn.Embedding(30, 12, padding_idx=0), torch.tensor([[3, 0, 29]])),
    "bag": (nn.EmbeddingBag(30, 12, mode="mean"), torch.tensor([[3, 0, 29], [1, 1, 2]])),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("is_calibrated", [False, True])
def test_every_layer_at_full_rank_computes_what_it_did(name: str, is_calibrated: bool):
    layer, shape = LAYERS[name]
    x = shape if isinstance(shape, Tensor) else torch.randn(5, *shape)
    model = nn.Sequential(layer)
    small = compress(model, SVD(rank=1.0), calibration=[x] if is_calibrated else None)
    assert kinds(small) == {"0": type(layer).__name__}
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)


def test_hooks_of_the_user_go_on():
    model, seen = Network().eval(), []
    model.down.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    small = compress(model, FORMATS)
    small(images())
    assert len(seen) == 1 and issubclass(seen[0], FactorizedLayer)
    model(images())
    assert seen[1:] == [nn.Conv2d]


def test_a_layer_at_several_places_stays_one():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.second = self.first
            self.steps = nn.Sequential(self.first, nn.ReLU(), self.first)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.steps(x))

    model, x = Shared(), torch.randn(3, 8)
    small = compress(model, SVD(rank=8))
    assert small.first is small.second is small.steps[0] is small.steps[2] and isinstance(small.first, FactorizedLayer)
    assert len(list(small.parameters())) == 3
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
    assert kinds(compress(model, {"steps.2": SVD(rank=2)})).keys() == {"first"}  # any of its names will do


@pytest.mark.parametrize(
    "model", [nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(8, 8)))]
)
@pytest.mark.parametrize("inplace", [False, True])
def test_a_bare_layer_or_sequential(model: nn.Module, inplace: bool):
    x, expected = torch.randn(2, 8), model(torch.ones(2, 8))
    small = compress(copy.deepcopy(model), SVD(rank=8), inplace=inplace)
    assert len(kinds(small)) == 1 and small(x).shape == (2, 8)
    torch.testing.assert_close(small(torch.ones(2, 8)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_models_and_parts_from_torch_compile(inplace: bool):
    def compiled(module: nn.Module) -> Any:
        return torch.compile(module, backend="eager")

    inner = nn.Sequential(compiled(nn.Linear(8, 8)), nn.ReLU(), compiled(nn.Sequential(nn.Linear(8, 8), nn.ReLU())), nn.Linear(8, 4))
    model, x = compiled(inner), torch.randn(3, 8)
    expected = model(x)
    made = plan(model, {"0": SVD(rank=8), "2.0": SVD(rank=8), "3": SVD(rank=4)}, inputs=x)
    small = compress(model, made, inplace=inplace)
    assert len(kinds(small)) == 3 and (small is inner) == inplace
    torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        small[0]._orig_mod.factorized.factors[0].zero_()  # the compiled wrapper runs the new layer
    assert not torch.allclose(small(x), expected)


def test_all_dense_is_a_copy():
    model = Network()
    made = plan(model, SVD(), budget=1.0)
    small = compress(model, made)
    assert not kinds(small) and small is not model
    torch.testing.assert_close(small.state_dict(), model.state_dict(), rtol=0, atol=0)


# -- calibration ----------------------------------------------------------------------------------------------------------


def correlated(n: int) -> Tensor:
    """Images whose neighbouring values are alike and whose channels differ in size, as real ones do."""
    x = F.avg_pool2d(torch.randn(n, 3, 12, 12), 5, 1)
    return x * torch.tensor([4.0, 1.0, 0.25])[:, None, None] + 0.5


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("stem", SVD(rank=4)),
        ("body.0", SVD(rank=3)),
        ("body.0", Tucker(rank=4)),
        ("body.0", CP(rank=8)),
        ("down", CP(rank=6)),
        ("head", SVD(rank=3)),
    ],
)
def test_the_output_metric_lowers_the_error_on_other_inputs(name: str, format: Any):
    model, x = Network().eval(), correlated(60)
    calibrated = compress(model, {name: format}, calibration=correlated(300))
    plain = compress(model, {name: format})
    seen: list[Tensor] = []
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], output]))
    with torch.no_grad():
        model(x)
        inputs, expected = seen
        errors = [(one.get_submodule(name)(inputs) - expected).norm() for one in (calibrated, plain)]
    assert errors[0] < 0.97 * errors[1]


@torch.no_grad()
def test_norms_are_estimated_anew_with_calibration_and_only_then():
    model, data = Network().eval(), images(256)
    plain = compress(model, {"stem": SVD(rank=2)})
    torch.testing.assert_close(plain.norm.state_dict(), model.norm.state_dict(), rtol=0, atol=0)
    small = compress(model, {"stem": SVD(rank=2)}, calibration=[data[:128], data[128:]])
    means, variances = ([f(one.stem(data)) for one in (small, model)] for f in (lambda y: y.mean((0, 2, 3)), lambda y: y.var((0, 2, 3))))
    scale = (variances[0] / variances[1]).sqrt()
    torch.testing.assert_close(small.norm.running_mean, means[0] + scale * (model.norm.running_mean - means[1]), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(small.norm.running_var, model.norm.running_var * scale**2, rtol=1e-2, atol=2e-3)
    assert small.norm.momentum == 0.3 and not small.norm.training


@pytest.mark.parametrize("kind", ["tensor", "dataset", "loader", "list", "pairs", "generator"])
def test_calibration_data_of_every_kind(kind: str):
    x = images(72)
    data: Any = {
        "tensor": x, "dataset": TensorDataset(x, torch.zeros(72)), "loader": DataLoader(TensorDataset(x, torch.zeros(72)), 24),
        "list": list(x.split(24)), "pairs": [(part, torch.zeros(24)) for part in x.split(24)], "generator": iter(x.split(24)),
    }[kind]  # fmt: skip
    small = compress(Network(), FORMATS, calibration=data)
    reference = compress(Network(), FORMATS)
    assert not torch.equal(small.body[1].running_mean, reference.body[1].running_mean) and torch.isfinite(small.eval()(x)).all()


def test_padded_modes_and_layers_without_a_moment_go_without_the_metric():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.padded, self.unused = nn.Embedding(40, 23), nn.Linear(23, 29), nn.Linear(8, 8)
            self.up = nn.ConvTranspose1d(29, 8, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.up(self.padded(self.words(ids)).mT)

    model, ids = Model(), torch.randint(40, (30, 6))
    with pytest.warns(
        UserWarning, match="the calibration data never reach unused; only the errors of their weights could be made small: give"
    ):
        small = compress(model, {"padded": TTM(rank=2), "*": SVD(rank=4)}, calibration=ids)
    assert small.padded.factorized.fold.axis("i").padding > 0 and len(kinds(small)) == 4
    for name in ("words", "padded", "unused"):
        plain = compress(model, {name: TTM(rank=2) if name == "padded" else SVD(rank=4)})
        torch.testing.assert_close(small.get_submodule(name).weight, plain.get_submodule(name).weight, rtol=1e-4, atol=1e-5)


def test_biases_follow_what_changed():
    """With inputs far from zero a low rank loses most of the mean; the bias gives it back."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    x = images(200) + 3
    small = compress(model, {"0": SVD(rank=2), "3": SVD(rank=1)}, calibration=x)
    means = [one[0](x).mean((0, 2, 3)) for one in (small, model)]
    torch.testing.assert_close(*means, rtol=1e-3, atol=1e-3)
    assert not torch.equal(small[0].bias, model[0].bias) and not torch.equal(small[3].bias, model[3].bias)


@pytest.mark.parametrize("error", [torch.linalg.LinAlgError, ArithmeticError, ValueError])
def test_a_layer_that_fails_stays_dense_and_the_others_are_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]):
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(3))).eval()
    module = sys.modules["tenfold.decompose"]
    solve, bad = module.decompose, model[1].weight

    def fails(weights: Any, *args: Any, **options: Any) -> Any:
        if any(torch.equal(one, bad) for one in weights):
            raise error("the algorithm failed to converge")
        return solve(weights, *args, **options)

    monkeypatch.setattr(module, "decompose", fails)
    with pytest.warns(
        UserWarning, match="1 could not be decomposed as .*failed to converge. and stays dense; .*: choose another format or rank for it"
    ):
        small = compress(model, CP(rank=6))
    report = tenfold.report(model, small, tmp_path, plan=plan(model, CP(rank=6)))
    assert [row.reason for row in report.layers] == ["", "dense, although the plan compresses it", ""]
    assert kinds(small).keys() == {"0", "2"} and torch.equal(small[1].weight, bad)
    assert small[1].weight.data_ptr() != bad.data_ptr() and small(images(2, 8)).shape == (2, 8, 2, 2)


def test_calibration_that_reaches_no_layer():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Identity(), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises(
        ValueError, match="the calibration data never reach unused, which is all of the layers to be calibrated; at least one has"
    ):
        compress(Model(), {"unused": SVD(rank=2)}, calibration=torch.randn(10, 8))


def test_layers_that_attention_reads_ask_nothing_of_the_data(recwarn: pytest.WarningsRecorder):
    """Nothing ever calls out_proj, so that no data could reach it."""

    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x, x, x)[0]

    model, x = Attentive().eval(), torch.randn(4, 5, 16)
    small = compress(model, {"a.out_proj": SVD(rank=15)}, calibration=x)
    assert not [one for one in recwarn if "never reach" in str(one.message)]
    with torch.no_grad():
        assert (small(x) - model(x)).norm() < 0.3 * model(x).norm()


def test_activations_that_are_not_a_number():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="the inputs of 1 have values that are NaN or infinite; calibration needs finite ones: check"):
        compress(model, {"1": SVD(rank=2)}, calibration=torch.randn(10, 4))


# -- from scratch ---------------------------------------------------------------------------------------------------------


def test_factorize_starts_like_torch():
    """Over 30 starts the mean square of each weight is that of torch's own start, within 15 %; biases have its range."""
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Linear(64, 32), nn.Embedding(50, 16), nn.ConvTranspose1d(8, 6, 3))
    formats = {nn.Conv2d: Tucker(rank=6), "1": TTM(rank=3), "2": SVD(rank=5), "3": CP(rank=7)}
    made = factorize(copy.deepcopy(model), formats)
    ours, theirs = torch.zeros(4), torch.zeros(4)
    for _ in range(30):
        for k, (one, dense) in enumerate(zip(made, model, strict=True)):
            one.reset_parameters()
            dense.reset_parameters()
            ours[k] += one.weight.detach().square().mean() / 30
            theirs[k] += dense.weight.detach().square().mean() / 30
    torch.testing.assert_close(ours, theirs, rtol=0.15, atol=0)
    assert 0 < float(made[1].bias.detach().abs().max()) <= 1 / 8


def test_factorize_is_in_place_and_computes_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["tenfold.compress"], "decompose_each", None)
    monkeypatch.setattr(sys.modules["tenfold.plan"], "find_candidates", None)
    model = Network().double().eval()
    kept = model.stem.weight
    assert factorize(model, FORMATS) is model and model.stem.weight is kept
    assert kinds(model) == {"body.0": "Conv2d", "down": "Conv2d", "head": "Linear"}
    assert {p.dtype for p in model.parameters()} == {torch.float64} and not model.down.training
    assert model(images().double()).shape == (8, 10)


def test_factorize_on_meta_needs_no_memory():
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(10**9, 4096), nn.Linear(4096, 4096))
    made = factorize(model, {"0": TTM(rank=4), "1": TTM(rank=4)})
    assert all(p.is_meta for p in made.parameters()) and sum(p.numel() for p in made.parameters()) < 10**8


def test_factorize_takes_a_bare_layer_and_one_format_for_all():
    assert isinstance(factorize(nn.Linear(8, 8), SVD(rank=2)), FactorizedLayer)
    assert len(kinds(factorize(Network(), "svd:rank=2"))) == 4


# -- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        (SVD(), {}, "there is no budget and no rank for stem; one of them is needed to choose: give budget=0.5, or a format with rank="),
        ("auto", {}, "there is no budget and no rank for stem"),
        (
            {"head": SVD(rank=11)},
            {},
            "layer 'head' with svd:rank=11: SVD got rank 11, but ranks above 10 add nothing here; choose at most that",
        ),
        ({"head": SVD(rank=0)}, {}, "layer 'head' with svd:rank=0: SVD got rank 0; every rank must be at least 1"),
        ({"head": Tucker(rank=(1, 2, 3))}, {}, r"layer 'head' with tucker:rank=1x2x3: Tucker got 3 ranks \(1, 2, 3\), but has the 2 rank"),
        ({"head": "ttm:rank=2,in=4x4,out=2x5"}, {}, "layer 'head' with ttm:.*: the modes .4, 4. of the i axis have the product 16"),
        ({"norm": SVD(rank=1)}, {}, "'norm' matches no layer; the layers are stem, body.0, down, head: correct it"),
        ({"head": SVD(rank=2)}, {"calibration": []}, "have no samples; at least one batch is needed"),
        (
            {"head": SVD(rank=2)},
            {"calibration": torch.full((4, 3, 8, 8), torch.inf)},
            "the inputs of head have values that are NaN or infinite",
        ),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_bad_input_leaves_the_model_as_it_was(formats: Any, options: dict[str, Any], message: str, inplace: bool):
    model = Network()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        compress(model, formats, inplace=inplace, **options)
    assert_untouched(model, before)
    assert not kinds(model)


@pytest.mark.parametrize(
    ("value", "dtype", "error", "message"),
    [
        (
            float("nan"),
            torch.float32,
            ValueError,
            "head has 1 values that are NaN or infinite among 320; all must be finite: repair or retrain it",
        ),
        (1j, torch.cfloat, TypeError, "head has the dtype torch.complex64; real floating-point values are needed"),
        (3, torch.int32, TypeError, "head has the dtype torch.int32; real floating-point values are needed"),
    ],
)
def test_weights_that_cannot_be_decomposed(value: Any, dtype: torch.dtype, error: type[Exception], message: str):
    model = Network()
    weight = torch.zeros(10, 32, dtype=dtype)
    weight[0, 0] = value
    model.head.weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(error, match=message):
        compress(model, FORMATS)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_model_that_cannot_be_copied():
    model = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 8))
    model(torch.zeros(1, 8))
    with pytest.raises(
        RuntimeError, match="Sequential cannot be copied .*; a model is needed that copy.deepcopy takes: .* or give inplace=True"
    ):
        compress(model, {"1": SVD(rank=2)})
    assert kinds(compress(model, {"1": SVD(rank=2)}, inplace=True)) == {"1": "Linear"}


def test_a_model_with_something_that_cannot_be_copied():
    model = nn.Sequential(nn.Linear(8, 8))
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="Sequential cannot be copied .*lock.*; a model is needed that copy.deepcopy takes"):
        compress(model, SVD(rank=2))


def test_a_model_that_is_compressed_already():
    model = nn.Sequential(nn.Linear(8, 8))
    made = plan(model, SVD(rank=2))
    with pytest.raises(ValueError, match="the plan factorises '0', but it is factorised already; set it to \"dense\" in the plan"):
        compress(compress(model, made), made)


def test_progress_is_told():
    told: list[tuple[str, int, int]] = []
    compress(Network(), FORMATS, calibration=images(8), progress=lambda *what: told.append(what))
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["reading inputs", "decomposing", "re-estimating BatchNorm"]
    assert ("decomposing", 3, 3) in told


def test_the_public_names():
    assert tenfold.compress is compress and tenfold.factorize is factorize
