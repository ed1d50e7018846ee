"""Fine-tuning: what it learns, what it leaves alone, and that it goes on after a kill as if nothing had been."""

import itertools
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from resumable_task import STEPS, build, run
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

import tenfold.nn
from tenfold.evaluate import evaluate
from tenfold.finetune import FinetuneHistory, finetune
from tenfold.formats import SVD, TTM
from tenfold.layers.conv import Conv2d

TASK = Path(__file__).with_name("resumable_task.py")


def spirals(n: int = 384, n_classes: int = 3) -> TensorDataset:
    """Points whose class is the sector that they lie in."""
    points = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    angle = torch.atan2(points[:, 0], points[:, 1]) / (2 * torch.pi) + 0.5
    return TensorDataset(points, (angle * n_classes).long().clamp_max(n_classes - 1))


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(tenfold.nn.Linear(8, 32, format=TTM(rank=6)), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


# -- learning ---------------------------------------------------------------------------------------------------------


def test_a_factorised_model_learns_and_the_history_tells():
    model, data = classifier(), spirals()
    before = evaluate(model, data)
    history = finetune(model, data, epochs=12, batch_size=32, lr=0.02, validation=data)
    assert before.accuracy < 0.6
    assert history.accuracies[-1] > 0.9
    assert history.validation_losses[-1] == evaluate(model, data).loss
    assert len(history.losses) == len(history.lrs) == 12 * 12
    assert len(history.seconds) == len(history.epoch_losses) == len(history.accuracies) == 12
    assert history.epoch_losses[0] == pytest.approx(sum(history.losses[:12]) / 12)
    assert history.epoch_losses[-1] < history.epoch_losses[0] / 3
    assert history.lrs.index(max(history.lrs)) == 15  # a tenth of the steps is warm-up
    assert history.lrs[-1] < 0.02 * 0.02
    lines = str(history).splitlines()
    assert len(lines) == 13
    assert f"{history.accuracies[-1]:.2%}" in lines[-1]


def test_the_first_loss_is_that_of_the_model_as_it_was():
    model, (inputs, targets) = classifier(), spirals().tensors
    expected = F.cross_entropy(classifier().train()(inputs), targets).item()
    assert finetune(model, (inputs, targets), batch_size=384).losses[0] == pytest.approx(expected, rel=1e-5)


def test_a_seed_decides_everything_and_the_global_state_is_left_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    results = []
    for seed in (1, 1, 2):
        model = build()
        torch.manual_seed(11)
        images = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        data = TensorDataset(images, torch.arange(40) % 4)
        history = finetune(model, data, batch_size=8, seed=seed, augment="flip")
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
        results.append((values(model), history))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=0)
    assert results[0][1] == results[1][1]
    assert results[0][1] != results[2][1]


def test_modes_come_back_and_frozen_parameters_stay():
    model = classifier().eval()
    model[1].train()
    model[3].requires_grad_(False)
    before = values(model)
    finetune(model, spirals(), batch_size=64)
    assert [module.training for module in model] == [False, True, False, False]
    torch.testing.assert_close(model[3].weight, before["3.weight"], rtol=0, atol=0)
    assert not torch.equal(model[0].factorized.factors[0], before["0.factorized.factors.0"])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_teacher_is_learned_with_and_without_targets():
    teacher, data = classifier(seed=1), spirals()
    finetune(teacher, data, epochs=12, batch_size=32, lr=0.02)
    teacher.train()
    before = values(teacher)
    for given in (data, data.tensors[0]):
        model = classifier(seed=2)
        finetune(model, given, epochs=12, batch_size=32, lr=0.02, teacher=teacher)
        assert evaluate(model, data, reference=teacher).agreement > 0.9
    torch.testing.assert_close(values(teacher), before, rtol=0, atol=0)
    assert teacher.training


def test_a_regression_and_a_teacher_of_values():
    inputs = spirals().tensors[0]
    targets = inputs[:, :2].sin()
    for teacher in (None, nn.Linear(8, 2)):
        torch.manual_seed(0)
        model = tenfold.nn.Linear(8, 2, format=SVD(rank=2))
        history = finetune(model, (inputs, targets), epochs=10, batch_size=32, lr=0.05, teacher=teacher, teacher_weight=0.1)
        assert history.losses[-1] < history.losses[0] / 4
        assert history.accuracies == ()


@pytest.mark.parametrize(("n_outputs", "outputs"), [(1, None), (5, None), (5, "values")])
def test_a_regression_learns_from_its_teacher_alone(n_outputs, outputs):
    """What all outputs share is most of it, and a softmax does not see it."""
    torch.manual_seed(0)
    inputs, teacher = torch.randn(512, 8), nn.Linear(8, n_outputs)
    with torch.no_grad():
        teacher.weight += 2
    model = tenfold.nn.Linear(8, n_outputs, format=SVD(rank=min(n_outputs, 4)))
    finetune(model, inputs, epochs=30, batch_size=32, lr=0.02, teacher=teacher, outputs=outputs)
    assert F.mse_loss(model(inputs), teacher(inputs)) < 0.03 * teacher(inputs).var()


def test_a_loss_of_the_users_own():
    inputs, targets = spirals().tensors
    history = finetune(classifier(), (inputs, targets), batch_size=384, loss=lambda output, wanted: output.sum() * 0 + len(wanted))
    assert history.losses == (384.0,)


def test_validation_has_the_users_loss_and_what_is_wrong_with_it_comes_first():
    inputs, targets = spirals().tensors
    targets = (targets > 0).float()[:, None]
    torch.manual_seed(0)
    model = tenfold.nn.Linear(8, 1, format=SVD(rank=1))
    history = finetune(model, (inputs, targets), loss=F.binary_cross_entropy_with_logits, validation=(inputs, targets))
    assert history.validation_losses[0] == pytest.approx(F.binary_cross_entropy_with_logits(model(inputs), targets).item(), rel=1e-5)
    before, steps = values(model), []
    for wrong in ((inputs, targets[:, 0].long() + 3), inputs):
        with pytest.raises(ValueError, match=r"have the label \d, but|targets of type NoneType"):
            finetune(model, (inputs, targets), validation=wrong, progress=lambda *what: steps.append(what))
    assert steps == []
    torch.testing.assert_close(values(model), before, rtol=0, atol=0)


def test_the_batch_that_is_tried_first_leaves_the_loaders_and_may_have_no_target():
    inputs, targets = spirals(32).tensors
    targets[:16] = -100
    loaders = [DataLoader(spirals(32), 16, shuffle=True, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    histories = [
        finetune(classifier(), loader, validation=validation) for loader, validation in zip(loaders, (None, loaders[1]), strict=True)
    ]
    assert histories[0].losses == histories[1].losses
    finetune(classifier(), spirals(32), validation=[(inputs[:16], targets[:16]), (inputs[16:], targets[16:])])


def test_sequences_of_ids():
    torch.manual_seed(0)
    ids = torch.randint(9, (32, 7))
    model = nn.Sequential(tenfold.nn.Embedding(9, 8, format=TTM(rank=4)), nn.Linear(8, 9))
    history = finetune(model, (ids, (ids + 1) % 9), epochs=30, batch_size=16, lr=0.05, validation=(ids, (ids + 1) % 9))
    assert history.accuracies[-1] > 0.95


def test_bfloat16_on_the_cpu_keeps_float32_parameters():
    model = classifier()
    history = finetune(model, spirals(), epochs=12, batch_size=32, lr=0.02, precision="bfloat16", validation=spirals())
    assert history.accuracies[-1] > 0.85
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_on_a_gpu(precision):
    history = finetune(classifier().cuda(), spirals(), epochs=12, batch_size=32, lr=0.02, precision=precision, validation=spirals())
    assert history.accuracies[-1] > 0.85


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, partial(torch.optim.SGD, momentum=0.9, nesterov=True), torch.optim.RMSprop, torch.optim.Adagrad]
)
def test_any_optimiser(optimizer):
    history = finetune(classifier(), spirals(), epochs=4, batch_size=32, lr=0.02, optimizer=optimizer)
    assert history.epoch_losses[-1] < history.epoch_losses[0]


def test_an_optimiser_that_is_made_gets_its_learning_rate_back():
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.015)
    history = finetune(model, spirals(), epochs=4, batch_size=32, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.015
    assert history.epoch_losses[-1] < history.epoch_losses[0] * 0.8


def test_gradients_are_clipped():
    inputs, targets = spirals().tensors
    steps = []
    for clip_norm in (1e-3, None):
        model = classifier()
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        finetune(model, (inputs, targets), batch_size=384, optimizer=torch.optim.SGD, lr=1.0, warmup=0, clip_norm=clip_norm)
        steps.append(float((torch.cat([p.detach().flatten() for p in model.parameters()]) - before).norm()))
    assert steps[0] == pytest.approx(1e-3, rel=1e-2)
    assert steps[1] > 1e-2


def test_augmentation_changes_what_is_seen():
    images, labels = torch.randn(16, 3, 6, 6), torch.zeros(16, dtype=torch.long)
    seen = []

    def spy(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen.append(torch.rand(1, generator=generator).item())
        return inputs * 0

    finetune(build(), (images, labels), epochs=2, batch_size=8, augment=spy)
    assert len(set(seen)) == 4
    with pytest.raises(ValueError, match=r"augment='flip' got inputs \(64, 8\); it needs images"):
        finetune(classifier(), spirals(), batch_size=64, augment="flip")


def test_a_compiled_model_and_its_checkpoint(tmp_path):
    compiled = torch.compile(classifier(), backend="eager")
    assert isinstance(compiled, nn.Module)
    history = finetune(compiled, spirals(), batch_size=64, checkpoint=tmp_path / "run.pt")
    plain = classifier()
    assert finetune(plain, spirals(), batch_size=64, checkpoint=tmp_path / "run.pt") == history
    torch.testing.assert_close(list(plain.parameters()), list(compiled.parameters()), rtol=0, atol=0)


def test_a_loop_of_the_users_own_needs_nothing_of_this_file():
    torch.manual_seed(0)
    images, labels = torch.randn(64, 3, 6, 6), torch.randint(4, (64,))
    dense = nn.Conv2d(3, 8, 3, padding=1)
    rest = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    model = nn.Sequential(Conv2d.from_dense(dense, SVD(rank=6)), *rest)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    copy = nn.Sequential(Conv2d.from_dense(dense, SVD(rank=6)), *rest)
    copy.load_state_dict(model.state_dict())
    torch.testing.assert_close(copy.eval()(images), model.eval()(images), rtol=0, atol=0)


# -- resuming ---------------------------------------------------------------------------------------------------------


def die(form: str, path: Path, when: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.run([sys.executable, str(TASK), form, str(path), when], env=environment, capture_output=True, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


@pytest.mark.parametrize(
    ("form", "when", "n_left"),
    [("tensors", "while writing", 14), ("dataset", "7", 19), ("seeded loader", "22", 4)],
)
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, form, when, n_left):
    path = tmp_path / "run.pt"
    model, history = run(form, None)
    die(form, path, when)
    assert path.exists()
    steps = []
    resumed, again = run(form, path, lambda _, step, total: steps.append(step))
    assert steps == list(range(STEPS - n_left + 1, STEPS + 1))  # the rest, not the whole
    torch.testing.assert_close(resumed.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert again == history


def test_a_finished_run_returns_at_once_with_the_same_history(tmp_path):
    model, history = run("tensors", tmp_path / "run.pt")
    steps = []
    fresh, again = run("tensors", tmp_path / "run.pt", lambda _, step, total: steps.append(step))
    assert steps == []
    assert again == history
    assert again.seconds == history.seconds
    torch.testing.assert_close(fresh.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_an_interrupted_model_can_be_given_again(tmp_path):
    path = tmp_path / "run.pt"
    whole = finetune(expected := classifier(), spirals(), batch_size=32)

    def interrupt(_: str, step: int, __: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    model = classifier().eval()
    with pytest.raises(KeyboardInterrupt):
        finetune(model, spirals(), batch_size=32, checkpoint=path, save_every=3, progress=interrupt)
    assert not model.training
    assert finetune(model, spirals(), batch_size=32, checkpoint=path, save_every=3) == whole
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_shuffling_loader_goes_on_where_it_was(tmp_path):
    def interrupt(_: str, step: int, __: int) -> None:
        if step == 14:
            raise KeyboardInterrupt

    model, history = run("loader", None)
    with pytest.raises(KeyboardInterrupt):
        run("loader", tmp_path / "run.pt", interrupt)
    resumed, again = run("loader", tmp_path / "run.pt")
    torch.testing.assert_close(resumed.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert again == history


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.002}, r"with lr = \[\d.*\], but this one has \[0.002, 0.002\]"),
        ({"epochs": 2}, r"with epochs = 1, but this one has 2"),
        ({"seed": 4}, r"with seed = 0, but this one has 4"),
        ({"batch_size": 64}, r"with batch_size = 32, but this one has 64"),
        ({"optimizer": torch.optim.SGD, "lr": 0.001}, r"with optimizer = AdamW, but this one has SGD"),
        ({"teacher": nn.Linear(8, 3)}, r"with teacher = None, but this one has Linear, weight 0.9, temperature 4"),
    ],
)
def test_a_checkpoint_of_other_settings(tmp_path, change, message):
    path = tmp_path / "run.pt"
    finetune(classifier(), spirals(), batch_size=32, checkpoint=path)
    with pytest.raises(
        ValueError, match=rf"{message}; to go on all settings must be the same: use those, or delete it or give another path to start anew"
    ):
        finetune(classifier(), spirals(), **{"batch_size": 32, "checkpoint": path, **change})


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_leaves_the_parameters():
    model, before = classifier(), values(classifier())
    inputs = spirals().tensors[0]
    with pytest.raises(RuntimeError, match=r"the loss is nan at step 1 of 12 with the learning rate 4e-05; it must be finite: lower the"):
        finetune(model, (inputs * torch.nan, torch.zeros(384, dtype=torch.long)), batch_size=32)
    torch.testing.assert_close(list(model.parameters()), [before[name] for name, _ in model.named_parameters()], rtol=0, atol=0)


def test_a_diverging_run_says_so():
    inputs = spirals().tensors[0]
    model = nn.Linear(8, 1)
    with pytest.raises(RuntimeError, match=r"the loss is (nan|inf) at step \d+ of 60 .* lower the learning rate \(lr=1e\+18\)"):
        finetune(model, (inputs, inputs[:, :1]), epochs=5, batch_size=32, lr=1e19, optimizer=torch.optim.SGD, clip_norm=None)


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_data_that_the_model_does_not_take(where: str):
    good, bad = spirals(), TensorDataset(torch.zeros(20, 8, dtype=torch.uint8), torch.zeros(20, dtype=torch.long))
    data, validation = (bad, None) if where == "training" else (good, bad)
    with pytest.raises(
        RuntimeError, match=rf"does not run on the {where} data, whose batch is .* of torch.uint8: .*; inputs as in training"
    ):
        finetune(classifier(), data, validation=validation)


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_samples_without_their_transforms(where: str):
    bad: Any = [(object(), 0)] * 20
    pictures = Subset(bad, range(20))
    data, validation = (pictures, None) if where == "training" else (spirals(), pictures)
    with pytest.raises(TypeError, match=rf"the samples of the {where} data cannot be joined to batches"):
        finetune(classifier(), data, validation=validation)


def test_labels_out_of_range():
    inputs, targets = spirals().tensors
    with pytest.raises(
        ValueError, match=r"the targets have the label 3, but the model has 3 classes, 0 to 2; number the labels from 0, or"
    ):
        finetune(classifier(), (inputs, targets + 1))


def test_empty_data():
    with pytest.raises(ValueError, match="have no samples; at least one batch is needed: check"):
        finetune(classifier(), DataLoader(TensorDataset(torch.zeros(0, 8), torch.zeros(0))))


def test_data_without_targets_or_teacher():
    with pytest.raises(
        ValueError, match=r"targets of type NoneType.*; fine-tuning needs \(input, target\) or a teacher: give labelled data"
    ):
        finetune(classifier(), spirals().tensors[0])


def test_data_that_shrink():
    class Shrinking:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter([spirals().tensors] * (4 - self.passes))

    with pytest.raises(
        ValueError, match=r"the data gave 2 batches in epoch 1, but 3 are expected, as counted before or given; every pass needs"
    ):
        finetune(classifier(), Shrinking())


class Endless(IterableDataset):
    """Points and their classes, again and again; n_read of them were taken."""

    n_read = 0

    def __iter__(self):
        points, classes = spirals(64).tensors
        for k in itertools.count():
            self.n_read += 1
            yield points[k % 64], classes[k % 64]


def test_an_endless_stream_is_trained_on_by_steps(monkeypatch):
    stream = Endless()
    history = finetune(classifier(), DataLoader(stream, 16), epochs=2, steps_per_epoch=3)
    assert len(history.losses) == 6 and stream.n_read < 2 * 16 * 4 + 1  # nothing is read to count
    whole = finetune(classifier(), DataLoader(spirals(64), 16), epochs=2, steps_per_epoch=3)
    assert whole.losses == history.losses
    monkeypatch.setattr("tenfold.batches.COUNT_LIMIT", 8)
    with pytest.raises(
        ValueError, match=r"\(DataLoader\) have no length, and did not end within 8 batches; .*: give finetune steps_per_epoch="
    ):
        finetune(classifier(), DataLoader(stream, 16))
    with pytest.raises(ValueError, match=r"gave 24 batches in epoch 1, but 30 are expected, .*or fewer steps_per_epoch"):
        finetune(classifier(), spirals(), batch_size=16, steps_per_epoch=30)


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"save_every": 0}, {"warmup": -1}, {"steps_per_epoch": 0}])
def test_settings_out_of_range(setting):
    with pytest.raises(
        ValueError, match=r"epochs is -?\d+, save_every -?\d+, warmup .* and steps_.*; at least 1, 1, 0 and 1 are needed: raise"
    ):
        finetune(classifier(), spirals(), **setting)


def test_history_of_an_epoch_without_validation_reads_well():
    history = FinetuneHistory((2.0, 1.0), (0.1, 0.05), (), (), (3.0,))
    assert str(history).splitlines()[1].split() == ["1", "1.5000", "5.0e-02", "-", "-", "3.0"]
