"""Plans: budgets are met to the last parameter and FLOP, the model is only read, and bad input is refused with a way out."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

import tenfold
from tenfold import CP, SVD, TT, TTM, Budget, Plan, Tucker, compress
from tenfold import plan as public_plan
from tenfold.plan import explicit_plan

pytestmark = pytest.mark.filterwarnings("ignore:cp_als .* did not converge", "ignore:cp_als .* is degenerate")


def plan(model: nn.Module, *arguments: Any, **options: Any) -> Plan:
    """Plans that do not depend on the machine's times; those have their own tests."""
    return tenfold.plan(model, *arguments, latency="ignored", **options)


class Network(nn.Module):
    """A small residual network with BatchNorm, a grouped and a strided convolution, and a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.body = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.down = nn.Conv2d(24, 48, 3, stride=2, padding=1, groups=2)
        self.spare = nn.Linear(48, 48)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.body(x))
        return self.head(F.relu(self.down(x)).mean((2, 3)))


class Shared(nn.Module):
    """One layer at two places, run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(256, 256)
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.first(self.first(x)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.head = nn.Embedding(50, 32), nn.Linear(32, 32), nn.Linear(32, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.words(ids)))


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 3, 16, 16)


def counted(model: nn.Module, inputs: Tensor) -> float:
    """FLOP of one sample at the second call in eval."""
    model.eval()
    with torch.no_grad():
        model(inputs)
        with FlopCounterMode(display=False) as counter:
            model(inputs)
    return counter.get_total_flops() / len(inputs)


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def snapshot(model: nn.Module) -> tuple[Any, ...]:
    """All that a plan must leave as it was."""
    return (
        {name: (value.clone(), value._version) for name, value in model.state_dict().items()},
        [(id(module), module.training, len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        [(id(p), p.requires_grad, p.grad) for p in model.parameters()],
    )


def assert_untouched(model: nn.Module, before: tuple[Any, ...], versions: bool = True) -> None:
    after = snapshot(model)
    assert after[1:] == before[1:]
    for name, (value, version) in after[0].items():
        assert torch.equal(value, before[0][name][0]) and (version == before[0][name][1] or not versions)


def by_name(made: Plan) -> dict[str, Any]:
    return {one.name: one for one in made.layers}


# -- budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "budget", ["params=0.5", "params=0.25", "flops=0.5", "bytes=0.4", "flops=0.6,params=0.4", "flops=0.5,params=0.6,bytes=0.5"]
)
@pytest.mark.parametrize("format", ["auto", SVD(), Tucker(), CP()], ids=str)
def test_budgets_are_met_and_told_exactly(budget: str, format: Any):
    model = Network()
    made = plan(model, format, budget=budget, inputs=images())
    small = compress(model, made, sweeps=2)
    assert made.params_before == n_parameters(model) and made.flops_before == counted(model, images())
    assert made.params_after == n_parameters(small)
    counts = [counted(small, images(n)) for n in (16, 64, 128)]  # plans differ between batch sizes; the most expensive is promised
    assert max(counts) == made.flops_after
    assert made.flops_after is not None and made.flops_before is not None
    kept = {"params": made.params_after / made.params_before, "flops": made.flops_after / made.flops_before}
    kept["bytes"] = kept["params"]
    for name, fraction in Budget.parse(budget).limits.items():
        assert kept[name] <= fraction
    assert any(kept[name] > 0.9 * fraction for name, fraction in Budget.parse(budget).limits.items())  # and it is made use of


@pytest.mark.parametrize("format", [TT(), TTM()], ids=str)
def test_budgets_are_met_where_the_contraction_depends_on_the_batch(format: Any):
    """The plan tells the FLOP of the dearest of the batch sizes that it looks at."""
    model = nn.Sequential(nn.Linear(256, 300), nn.ReLU(), nn.Linear(300, 64))
    made = plan(model, format, budget="flops=0.6,params=0.4", inputs=torch.randn(2, 256))
    small = compress(model, made)
    assert made.flops_after is not None and made.flops_before is not None
    assert max(counted(small, torch.randn(n, 256)) for n in (16, 64, 128)) <= made.flops_after <= 0.6 * made.flops_before
    assert n_parameters(small) == made.params_after <= 0.4 * made.params_before


def test_bytes_count_the_dtypes():
    model = nn.Sequential(nn.Linear(64, 64).double(), nn.Linear(64, 64).half())
    made = plan(model, SVD(), budget="bytes=0.5")
    small = compress(model, made)
    size = [sum(p.numel() * p.element_size() for p in one.parameters()) for one in (model, small)]
    assert size[1] <= 0.5 * size[0] and size[1] > 0.45 * size[0]


@pytest.mark.parametrize("name", ["params", "flops", "bytes"])
@pytest.mark.parametrize("filter", [None, "body.0"])
def test_an_impossible_budget_names_the_smallest_that_works(name: str, filter: str | None):
    model = Network()
    options: Any = {"inputs": images(), "filter": filter}
    with pytest.raises(ValueError, match=f"the budget asks to keep {name}=0.001, but the smallest reachable here is {name}=") as caught:
        plan(model, SVD(), budget={name: 0.001}, **options)
    named = float(re.findall(rf"is {name}=([\d.]+);", str(caught.value))[0])
    made = plan(model, SVD(), budget={name: named}, **options)
    kept = made.params_after / made.params_before if name != "flops" else (made.flops_after or 0) / (made.flops_before or 1)
    assert named - 0.0002 <= kept <= named


def test_ranks_are_not_the_same_fraction_everywhere():
    """A layer that is nearly of rank 2 gets few of the ranks, a random one the others."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(64, 2) @ torch.randn(2, 64) + 0.01 * torch.randn(64, 64))
    made = plan(model, SVD(), budget=0.5)
    ranks = [one.format.rank for one in made.layers if one.format]
    assert 2 <= ranks[0] < 10 < 20 < ranks[1]
    assert made.layers[0].error < 0.05 < made.layers[1].error


def test_auto_chooses_a_format_for_each_layer():
    made = plan(Network(), budget=Budget(params=0.3), inputs=images())
    formats = {type(one.format) for one in made.layers if one.format}
    assert len(formats) > 1 and type(by_name(made)["spare"].format) in (SVD, Tucker)


def test_predicted_errors_are_those_of_the_compressed_layers():
    model = Network()
    for format in (SVD(), Tucker(), CP()):
        made = plan(model, format, budget=0.4)
        small = compress(model, made)
        for one in made.layers:
            if one.format:
                dense, new = model.get_submodule(one.name).weight, small.get_submodule(one.name).weight
                error = float(((dense - new).norm() / dense.norm()).detach())
                assert error == pytest.approx(one.error, rel=1e-5 if format == SVD() else 0.1)


def test_a_layer_stays_dense_where_nothing_gains():
    model = nn.Sequential(nn.Linear(1, 200), nn.Linear(200, 200))
    made = plan(model, SVD(), budget=0.5)
    assert made.layers[0].format is None and made.layers[0].reason == "no rank makes it smaller or cheaper"
    loose = plan(model, SVD(), budget=1.0)
    assert [one.reason for one in loose.layers][1] == "dense is the better use of the budget"
    assert loose.params_after == loose.params_before


# -- which layers and formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer, size", [(nn.Linear(1, 400), (1,)), (nn.Conv2d(1, 64, 1), (1, 8, 8)), (nn.LSTM(1, 64), (1,))], ids=["linear", "conv", "lstm"]
)
def test_a_layer_of_one_input_value_has_nothing_to_save(layer: nn.Module, size: tuple[int, ...]):
    first = plan(layer, budget={"flops": 1.0}, inputs=torch.randn(4, *size)).layers[0]
    assert first.format is None and first.reason == "no rank makes it smaller or cheaper"


def test_every_layer_with_a_weight_has_a_row():
    made = plan(
        Network(), {"body.*": Tucker(), nn.Linear: "svd", "stem": None}, budget=0.9, filter=["*ea*", "stem", "body.0"], inputs=images()
    )
    rows = {one.name: (one.kind, one.shape, one.reason) for one in made.layers}
    assert list(rows) == ["stem", "body.0", "down", "spare", "head"]
    assert rows["stem"] == ("Conv2d", (24, 3, 3, 3), "no format is given for it")
    assert rows["down"] == ("Conv2d", (48, 12, 3, 3), "left out by the filter")
    assert rows["spare"][2] == "left out by the filter"


def test_a_layer_that_the_example_does_not_run():
    by_flops = by_name(plan(Network(), budget="flops=0.5", inputs=images()))
    assert by_flops["spare"].format is None and by_flops["spare"].reason == "the example does not run it, so no FLOP can be saved"
    by_params = by_name(plan(Network(), SVD(), budget="params=0.99", inputs=images(), filter="spare"))
    assert by_params["spare"].format is not None
    assert (by_params["spare"].flops_before, by_params["spare"].flops_after) == (0, 0)


def test_explicit_ranks_need_no_budget_and_are_kept():
    made = plan(Network(), {"body.0": Tucker(rank=(20, 3)), "head": "svd:rank=10", "stem": CP(rank=0.5)})
    formats = {one.name: one.format for one in made.layers if one.format}
    assert formats == {"body.0": Tucker(rank=(20, 3)), "head": SVD(rank=10), "stem": CP(rank=formats["stem"].rank)}
    assert by_name(made)["head"].params_after > by_name(made)["head"].params_before  # asked for, so done
    assert made.flops_before is None and made.flops_after is None and by_name(made)["head"].flops_after is None


def test_modes_of_a_text_are_kept():
    [row] = plan(nn.Sequential(nn.Linear(64, 64)), "ttm:rank=4,in=8x8,out=4x16").layers
    assert (row.format, row.in_modes, row.out_modes) == (TTM(rank=4), (8, 8), (4, 16))
    [layer] = compress(nn.Sequential(nn.Linear(64, 64)), "ttm:rank=4,in=8x8,out=4x16")
    assert [axis.modes for axis in layer.factorized.fold.axes] == [(4, 16), (8, 8)]


def test_an_explicit_rank_is_one_choice_under_a_budget():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    made = plan(model, SVD(rank=8), budget=0.6)
    assert sorted(one.format is None for one in made.layers) == [False, False, True]


def test_tied_weights_stay_dense_with_a_reason():
    made = by_name(plan(Tied(), SVD(), budget=0.9, inputs=torch.zeros(2, 5, dtype=torch.long)))
    assert made["words"].reason == "its weight is shared with head; factorising one of them would untie them"
    assert made["body"].format is not None


def test_a_layer_at_several_places_is_counted_as_it_is_stored_and_run():
    model = Shared()
    made = plan(model, SVD(rank=16), inputs=torch.randn(2, 256))
    small = compress(model, made)
    assert small.first is small.again
    [row] = made.layers
    assert row.flops_before == 3 * 2 * 256 * 256 == made.flops_before
    assert made.params_after == n_parameters(small) == 2 * 16 * 256 + 256
    assert made.flops_after == counted(small, torch.randn(64, 256)) < made.flops_before


def test_a_model_that_is_partly_factorised_already():
    first = compress(Network(), {"body.0": Tucker(rank=8)})
    made = plan(first, SVD(), budget=0.7, inputs=images(16))
    row = by_name(made)["body.0"]
    assert (row.format, row.reason, row.params_before) == (None, "it is factorised already", 2 * 24 * 8 + 64 * 9)
    second = compress(first, made)
    assert made.params_after == n_parameters(second) and made.flops_after == counted(second, images(16))


@pytest.mark.parametrize(
    "model", [nn.Linear(64, 48), nn.Sequential(nn.Linear(64, 48)), nn.Conv1d(16, 16, 9)], ids=["layer", "sequential", "conv"]
)
def test_models_of_one_layer(model: nn.Module):
    made = plan(model, budget=0.5)
    small = compress(model, made)
    assert made.layers[0].name in ("", "0") and n_parameters(small) == made.params_after <= 0.5 * made.params_before
    assert Plan.parse(made.to_text()).layers[0].format == made.layers[0].format


def test_compiled_models_plan_like_plain_ones():
    model = Network().eval()
    compiled: Any = torch.compile(model, backend="eager")
    model.body = torch.compile(model.body, backend="eager")  # type: ignore[assignment]
    made = plan(compiled, budget="flops=0.5", inputs=images())
    assert [one.name for one in made.layers] == ["stem", "body.0", "down", "spare", "head"]
    assert made.model == "Network"
    small = compress(compiled, made)
    assert n_parameters(small) == made.params_after and small(images()).shape == (4, 10)


# -- inputs ---------------------------------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(256, 256), nn.Linear(256, 256)

    def forward(self, x: Tensor, y: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        return {"out": self.a(x) + scale * self.b(y)}


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_inputs_may_be_arguments_or_keywords(kind: type):
    x, y = torch.randn(3, 256), torch.randn(3, 256)
    inputs = {"y": y, "x": x, "scale": 2.0} if kind is dict else kind((x, y))
    made = plan(TwoInputs(), budget="flops=0.5", inputs=inputs)
    assert made.flops_before == 2 * 2 * 256 * 256 and made.flops_after is not None and made.flops_after <= made.flops_before / 2


@pytest.mark.parametrize("kind", ["tensor", "dataset", "loader", "generator", "list"])
def test_calibration_data_of_every_kind(kind: str):
    x = images(40)
    data: Any = {
        "tensor": x, "dataset": TensorDataset(x, torch.zeros(40)), "loader": DataLoader(TensorDataset(x), 8),
        "generator": (part for part in x.split(8)), "list": list(x.split(8)),
    }[kind]  # fmt: skip
    made = plan(Network(), SVD(), budget="flops=0.7", calibration=data)  # FLOP are counted on the data
    assert made.metric == "output" and made.flops_after is not None and made.flops_before is not None
    assert made.flops_after <= 0.7 * made.flops_before


def test_calibration_spends_ranks_where_outputs_suffer():
    """Two equal layers, of which one counts a hundredth in the output."""

    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.strong, self.weak = nn.Linear(48, 48), nn.Linear(48, 48)
            self.weak.load_state_dict(self.strong.state_dict())

        def forward(self, x: Tensor) -> Tensor:
            return self.strong(x) + 0.01 * self.weak(x)

    x = torch.randn(256, 48)
    plain = by_name(plan(Weighed(), SVD(), budget=0.5))
    measured = by_name(plan(Weighed(), SVD(), budget=0.5, calibration=x))
    ratio = [one["strong"].params_after / one["weak"].params_after for one in (plain, measured)]
    assert 0.5 < ratio[0] < 2 and ratio[1] > 4


def test_errors_that_are_not_of_outputs_are_marked(tmp_path: Path):
    """Calibration measures neither lookups nor padded modes."""
    model = nn.Sequential(nn.Embedding(50, 24), nn.Linear(24, 31))
    made = tenfold.plan(model, budget="params=0.6", format={"0": tenfold.SVD(), "1": tenfold.SVD()}, calibration=torch.randint(50, (64, 5)))
    lookup, linear = made.layers
    assert (made.metric, lookup.metric, linear.metric) == ("output", "weight", "")
    assert f"{lookup.error:.4f} (of the weight)" in str(made) and str(made).count("(of the weight)") == 1
    made.save(tmp_path / "plan.toml")
    assert tenfold.Plan.load(tmp_path / "plan.toml").layers[0].metric == "weight"
    report = tenfold.report(model, tenfold.compress(model, made), tmp_path, plan=made)
    assert "its planned error is that of its weight" in report.layers[0].reason


def test_progress_is_told():
    told: list[tuple[str, int, int]] = []
    plan(Network(), SVD(), budget=0.5, calibration=images(8), progress=lambda *what: told.append(what))
    steps = dict.fromkeys(what for what, _, _ in told)
    assert list(steps) == ["reading inputs", "trying ranks", "probing layers", "decomposing what is picked"]
    for step in steps:
        assert [done for what, done, _ in told if what == step][-1] == next(total for what, _, total in told if what == step)


# -- the model is only read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_is_as_before(is_training: bool):
    model = Network().train(is_training)
    model.norm.train(not is_training)
    model.head.weight.requires_grad_(False)
    before = snapshot(model)
    plan(model, budget="flops=0.5,params=0.6", inputs=images())
    assert_untouched(model, before)
    plan(model, SVD(), budget=0.5, calibration=images(70))
    assert_untouched(model, before, versions=False)  # layers are approximated for a moment and put back


def test_the_model_is_as_before_after_an_error():
    class Failing(Network):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            out = super().forward(x)
            if type(self).calls == self.at:
                raise ArithmeticError
            return out

    for at in range(1, 7):
        model = Failing().train()
        Failing.calls, model.at = 0, at
        before = snapshot(model)
        with pytest.raises(ArithmeticError):
            plan(model, SVD(), budget=0.5, calibration=images(70))
        assert_untouched(model, before, versions=False)


def test_the_same_seed_gives_the_same_plan():
    model = Network()
    torch.manual_seed(1)
    first = plan(model, budget="flops=0.5", calibration=images(20).fill_(0.5) + torch.arange(20)[:, None, None, None])
    torch.manual_seed(2)
    second = plan(model, budget="flops=0.5", calibration=images(20).fill_(0.5) + torch.arange(20)[:, None, None, None])
    assert first == second and first.seed == 0 and plan(model, SVD(rank=2), seed=5).seed == 5


def test_explicit_plans_compute_nothing():
    with torch.device("meta"):
        model = Network()
    made = explicit_plan(model, {"body.0": Tucker(rank=(4, 5)), "head": SVD(rank=2)})
    row = by_name(made)["body.0"]
    assert (row.format, row.params_after, row.error) == (Tucker(rank=(4, 5)), 24 * 9 + 20 * 9, None)
    assert by_name(made)["stem"].reason == "no format is given for it" and made.params_after < made.params_before


# -- bad input ------------------------------------------------------------------------------------------------------------


def spoiled(value: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    weight = torch.zeros(16, 16, dtype=dtype)
    weight[3, 4] = value
    model[1].weight = nn.Parameter(weight, requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (spoiled(float("nan")), {"budget": 0.5}, ValueError, "1 has 1 values that are NaN or infinite among 256; all must be finite: repair"),
        (spoiled(float("inf")), {"format": SVD(rank=2)}, ValueError, "1 has 1 values that are NaN or infinite"),
        (spoiled(3, torch.int8), {"budget": 0.5}, TypeError, "1 has the dtype torch.int8; real floating-point values are needed: convert it"),
        (spoiled(1j, torch.cfloat), {"budget": 0.5}, TypeError, "1 has the dtype torch.complex64; real floating-point values are needed"),
        (nn.Sequential(nn.ReLU()), {"budget": 0.5}, ValueError, r"it holds no weight with two or more axes\); it needs at least one Linear"),
        (nn.Bilinear(3, 4, 2), {"budget": 0.5}, ValueError, "there is no factorised layer for Bilinear.*; it needs at least one Linear"),
        (nn.Linear(8, 8), {}, ValueError, "there is no budget and no rank for the model; one of them is needed to choose: give budget=0.5, or"),
        (nn.Sequential(nn.Linear(1, 8)), {"format": SVD()}, ValueError, "there is no budget and no rank for 0"),
        (nn.Linear(8, 8), {"budget": "flops=0.5"}, ValueError, "the budget flops=0.5 counts FLOP, which needs an example input: give inputs="),
        (nn.Linear(8, 8), {"budget": 2}, ValueError, "the budget has params=2; it needs a fraction to keep"),
        (nn.Linear(8, 8), {"format": SVD(rank=9)}, ValueError, "layer '' with svd:rank=9: SVD got rank 9, but ranks above 8 add nothing here"),
        (nn.Linear(8, 8), {"format": {"fc": SVD()}, "budget": 0.5}, ValueError, "'fc' matches no layer; the layers are the model itself: correct"),
        (nn.Linear(8, 8), {"format": "ttm:in=2x3", "budget": 0.9}, ValueError, "layer '' with ttm:in=2x3: .* which does not fit its size 8"),
        (nn.Sequential(nn.LazyLinear(4)), {"budget": 0.5}, ValueError, "no layer that can be factorised here .*no shape yet"),
        (
            nn.Sequential(nn.Linear(8, 8), nn.LazyLinear(4)), {"budget": 0.5}, ValueError,
            "the weights of 1 have no shape yet; all shapes are needed: run the model once on an example",
        ),
        (nn.Linear(8, 8), {"budget": 0.5, "calibration": []}, ValueError, "have no samples; at least one batch is needed"),
        (nn.Linear(8, 8), {"budget": 0.5, "calibration": torch.full((4, 8), torch.nan)}, ValueError, "the inputs of .* NaN or infinite"),
    ],
)  # fmt: skip
def test_bad_input(model: nn.Module, options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        plan(model, **options)


def test_a_bad_weight_outside_of_the_filter_does_no_harm():
    assert plan(spoiled(float("nan")), SVD(), budget=0.7, filter="0").layers[1].reason == "left out by the filter"


def test_a_zero_kernel_gets_the_smallest_rank():
    model = Network()
    nn.init.zeros_(model.body[0].weight)
    for calibration in (None, images(30)):
        made = plan(model, budget="params=0.6", calibration=calibration)
        row = by_name(made)["body.0"]
        assert row.error == 0 and row.params_after <= 24 + 24 + 9
        small = compress(model, made, calibration=calibration)
        assert torch.isfinite(small(images())).all()


def test_inputs_that_are_always_zero():
    """A layer behind a dead one has a second moment of zero."""
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.Conv2d(24, 24, 3))
    nn.init.constant_(model[0].bias, -1e6)
    made = plan(model, budget=0.5, calibration=images(20))
    small = compress(model, made, calibration=images(20))
    assert n_parameters(small) == made.params_after and torch.isfinite(small(images())).all()


def test_half_precision_models():
    for dtype in (torch.bfloat16, torch.float16):
        model = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 32)).to(dtype)
        made = plan(model, budget="bytes=0.5", calibration=torch.randn(64, 32, dtype=dtype))
        small = compress(model, made)
        assert {p.dtype for p in small.parameters()} == {dtype} and small(torch.randn(2, 32, dtype=dtype)).dtype == dtype


def test_the_public_names():
    assert tenfold.plan is public_plan and tenfold.Plan is Plan and tenfold.Budget is Budget
