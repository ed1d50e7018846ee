"""Stability: plain CP and the same factors after correction, fine-tuned alike, at several ranks and learning rates.

Both start from one fit: alternating least squares without a penalty. Every convolution larger than 1x1 but the first gets CP at the
same fraction of its break-even rank; BatchNorm is corrected; then SGD with momentum on the labels, the same batches in the same
order, gradients not clipped. A run counts as stable where its loss stays finite and the last tenth of its steps is below the first.
"""

import copy
import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import tenfold
from tenfold.calibrate import reestimate_norms
from tenfold.diagnosis import diagnose, stable_step
from tenfold.evaluate import evaluate
from tenfold.recipes.finished_runs import kept_place, read_kept, write_kept
from tenfold.recipes.papers.stable_cpd.networks import Case
from tenfold.recipes.papers.stable_cpd.plain import PlainCP, correct
from tenfold.recipes.reproduction import Request, Table

NETWORKS = ("resnet20", "resnet8")
VARIANTS = ("CP", "CP-EPC")
VERSION = 4  # of what a run is: kept runs of another version are not used


@dataclass(frozen=True)
class Effort:
    """How much is done.

    fractions: of the break-even rank, at which CP stores as many values as the dense kernel.
    lrs: learning rates.
    slack, corrections: of the correction.
    """

    n_train: int = 19_200
    n_test: int = 2_000
    steps: int = 600
    batch_size: int = 32
    fractions: tuple[float, ...] = (0.25, 0.5, 0.75)
    lrs: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2)
    slack: float = 1.01
    corrections: int = 200


QUICK = Effort(n_train=64, n_test=50, steps=2, fractions=(0.5,), corrections=5)


@dataclass(frozen=True)
class Trial:
    """One model, before and after fine-tuning with one learning rate and one seed.

    error: mean relative error of the factorised kernels. eigenvalue: the largest of J'J of any of them.
    before, after: top-1 accuracy; after is None where the loss was not finite.
    first_loss, last_loss: means of the first and of the last tenth of the steps; peak_loss: the highest of any step.
    """

    network: str
    fraction: float
    variant: str
    lr: float
    seed: int
    error: float
    eigenvalue: float
    before: float
    after: float | None = None
    first_loss: float | None = None
    peak_loss: float | None = None
    last_loss: float | None = None

    @property
    def is_stable(self) -> bool:
        """Whether training has lowered the loss."""
        return self.first_loss is not None and self.last_loss is not None and self.last_loss < self.first_loss


def trials(case: Case, request: Request, effort: Effort) -> list[Trial]:
    """All trials of a network, those that are there from before included."""
    wanted = [(f, variant, lr, seed) for f in effort.fractions for seed in request.seeds for lr in effort.lrs for variant in VARIANTS]
    models = functools.lru_cache(maxsize=1)(lambda fraction: _models(case, fraction, effort))  # of the rank in hand
    found = []
    for number, (fraction, variant, lr, seed) in enumerate(wanted):
        request.progress(f"{case.network.name}: stability", number, len(wanted))
        settings = {name: value for name, value in dataclasses.asdict(effort).items() if name not in ("fractions", "lrs")}
        key = {"version": VERSION, "network": case.network.name, "weights": case.digest, "fraction": fraction, "variant": variant, "lr": lr}
        key |= {"seed": seed, **settings}
        place = kept_place(request.out, "stability", f"{case.network.name}-{variant}-{fraction}-{lr}-seed{seed}", key)
        if (kept := read_kept(place, key)) is None:
            start = Trial(case.network.name, fraction, variant, lr, seed, *models(fraction)[variant][1:])
            kept = dataclasses.asdict(_trained(start, models(fraction)[variant][0], case, effort))
            write_kept(place, key, kept)
        found.append(Trial(**kept))
    request.progress(f"{case.network.name}: stability", len(wanted), len(wanted))
    return found


def _trained(start: Trial, model: nn.Module, case: Case, effort: Effort) -> Trial:
    trained = copy.deepcopy(model)
    per_epoch = max(1, len(case.train[0]) // effort.batch_size)
    n_images = effort.batch_size * min(effort.steps, per_epoch)
    try:
        history = tenfold.finetune(
            trained,
            tuple(tensor[:n_images] for tensor in case.train),
            epochs=max(1, round(effort.steps / per_epoch)),
            batch_size=effort.batch_size,
            optimizer=functools.partial(torch.optim.SGD, momentum=0.9),
            lr=start.lr,
            clip_norm=None,
            channels_last=True,
            seed=start.seed,
        )
    except RuntimeError as error:
        if "the loss is" not in str(error):
            raise
        return start  # it is not finite any more
    tenth = max(1, len(history.losses) // 10)
    after = evaluate(trained, case.test).accuracy
    first, last = statistics.fmean(history.losses[:tenth]), statistics.fmean(history.losses[-tenth:])
    return dataclasses.replace(start, after=after, first_loss=first, peak_loss=max(history.losses), last_loss=last)


def _models(case: Case, fraction: float, effort: Effort) -> dict[str, tuple[nn.Module, float, float, float]]:
    """Of every variant the model, the mean error of its kernels, the largest eigenvalue, and its accuracy."""
    formats = {name: PlainCP(rank=max(1, round(fraction * break_even(conv)))) for name, conv in spatial(case.model)}
    plain = tenfold.compress(case.model, formats)
    found = {}
    for variant, model in zip(VARIANTS, (plain, correct(plain, case.model, slack=effort.slack, sweeps=effort.corrections)), strict=True):
        errors = []
        for name, conv in spatial(case.model):
            layer: Any = model.get_submodule(name)
            errors.append(float(((layer.weight - conv.weight).norm() / conv.weight.norm()).detach()))
        reestimate_norms(model, case.train, reference=case.model)
        eigenvalue = max(one.largest_eigenvalue for one in diagnose(model))
        accuracy = evaluate(model, case.test).accuracy
        assert accuracy is not None
        found[variant] = (model, statistics.fmean(errors), eigenvalue, accuracy)
    return found


def spatial(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """The convolutions with kernels larger than 1x1, without the first, which sees the colours."""
    found = [(name, one) for name, one in model.named_modules() if isinstance(one, nn.Conv2d) and math.prod(one.kernel_size) > 1]
    return [(name, one) for name, one in found if one.in_channels > 3]


def break_even(conv: nn.Conv2d) -> float:
    """The rank at which CP stores as many values as the kernel."""
    return conv.weight.numel() / (conv.in_channels + conv.out_channels + math.prod(conv.kernel_size))


def table(trials: Sequence[Trial], effort: Effort) -> Table:
    """One row for each network, rank and learning rate."""
    both = [f"{variant} {what}" for what in ("error", "largest step", "before", "after", "stable") for variant in VARIANTS]
    columns = ("network", "break-even rank", "learning rate", *both)
    rows = []
    for network, fraction, lr in dict.fromkeys((one.network, one.fraction, one.lr) for one in trials):
        pair = [[t for t in trials if (t.network, t.fraction, t.lr, t.variant) == (network, fraction, lr, v)] for v in VARIANTS]
        rows.append(
            (
                network,
                f"{fraction:g}x",
                f"{lr:g}",
                *(f"{one[0].error:.3f}" for one in pair),
                *(f"{stable_step(one[0].eigenvalue):.2g}" for one in pair),
                *(f"{one[0].before:.1%}" for one in pair),
                *(_accuracy(one) for one in pair),
                *(f"{sum(t.is_stable for t in one)} of {len(one)}" for one in pair),
            )
        )
    protocol = (
        f"top-1 on {effort.n_test:,} images, before and after {effort.steps} steps of SGD with momentum 0.9 on labels, batch "
        f"{effort.batch_size}; mean over seeds +- standard deviation. CP and CP-EPC share fit, ranks, batches and schedule."
    )
    step = "largest step: of gradient descent on ||W - W~||^2 of any kernel, 1 / the largest eigenvalue of J'J; it diverges above."
    words = f"CP-EPC: within {effort.slack:g} times the error of CP. stable: the loss stays finite, and its last tenth is below its first."
    return Table("Stability: the same fine-tuning of plain and of corrected CP", columns, tuple(rows), (protocol, step, words))


def _accuracy(trials: Sequence[Trial]) -> str:
    values = [one.after for one in trials if one.after is not None]
    if len(values) < len(trials):
        return "not finite"
    return f"{statistics.fmean(values):.1%}" + (f" +- {100 * statistics.stdev(values):.1f}" if len(values) > 1 else "")
