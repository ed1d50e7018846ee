"""What one run of a model tells about each layer, against torch's own count of FLOP."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode

from tenfold import CP, SVD, compress, plan
from tenfold.network import Network
from tenfold.survey import survey
from tenfold.trace import Workloads, trace


def counted(model: nn.Module, inputs: Tensor) -> float:
    """FLOP of one sample in eval, when everything that layers keep is there."""
    model.eval()
    with torch.no_grad():
        model(inputs)
        with FlopCounterMode(display=False) as counter:
            model(inputs)
    return counter.get_total_flops() / len(inputs)


class Folded(nn.Module):
    """Treats the steps of a sequence as samples, for a linear layer and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(128, 512)
        self.conv = nn.Conv2d(8, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.reshape(-1, 128))
        return self.conv(y.reshape(-1, 8, 8, 8))


class Often(nn.Module):
    """One convolution at three resolutions, called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(input=x)
        x = self.conv(input=x[..., ::2, ::2])
        return self.conv(input=x[..., ::2, ::2])


class Positions(nn.Module):
    """Maps a table that does not depend on the batch, and leaves a layer unused."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 24))
        self.place = nn.Linear(24, 24)
        self.each = nn.Linear(24, 24)
        self.unused = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        return self.each(x + self.place(self.table))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Folded(), (10, 128)),
        (Often(), (32, 32, 32)),
        (nn.Sequential(nn.Conv1d(6, 12, 5, stride=2, groups=2), nn.ConvTranspose1d(12, 6, 3), nn.Linear(21, 7)), (6, 41)),
        (nn.Sequential(nn.Conv3d(3, 4, 2, padding=1), nn.Flatten(), nn.Linear(4 * 64, 10)), (3, 3, 3, 3)),
    ],
    ids=["folded", "often", "1d", "3d"],
)
@pytest.mark.parametrize("example", [1, 2, 7])
def test_dense_flops_are_torchs_and_all_belong_to_layers(model: nn.Module, shape: tuple[int, ...], example: int):
    layers = survey(model)
    found = trace(model, torch.randn(example, *shape), layers)
    assert found.flops == counted(model, torch.randn(4, *shape))
    loads = [found.workload(one) for one in layers]
    assert sum(load.dense_flops for load in loads if load) == found.flops


@pytest.mark.parametrize(("model", "shape"), [(Folded(), (10, 128)), (Often(), (32, 32, 32))], ids=["folded", "often"])
def test_flops_of_a_compressed_model_are_predicted_for_layers_that_run_often(model: nn.Module, shape: tuple[int, ...]):
    made = plan(model, {"conv": CP(rank=2), "[l]*": SVD(rank=2)} if hasattr(model, "linear") else CP(rank=2), inputs=torch.randn(2, *shape))
    with pytest.warns(UserWarning, match="did not converge"):
        small = compress(model, made, sweeps=2)
    assert made.flops_after is not None and made.flops_before is not None and made.flops_after < made.flops_before / 2
    assert [counted(small, torch.randn(n, *shape)) for n in (16, 64, 128)] == [made.flops_after] * 3


class Some(nn.Module):
    """Maps some samples, more rows than there are samples, each sample alone, steps before samples, and as many channels as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.few, self.many, self.alone, self.steps = (nn.Linear(6, 6) for _ in range(4))
        self.conv = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        few, many = self.few(x[:3, 0]), self.many(torch.cat([x[:, 0], x[:5, 0]]))
        steps = self.steps(x.transpose(0, 1))
        return few, many, steps, self.conv(x.repeat(3, 4, 1)), *(self.alone(one[0]) for one in x)


def test_calls_on_any_number_of_rows_are_counted_by_their_rows():
    torch.manual_seed(0)
    model = Some()
    layers = survey(model)
    found = trace(model, torch.randn(8, 2, 6), layers)
    loads = {one.name: found.workload(one) for one in layers}
    rows = {"few": 3, "many": 13, "alone": 8, "steps": 16}
    wanted = {name: 2 * 36 * n // 8 for name, n in rows.items()} | {"conv": 3 * 2 * 6 * 8 * 8 * 3}
    assert {name: load.dense_flops for name, load in loads.items() if load} == wanted
    made = plan(model, {"few": SVD(rank=1)}, inputs=torch.randn(8, 2, 6))
    assert made.flops_before == found.flops and made.layers[0].flops_after in range(1, wanted["few"] + 1)


def test_packed_sequences_are_counted_by_their_steps():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(24, 48, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return self.gru(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1]

    inputs = (torch.randn(8, 12, 24), torch.tensor([12, 3, 5, 7, 1, 12, 9, 4]))  # 53 steps
    made = plan(Packed(), SVD(rank=4), inputs=inputs)
    assert [row.flops_before for row in made.layers] == [53 * 2 * 24 * 144 // 8, 53 * 2 * 48 * 144 // 8]


def test_work_that_does_not_grow_with_the_batch_is_shared_among_the_samples():
    model = Positions()
    layers = survey(model)
    found = trace(model, torch.randn(20, 5, 24), layers)
    loads = {one.name: found.workload(one) for one in layers}
    assert loads["unused"] is None
    assert loads["each"] is not None and loads["each"].dense_flops == 2 * 5 * 24 * 24
    assert loads["place"] is not None and loads["place"].dense_flops == 2 * 5 * 24 * 24 / 20


def test_lookups_cost_no_flops_dense_and_their_products_factorised():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(60, 16)

        def forward(self, ids: Tensor) -> Tensor:
            return self.words(ids.reshape(-1)).reshape(*ids.shape, 16)

    model = Words()
    made = plan(model, SVD(rank=4), inputs=torch.randint(60, (3, 9)))
    assert (made.flops_before, made.flops_after) == (0, 9 * 2 * 4 * 16)
    assert counted(compress(model, made), torch.randint(60, (16, 9))) == made.flops_after


def test_factorised_layers_are_counted_as_in_every_call_but_the_first():
    small = compress(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), {"0": SVD(rank=4)})
    found = trace(small, torch.randn(16, 64), [])
    assert found.flops == counted(small, torch.randn(16, 64))


def test_the_model_is_as_before_also_after_an_error():
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ArithmeticError

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Failing())
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ArithmeticError):
        trace(model, torch.randn(2, 3, 8, 8), survey(model))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("small", [False, True])
def test_an_example_that_the_model_does_not_take(small: bool):
    model: nn.Module = nn.Sequential(nn.Linear(8, 8))
    model = compress(model, SVD(rank=2)) if small else model
    with pytest.raises(
        RuntimeError,
        match=r"Sequential does not run on the example inputs, whose batch is \(2, 3\) of torch.float32: .*; inputs as in training",
    ):
        trace(model, torch.zeros(2, 3), [])


def test_compiled_parts_are_traced_as_they_are_written():
    def backend(graph: object, inputs: object) -> None:
        raise AssertionError("a run that only looks must not compile")

    model = nn.Sequential(torch.compile(nn.Linear(8, 8), backend=backend), nn.Linear(8, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = trace(model, torch.zeros(3, 8), survey(model))
    assert found.flops == 2 * 8 * 8 + 2 * 8 * 4
    assert [len(found.calls[name]) for name in ("0", "1")] == [1, 1]


def test_workloads_add_up():
    class Load:
        dense_flops = 10

        def flops(self, network: Network) -> int:
            return network.numel

    network = Network.parse("o r, r i -> o i", {"o": 2, "r": 1, "i": 3})
    loads = Workloads(((Load(), 3), (Load(), 1)))  # type: ignore[arg-type]
    assert (loads.dense_flops, loads.flops(network)) == (40, 20)
