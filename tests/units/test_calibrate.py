"""Second moments of inputs against the direct formula, and BatchNorm statistics against torch's."""

import copy
import dataclasses
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import tenfold
from tenfold import second_moments
from tenfold.calibrate import InputMoments, calibration_batch, input_moments, reestimate_norms, rereadable
from tenfold.patches import is_transposed, patch_size
from tenfold.solvers.whitening import Whitening
from tenfold.survey import survey


class Pairs(Dataset):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return self.x[k], k


def direct(layer: Any, x: Tensor) -> Tensor:
    """Mean of x x' over all patches, one by one: entry e of a patch is the input under the weight's entry e."""
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, nn.Linear):
        rows = x.reshape(1, -1, x.shape[-1])
        return rows.mT @ rows / rows.shape[1]
    if is_transposed(layer):
        operation = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.dim() - 3]
        channels, size = layer.in_channels // groups, patch_size(layer)
        pick = torch.eye(size, dtype=x.dtype).reshape(size, channels, *layer.kernel_size).movedim(1, 0)  # an output for each entry
        options = (None, layer.stride, layer.padding, layer.output_padding, 1, layer.dilation)
        parts = [operation(part, pick, *options) for part in x.chunk(groups, 1)]
        rows = torch.stack([part.movedim(1, -1).reshape(-1, size) for part in parts])
        return rows.mT @ rows / rows.shape[1]
    operation = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
    padding = layer.padding
    if layer.padding_mode != "zeros":
        x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
    size = layer.weight[0].numel()
    pick = torch.eye(size, dtype=x.dtype).reshape(size, *layer.weight.shape[1:])  # an output channel for each entry of a patch
    parts = [operation(part, pick, None, layer.stride, padding, layer.dilation) for part in x.chunk(groups, 1)]
    rows = torch.stack([part.movedim(1, -1).reshape(-1, size) for part in parts])
    return rows.mT @ rows / rows.shape[1]


CASES = {
    "linear": (nn.Linear(7, 5), (12, 7)),
    "steps": (nn.Linear(7, 5), (4, 3, 2, 7)),
    "conv": (nn.Conv2d(4, 6, 3), (5, 4, 7, 8)),
    "stride": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 2)), (3, 4, 9, 8)),
    "dilation": (nn.Conv2d(2, 6, 3, dilation=(1, 2), padding=2), (3, 2, 9, 8)),
    "groups": (nn.Conv2d(6, 9, 3, groups=3, padding=1), (3, 6, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (3, 4, 5, 5)),
    "same": (nn.Conv2d(3, 4, (2, 4), padding="same"), (3, 3, 5, 6)),
    "circular": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 5, 6)),
    "reflect": (nn.Conv1d(3, 4, 5, padding=2, padding_mode="reflect", stride=2), (2, 3, 11)),
    "replicate": (nn.Conv3d(2, 3, 2, padding=1, padding_mode="replicate"), (2, 2, 3, 4, 3)),
    "1d": (nn.Conv1d(4, 6, 3, groups=2), (5, 4, 17)),
    "transposed": (nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)), (3, 4, 5, 4)),
    "transposed, dilated": (nn.ConvTranspose1d(4, 6, 3, stride=2, dilation=2, padding=5, output_padding=1, groups=2), (3, 4, 9)),
    "transposed, 3d": (nn.ConvTranspose3d(2, 3, 2, stride=2), (2, 2, 3, 2, 3)),
    "3d": (nn.Conv3d(3, 4, (1, 2, 3), stride=(1, 2, 1)), (2, 3, 3, 6, 5)),
}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_are_the_direct_formula(name: str, dtype: torch.dtype):
    layer, shape = copy.deepcopy(CASES[name][0]).to(dtype), CASES[name][1]
    x = torch.randn(2, *shape, dtype=dtype)
    found = input_moments(layer, survey(layer), [x[0], x[1]])[""].moment
    expected = (direct(layer, x[0].double()) + direct(layer, x[1].double())) / 2
    assert found.dtype == torch.float64
    exact = dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-10 if exact else 1e-4, atol=1e-12 if exact else 1e-5)


def test_moments_stream_in_double_precision():
    """Many batches whose sum in float32 would stop growing."""
    layer = nn.Linear(2, 2)
    with InputMoments(layer, survey(layer)) as moments:
        for _ in range(3):
            layer(torch.full((1, 2), 4096.0))
            for _ in range(50):
                layer(torch.full((1, 2), 0.5))
    torch.testing.assert_close(moments.moments[""].moment, torch.full((1, 2, 2), (4096.0**2 + 50 * 0.25) / 51, dtype=torch.float64))


def test_sums_are_let_go_as_moments_are_made(monkeypatch: pytest.MonkeyPatch):
    """A moment is as large as the sum that it comes from, and all of both together would be twice what a plan needs."""
    model, held = nn.Sequential(*(nn.Linear(29, 29) for _ in range(6))), list[int]()

    class Counting(Whitening):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            held.append(sum(type(one) is Tensor and one.shape == (1, 29, 29) for one in gc.get_objects()))

    monkeypatch.setattr(second_moments, "Whitening", Counting)
    with InputMoments(model, survey(model)) as moments, torch.no_grad():
        model(torch.randn(40, 29))
    assert len(moments.moments) == 6
    assert max(held) <= 6 + 1


def test_hooks_are_gone_also_after_an_error():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 4)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        input_moments(model, survey(model), [torch.zeros(2, 4)])
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_layers_called_by_keyword_or_not_at_all():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.words = nn.Linear(3, 3), nn.Linear(3, 3), nn.Embedding(4, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.used(input=self.words(ids))

    model = Model()
    found = input_moments(model, survey(model), [torch.tensor([0, 1, 1])])
    assert list(found) == ["used"]
    rows = model.words.weight.detach().double()[[0, 1, 1]]
    torch.testing.assert_close(found["used"].moment[0], rows.T @ rows / 3, rtol=1e-5, atol=1e-6)


def test_inputs_that_are_not_finite():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="the inputs of 0 have values that are NaN or infinite; calibration needs finite ones: check that"):
        input_moments(model, survey(model), [torch.tensor([[1.0, float("nan"), 2.0]])])


@pytest.mark.parametrize("size", [8, 4609])
def test_a_large_mean_of_one_input_hides_nothing_of_the_others(size: int):
    """A covariance of 1 beside a mean of 1e5: products in float32 are exact to 1e3, and such a mean is most of the whole moment."""
    layer, x = nn.Linear(size, 2), torch.randn(400, size)
    x[:, 0] += 1e5
    metric = dataclasses.replace(input_moments(layer, survey(layer), x)[""], rows=None).metric[0]
    rows = x.double() - x.double().mean(0)
    expected = rows.T @ rows / 400 if size < 4609 else rows.square().mean(0)
    torch.testing.assert_close(metric, expected, rtol=1e-4, atol=1e-4)


def test_of_a_large_patch_the_diagonal_is_kept():
    model = nn.Sequential(nn.Linear(4609, 2), nn.Linear(2, 2))
    found = input_moments(model, survey(model), [torch.zeros(2, 4609)])
    assert {name: tuple(one.moment.shape) for name, one in found.items()} == {"0": (1, 4609), "1": (1, 2, 2)}


def test_many_positions_are_thinned_and_the_moment_stays_close():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    x = F.avg_pool2d(torch.randn(64, 2, 50, 50), 3, 1)
    found = input_moments(layer, survey(layer), x)[""].moment
    torch.testing.assert_close(found, direct(layer, x.double()), rtol=0.15, atol=0.005)


@pytest.mark.parametrize("n_samples", [64, 256, 1024])
def test_every_position_counts_alike_in_batches_of_any_size(n_samples: int):
    """Each position has a value of its own, so the moment tells how often each was met."""
    layer, side = nn.Conv2d(1, 2, 1), 32
    places = torch.eye(side).reshape(1, 1, side, side).expand(n_samples, 1, side, side)
    for x in (places, places.roll(1, 3), places.roll(side // 2, 3)):
        found = input_moments(layer, survey(layer), [x])[""].moment
        torch.testing.assert_close(found, torch.full((1, 1, 1), 1 / side, dtype=torch.float64), rtol=0.05, atol=0)


def test_every_sample_counts_alike_in_a_small_last_batch():
    """Of a large batch some patches are read, of two samples all: these two once counted as much as thirty-two."""
    layer, x = nn.Conv2d(1, 2, 3, padding=1), torch.randn(66, 1, 48, 48)
    x[64:] *= 5
    expected = 9 * x.square().mean()  # but for a little padding
    for size in (1, 2, 64, 66):
        found = input_moments(layer, survey(layer), list(x.split(size)))[""].moment[0].trace()
        torch.testing.assert_close(float(found), float(expected), rtol=0.15, atol=0)


@pytest.mark.parametrize("length", [64, 127, 128, 256, 1024])
def test_every_step_of_a_sequence_counts_alike(length: int):
    layer = nn.Linear(2, 3)
    steps = torch.arange(length) % 2
    x = torch.stack([steps, 1 - steps], -1).float().expand(64, -1, -1)
    found = input_moments(layer, survey(layer), [x])[""].moment
    torch.testing.assert_close(found[0], torch.eye(2, dtype=torch.float64) / 2, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("is_sequential", [False, True])
def test_a_transposed_convolution_is_fitted_to_its_outputs(is_sequential: bool):
    """Inputs that use half of the channels: the ranks go there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 12, 1, bias=False), nn.ConvTranspose2d(12, 10, 4, stride=2, padding=1, bias=False), nn.ReLU()).eval()
    x = torch.randn(40, 6, 5, 5)
    with torch.no_grad():
        model[0].weight[6:] *= 0.01
    errors = []
    for data in (None, x):
        small = tenfold.compress(
            model, {"1": tenfold.Tucker(rank=(10, 6))}, calibration=data, sequential=is_sequential and data is not None
        )
        with torch.no_grad():
            errors.append(float((small(x) - model(x)).norm() / model(x).norm()))
    assert errors[1] < 0.5 * errors[0]


class Stem(nn.Module):
    """A layer before a BatchNorm, whose outputs may go past it too."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.stem, self.norm = way, nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        assert y.shape[1] == 4 and y.dim() == 4
        if self.way == "in place":
            y = y.relu_()
        elif self.way == "before":
            y = y + (2 * y).sum()
        z = self.norm(y)
        ways = {"past": lambda: z + y, "joined": lambda: torch.cat([z, y]), "in place": lambda: z, "returned": lambda: {"z": z, "y": [y]}}
        return ways.get(self.way, z.relu)()


@pytest.mark.parametrize(
    "way, is_free", [("alone", True), ("past", False), ("joined", False), ("in place", False), ("before", False), ("returned", False)]
)
def test_a_mean_is_free_where_a_batchnorm_is_all_that_sees_it(way: str, is_free: bool):
    model, x = Stem(way).eval(), torch.randn(2, 4, 3, 8, 8)
    assert input_moments(model, survey(model), [x[0], x[1]])["stem"].is_mean_free == is_free


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, momentum=0.3), nn.ReLU(), nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()


def test_norms_are_those_of_the_data():
    model, x = normed(), torch.randn(128, 5) * 3 + 1
    model[1].running_mean += 7
    assert reestimate_norms(model, [x[:64], x[64:]]) == 2
    first = model[0](x)
    torch.testing.assert_close(model[1].running_mean, first.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, (first[:64].var(0) + first[64:].var(0)) / 2, rtol=1e-5, atol=1e-5)
    assert [model[1].momentum, model[4].momentum] == [0.3, 0.1] and not any(module.training for module in model.modules())


def test_with_a_reference_statistics_move_by_what_changed():
    model, x = normed(), torch.randn(128, 5) * 3 + 1
    model[1].running_mean += 7
    model[1].running_var *= 2
    small = copy.deepcopy(model)
    assert reestimate_norms(small, x, reference=model) == 2
    torch.testing.assert_close(small.state_dict(), model.state_dict(), rtol=1e-5, atol=1e-6)  # nothing changed
    with torch.no_grad():
        small[0].weight *= 2
        small[0].bias += 1
    assert reestimate_norms(small, [x], reference=model) == 2
    means = [one[0](x).mean(0) for one in (small, model)]
    torch.testing.assert_close(small[1].running_mean, means[0] + 2 * (model[1].running_mean - means[1]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(small[1].running_var, 4 * model[1].running_var, rtol=1e-2, atol=0)
    torch.testing.assert_close(small(x), model(x), rtol=1e-2, atol=1e-3)  # a scale and a shift before a BatchNorm cost nothing
    assert not any(module.training or module._forward_pre_hooks for one in (small, model) for module in one.modules())


@pytest.mark.parametrize("size", [1, 2, 8, 256])
def test_with_a_reference_the_size_of_batches_does_not_matter(size: int):
    """Two samples that are alike in a channel had a ratio of variances of any size, and one sample had none."""
    model, x = normed(), torch.randn(256, 5) * 3 + 1
    reestimate_norms(model, x)
    small = copy.deepcopy(model)
    with torch.no_grad():
        small[0].weight += 0.5 * torch.randn_like(small[0].weight)
    assert reestimate_norms(small, DataLoader(TensorDataset(x), size), reference=model) == 2
    for norm, inputs in ((small[1], small[0](x)), (small[4], small[:4](x))):
        torch.testing.assert_close(norm.running_mean, inputs.mean(0), rtol=0, atol=0.1)
        torch.testing.assert_close(norm.running_var, inputs.var(0), rtol=0.1, atol=0)


def test_a_reference_with_other_norms_is_used_as_far_as_it_goes():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3)).eval()
    other = nn.Sequential(nn.BatchNorm1d(3), nn.Identity()).eval()
    before = copy.deepcopy(model.state_dict())
    assert reestimate_norms(model, torch.randn(64, 3), reference=other) == 2
    torch.testing.assert_close(model.state_dict(), before, rtol=1e-5, atol=1e-6)


def test_the_mean_is_free_where_a_bias_or_a_norm_corrects_it():
    model = nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.ReLU(), nn.BatchNorm1d(4)
    ).eval()
    x = torch.randn(90, 3) + 2
    found = input_moments(model, survey(model), x)
    assert {name: one.is_mean_free for name, one in found.items()} == {"0": True, "2": True, "3": False}
    torch.testing.assert_close(found["0"].mean[0], x.double().mean(0), rtol=1e-5, atol=1e-6)
    exact = {name: dataclasses.replace(one, rows=None).metric for name, one in found.items()}
    torch.testing.assert_close(exact["0"][0], x.double().T.cov(correction=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exact["3"], found["3"].moment, rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_an_error_on_few_samples_is_about_that_on_others(bias: bool):
    """Sixteen samples show a quarter of 64 directions: a weight of rank 16 is exact on them alone."""
    scales = torch.linspace(3, 0.3, 64)
    layer, few, others = nn.Linear(64, 64, bias=bias), torch.randn(16, 64) * scales, torch.randn(4000, 64) * scales
    made = tenfold.plan(layer, tenfold.SVD(rank=16), calibration=few)
    small = tenfold.compress(layer, made, calibration=few)
    with torch.no_grad():
        wanted = layer(others)
        real = (small(others) - wanted).norm() / (wanted - (wanted.mean(0) if bias else 0)).norm()
    assert made.layers[0].error is not None and 0.5 * float(real) < made.layers[0].error < 1.5 * float(real)


def test_the_mean_of_a_shared_layer_is_free_only_where_every_call_is_corrected():
    shared, norm, x = nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3), torch.randn(20, 3)
    for model, expected in ((nn.Sequential(shared, norm, shared, norm), True), (nn.Sequential(shared, norm, shared), False)):
        assert input_moments(model.eval(), survey(model), x)["0"].is_mean_free == expected


@pytest.mark.parametrize("data", [torch.zeros(4, 7), torch.zeros(4, 3, dtype=torch.uint8)], ids=["size", "dtype"])
def test_data_that_the_model_does_not_take(data: Tensor):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    for run in (lambda: input_moments(model, survey(model), [data]), lambda: reestimate_norms(model, [data])):
        with pytest.raises(
            RuntimeError,
            match=r"Sequential does not run on the calibration data, whose batch is \(4, .*; inputs as in training are needed: give",
        ):
            run()


@pytest.mark.parametrize("refusal", [AssertionError, ValueError, IndexError, KeyError, AttributeError])
def test_a_model_that_refuses_its_inputs_itself(refusal: type[Exception]):
    class Checks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            raise refusal("wrong height") if x.shape[-1] != 3 else self.linear(x)

    model = Checks()
    with pytest.raises(RuntimeError, match=r"Checks does not run on the calibration data, whose batch is \(4, 7\).*wrong height.*: give"):
        input_moments(model, survey(model), [torch.zeros(4, 7)])


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.linear(a) + b


@pytest.mark.parametrize(
    "data",
    [TensorDataset(torch.zeros(4, 3), torch.zeros(4, 3)), [{"a": torch.zeros(4, 3), "b": torch.zeros(4, 3), "target": torch.zeros(4)}]],
    ids=["no target", "target by another name"],
)
def test_targets_that_are_taken_for_arguments(data: Any):
    model = TwoInputs()
    with pytest.raises(
        RuntimeError, match='argument.*the last of several tensors of a sample, and the entry "labels" of a mapping, are its'
    ):
        input_moments(model, survey(model), data)


def test_data_without_their_transforms():
    class Pictures(Pairs):
        def __getitem__(self, k: int) -> Any:
            return object(), k

    layer = nn.Linear(4, 3)
    with pytest.raises(
        TypeError, match=r"the samples of the calibration data cannot be joined to batches \(default_collate.*; tensors are needed: give"
    ):
        input_moments(layer, survey(layer), Pictures(torch.zeros(8, 4)))
    with pytest.raises(TypeError, match="the samples of the calibration data cannot be joined to batches"):
        tenfold.plan(layer, budget=0.9, calibration=Pictures(torch.zeros(8, 4)))


def test_momentum_and_modes_come_back_after_an_error():
    model = normed().train()
    with pytest.raises(ValueError, match="have no samples; at least one batch is needed"):
        reestimate_norms(model, [])
    assert [model[1].momentum, model[4].momentum] == [0.3, 0.1] and all(module.training for module in model.modules())


@pytest.mark.parametrize("has_reference", [False, True])
def test_statistics_come_back_after_an_error(has_reference: bool):
    """The second batch is one that the model does not take."""
    model = normed()
    before = {name: value.clone() for name, value in model.named_buffers()}
    with pytest.raises(RuntimeError, match="does not run on the calibration data"):
        reestimate_norms(model, [(torch.randn(64, 5) + 5,), (torch.randn(64, 4),)], reference=normed() if has_reference else None)
    assert len(before) == 6
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_norms_without_running_statistics_stay_as_they_are():
    assert reestimate_norms(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), [torch.zeros(2, 3)]) == 0
    assert reestimate_norms(nn.Sequential(nn.LayerNorm(3), nn.InstanceNorm1d(3)), [torch.zeros(2, 3)]) == 0


def test_a_small_last_batch_does_not_disturb_the_norms():
    """One sample has no variance (torch refuses it), and few would count as much as a whole batch."""
    model, x = normed(), torch.randn(65, 5)
    reestimate_norms(model, DataLoader(TensorDataset(x), 64))
    torch.testing.assert_close(model[1].running_mean, model[0](x[:64]).mean(0), rtol=1e-5, atol=1e-5)
    reestimate_norms(model, TensorDataset(x))  # drawn in another order, 64 and 1


def given(kind: str, x: Tensor) -> Any:
    def generator() -> Iterator[tuple[Tensor, Tensor]]:
        yield from ((part, torch.zeros(len(part))) for part in x.split(16))

    return {
        "tensor": x,
        "dataset": Pairs(x),
        "loader": DataLoader(Pairs(x), 16),
        "list": list(x.split(16)),
        "pairs": [(part, torch.zeros(len(part))) for part in x.split(16)],
        "mappings": [{"input": part, "labels": torch.zeros(len(part))} for part in x.split(16)],
        "generator": generator(),
    }[kind]


@pytest.mark.parametrize("kind", ["tensor", "dataset", "loader", "list", "pairs", "mappings", "generator"])
def test_every_kind_of_data(kind: str):
    layer, x = nn.Linear(4, 3), torch.randn(48, 4)
    data = rereadable(given(kind, x))
    for _ in range(2):  # a generator, too, is read twice
        torch.testing.assert_close(input_moments(layer, survey(layer), data)[""].moment[0], (x.T @ x).double() / 48, rtol=1e-4, atol=1e-5)
    batch = calibration_batch(data, 10)
    assert (batch["input"] if kind == "mappings" else batch).shape == (10, 4)


@pytest.mark.parametrize("data", [[], torch.zeros(0, 4), iter([]), DataLoader(Pairs(torch.zeros(0, 4)), 2)])
def test_empty_data(data: Any):
    layer = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="have no samples; at least one batch is needed: check the path or filter"):
        input_moments(layer, survey(layer), rereadable(data))


def test_a_batch_of_several_inputs_is_cut_to_size():
    batch = calibration_batch([(torch.zeros(8, 2), torch.ones(8, 3), torch.zeros(8))], 3)
    assert [one.shape for one in batch] == [(3, 2), (3, 3)]
    batch = calibration_batch([{"a": torch.zeros(8, 2), "flag": True}], 3)
    assert batch["a"].shape == (3, 2) and batch["flag"] is True


def test_an_endless_generator_is_read_only_as_far_as_needed():
    def endless() -> Iterator[Tensor]:
        while True:
            yield torch.zeros(1024, 2)

    assert len(rereadable(endless())) == 4
