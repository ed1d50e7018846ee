"""Automatic ranks: a training that finds planted ranks, its controls, its schedule, how it goes on when killed, and what is refused."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import resumable_ranks
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tenfold.bayes.factorized_weights import factorized_weights
from tenfold.formats import CP, TTM
from tenfold.nn import Linear
from tenfold.precision import Precision
from tenfold.recipes.automatic_ranks import LAST, Training, adam, cosine, fix_ranks, search_rate, train_automatic, train_null, train_plain

TRAINING = Training(epochs=40, batch_size=64, lr=3e-2, dense_lr=1e-2, temperature=10.0, tolerance=0.05)


class Regression:
    """y = W x + noise, W of rank 2 in the modes of a TTM."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        teacher = Linear(16, 16, format=TTM(rank=2), in_modes=(4, 4), out_modes=(4, 4), bias=False)
        with torch.no_grad():
            for factor in teacher.factorized.factors:
                factor.normal_(generator=generator)
        self.weight = teacher.weight.detach() / teacher.weight.detach().std()
        self.x = torch.randn(512, 16, generator=generator)
        self.y = self.x @ self.weight.T + 0.1 * torch.randn(512, 16, generator=generator)

    @property
    def n_examples(self) -> int:
        return 512

    @property
    def n_steps(self) -> int:
        return 8

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(512, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        return ((self.x[rows], self.y[rows]) for rows in order.split(64))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return 16 * F.mse_loss(output, target) / (2 * 0.1**2)


def student(rank: int = 6) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(Linear(16, 16, format=TTM(rank=rank), in_modes=(4, 4), out_modes=(4, 4)))


def error(model: nn.Module, task: Regression) -> float:
    with torch.no_grad():
        return float((model.get_submodule("0").weight - task.weight).norm() / task.weight.norm())  # pyright: ignore


def test_planted_ranks_are_found_in_one_training() -> None:
    """The error of the weight within 1.3 of that of the true rank, trained as long."""
    task, model, oracle, seen = Regression(), student(), student(2), []
    found = train_automatic(model, task, TRAINING, seed=0, progress=lambda label, done, total: seen.append((label, done, total)))
    assert found.ranks == {"0": {"r1": 2}} and found.is_stable and found.n_steps == 320
    assert dict(factorized_weights(model)["0"].network.ranks) == {"r1": 2}
    assert seen[0] == ("training", 1, 320) and seen[-1] == ("training", 320, 320) and len(seen) == 320
    assert not any("log_variances" in name for name in model.state_dict())
    train_plain(oracle, task, TRAINING, TRAINING.lr, seed=0)
    assert error(model, task) < max(1.3 * error(oracle, task), 0.02)


def test_the_same_seed_gives_the_same_network() -> None:
    task, short = Regression(), Training(epochs=3, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1.0)
    models = [student(3) for _ in range(2)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for model in models:
        train_automatic(model, task, short, seed=4)
        torch.rand(3)
    torch.set_rng_state(before)
    assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


def test_the_tolerance_is_raised_until_the_ratio_is_reached() -> None:
    """A TTM of 4 x 4 by 4 x 4 has 32 values for each rank, and 256 if dense."""
    task, ranks = Regression(), {}
    for ratio in (0.0, 1.0, 4.0, 8.0):
        short = Training(epochs=2, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1e-3, tolerance=1e-6, least_ratio=ratio)
        ranks[ratio] = train_automatic(student(), task, short, seed=0).ranks["0"]["r1"]
    assert ranks == {0.0: 6, 1.0: 6, 4.0: 2, 8.0: 1}
    with pytest.raises(ValueError, match="least_ratio is 9; with all ranks at 1 these weights reach 8: ask for less"):
        train_automatic(student(), task, replace(short, least_ratio=9.0), seed=0)


def test_factors_larger_than_dense_are_no_error_where_no_size_is_asked_for() -> None:
    short = Training(epochs=2, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1e-3, tolerance=1e-6)
    assert train_automatic(student(12), Regression(), short, seed=0).ranks["0"]["r1"] == 12


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_without_data_nothing_is_left() -> None:
    found = train_null(student(), 512, TRAINING, 320, seed=0)
    assert found.removed == ("0",) and found.ranks == {"0": {"r1": 0}} and found.n_steps == 320


def test_ranks_are_fixed_before_a_training_from_scratch() -> None:
    model = nn.Sequential(Linear(16, 16, format=TTM(rank=6)), Linear(16, 4, format=CP(rank=4)))
    fix_ranks(factorized_weights(model), {"0": {"r1": 2}, "1": {"r": 3}})
    assert [dict(one.network.ranks) for one in factorized_weights(model).values()] == [{"r1": 2}, {"r": 3}]
    assert model(torch.randn(3, 16)).shape == (3, 4)
    with pytest.raises(ValueError, match="nothing is left of 0; ranks of at least 1 are needed: train with a lower temperature"):
        fix_ranks(factorized_weights(model), {"0": {"r1": 0}})


def test_rebuilt_weights_train_the_same_network() -> None:
    task, short, models = Regression(), Training(epochs=2, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1.0), [student(), student()]
    for model, rebuild in zip(models, (False, True), strict=True):
        train_automatic(model, task, replace(short, rebuild=rebuild), seed=0)
    assert_close(models[1].state_dict(), models[0].state_dict(), rtol=1e-3, atol=1e-4)


def test_the_decay_of_the_search_ends_with_it() -> None:
    """Without a tuning phase `weight_decay` changes nothing, and `search_decay` makes the weight smaller."""
    task, norms = Regression(), {}
    for decays in ((0.0, 0.0), (0.0, 10.0), (10.0, 0.0)):
        model = student()
        short = Training(epochs=4, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1e-3, tuning=0.0)
        train_automatic(model, task, replace(short, search_decay=decays[0], weight_decay=decays[1]), seed=0)
        norms[decays] = float(factorized_weights(model)["0"].dense().detach().norm())
    assert norms[0.0, 0.0] == norms[0.0, 10.0] > norms[10.0, 0.0]


def test_a_warm_up_takes_its_part_of_the_steps_and_of_the_batches() -> None:
    """Dense for half of the epochs, on the first half of the cosine; the search goes on with the batches that come then."""
    task, seen = Regression(), []
    short = Training(epochs=4, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1e-3, dense_part=0.5)

    class Watched(Regression):
        def batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            seen.append(epoch)
            return super().batches(seed, epoch)

    dense = nn.Sequential(nn.Linear(16, 16))
    train_plain(dense, Watched(), short, short.dense_lr, seed=0, part=short.dense_part)
    found = train_automatic(student(), Watched(), short, seed=0)
    assert seen == [0, 1, 2, 3] and found.n_steps == 2 * task.n_steps
    with pytest.raises(ValueError, match="of 32 steps 22 are the warm-up's and 10 come after the decision; at least one is needed for the"):
        train_automatic(student(), task, replace(short, dense_part=0.7), seed=0)


def test_schedules() -> None:
    rates = [cosine(step, 100) for step in range(100)]
    assert rates[4] == 1.0 and max(rates) == 1.0 and rates[0] == 0.2 and rates[-1] < 1e-3
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))
    assert search_rate(99, 100) == LAST < 0.05


SHORT = Training(epochs=1, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1.0)


@pytest.mark.parametrize(
    ("precision", "is_native", "dtype"),
    [("bfloat16", True, torch.bfloat16), ("auto", True, torch.bfloat16), ("auto", False, torch.float32), ("float32", True, torch.float32)],
)
def test_mixed_precision_is_for_products_alone(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, is_native: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("tenfold.precision.has_bfloat16", lambda device: is_native)
    seen = []
    task, model = Regression(), nn.Sequential(nn.Linear(16, 16), nn.Identity())
    model[1].register_forward_hook(lambda module, arguments, output: seen.append(output.dtype))
    train_plain(model, task, replace(SHORT, precision=precision), 1e-2, seed=0)
    assert set(seen) == {dtype}
    assert {one.dtype for one in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("bf16", r"precision is 'bf16'; it needs one of auto, float32, bfloat16, float16: choose one of these"),
        ("float16", r"'float16', which needs a scaled loss; this training takes 'float32', 'bfloat16' or 'auto': choose one of these"),
    ],
)
def test_other_precisions_are_refused(precision: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_plain(nn.Linear(16, 16), Regression(), replace(SHORT, precision=precision), 1e-2, seed=0)


def test_weights_decay_and_vectors_do_not() -> None:
    model = nn.Linear(3, 2)
    optimizer = adam(model, 0.1, weight_decay=0.5)
    start = {name: one.detach().clone() for name, one in model.named_parameters()}
    for one in model.parameters():
        one.grad = torch.zeros_like(one)
    optimizer.step()
    assert_close(model.weight.detach(), 0.95 * start["weight"])
    assert_close(model.bias.detach(), start["bias"], rtol=0, atol=0)


# -- going on ----------------------------------------------------------------------------------------------------------


def check_same(one: tuple[nn.Module, object], other: tuple[nn.Module, object]) -> None:
    """The same outcome, bits and layouts in memory."""
    assert one[1] == other[1]
    assert_close(one[0].state_dict(), other[0].state_dict(), rtol=0, atol=0)
    assert [p.stride() for p in one[0].parameters()] == [p.stride() for p in other[0].parameters()]


@pytest.mark.parametrize("when", [resumable_ranks.DECIDED - 1, resumable_ranks.DECIDED + 4])
def test_a_killed_training_goes_on_with_the_same_bits(tmp_path: Path, when: int) -> None:
    """Killed between two looks at the decision, and in the tuning."""
    path = tmp_path / "run.ckpt"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, str(Path(resumable_ranks.__file__)), "automatic", str(path), str(when)]
    killed = subprocess.run(command, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    check_same(resumable_ranks.run("automatic", path), resumable_ranks.run("automatic", None))


class Stopped(Exception):
    pass


def stop_at(when: int, way: str, path: Path, save_every: int) -> None:
    def watch(done: int) -> None:
        if done == when:
            raise Stopped

    with pytest.raises(Stopped):
        resumable_ranks.run(way, path, watch, save_every)


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
@pytest.mark.parametrize(
    ("way", "when", "save_every"),
    [
        ("automatic", 13, 5),  # in an epoch
        ("automatic", resumable_ranks.DECIDED, 1),
        ("automatic", resumable_ranks.DECIDED + 1, 1),
        ("automatic", resumable_ranks.N_STEPS, 7),  # what is done with the model afterwards may be killed as well
        ("plain", 13, 5),
        ("null", resumable_ranks.N_STEPS, 7),
    ],
)
def test_a_training_stopped_anywhere_goes_on(tmp_path: Path, way: str, when: int, save_every: int) -> None:
    path, steps = tmp_path / "made" / "run.ckpt", []
    stop_at(when, way, path, save_every)
    again = resumable_ranks.run(way, path, steps.append, save_every)
    saved = when if when == resumable_ranks.N_STEPS else when - when % save_every
    assert steps == list(range(saved + 1, resumable_ranks.N_STEPS + 1))
    check_same(again, resumable_ranks.run(way, None))


def test_a_training_stopped_twice_counts_its_seconds(tmp_path: Path) -> None:
    path, seconds = tmp_path / "run.ckpt", []
    for when in (5, 9):
        stop_at(when, "plain", path, 1)
        seconds.append(torch.load(path, weights_only=True)["seconds"])
    assert 0 < seconds[0] < seconds[1]


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    path, task, short = tmp_path / "run.ckpt", Regression(), Training(epochs=1, batch_size=64, lr=1e-2, dense_lr=1e-2, temperature=1.0)
    train_automatic(student(3), task, short, seed=4, checkpoint=path)
    with pytest.raises(
        ValueError, match=r"run\.ckpt is of a run with seed = 4, but this one has 5; to go on all settings must be the same"
    ):
        train_automatic(student(3), task, short, seed=5, checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.ckpt is of a run with values = 112, but this one has 144; to go on all settings must be"):
        train_automatic(student(4), task, short, seed=4, checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.ckpt is of a run with n_search = 6, but this one has 0; to go on all settings must be"):
        train_plain(student(3), task, short, 1e-2, seed=4, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"the checkpoint .*run\.ckpt cannot be read \(.*\); a whole file is needed: delete it"):
        train_automatic(student(3), task, short, seed=4, checkpoint=path)
    torch.save({"version": "other"}, path)
    with pytest.raises(ValueError, match=r"run\.ckpt is not a tenfold run checkpoint 1; a file that such a run has written is needed"):
        train_plain(student(3), task, short, 1e-2, seed=4, checkpoint=path)
