"""Automatic ranks: one training in which ranks are found: a posterior over the factors, a decision, and training of what is left.

The steps are divided in three. Search: a `Posterior` with the prior's weight at zero, rising, and then constant, while the learning rate
falls along a cosine to less than a hundredth of its peak. Decision: rounding, where wanted weighted by the second moments of the inputs;
whether the ranks have stopped changing is looked at several times before. Tuning: the smaller factors without a prior. Networks
without a search (dense ones, fixed ranks) get as many steps on one cosine. Before the search there may be a full-rank warm-up: the dense
network on the first part of its cosine, then factorised (Wang et al. 2021, Pufferfish, arXiv 2103.03936; Wang et al. 2023, Cuttlefish,
arXiv 2305.02538).
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from tenfold.bayes import Rounding, attach
from tenfold.bayes.report import Decision
from tenfold.bayes.surgery import resize
from tenfold.optimizer import make_optimizer
from tenfold.precision import Precision, settled
from tenfold.progress import Progress, silent
from tenfold.recipes.rank_steps import Search, Steps, Task
from tenfold.recipes.run_checkpoint import run_settings
from tenfold.weight import FactorizedWeight

WARMUP = 0.05  # of all steps: until the highest learning rate
LAST = 0.005  # of the highest learning rate, at the end of the search: well below what a decision needs
SAVE_EVERY = 200  # steps between two checkpoints


@dataclass(frozen=True)
class Training:
    """How the networks of a recipe are trained: AdamW, a warm-up and a cosine, gradients clipped at norm 1.

    lr, dense_lr: the highest learning rate of the factorised networks, and of the dense one.
    temperature: T of the prior's weight T / N.
    tolerance: of the rounding; least_ratio: where above 0, it is raised until the factorised layers have so many times fewer values than
        if dense.
    kind: of the posterior.
    dense_part: the part of all steps that the caller has given to a full-rank warm-up of the dense network; the rest are done here.
    quiet, full: parts of the search: until the prior begins, and until it has its full weight.
    tuning: the part of all steps after the decision; tuning_lr: its highest learning rate relative to `lr`.
    weight_decay: of AdamW, for parameters with two axes or more; search_decay: that of the search, where the prior is in its place.
    precision: float32; bfloat16: the forward and backward steps in mixed precision, while values, optimiser and tests stay in float32;
        or auto, see `tenfold.precision`.
    rebuild: multiply with weights rebuilt from their factors: the same to rounding, and faster where weights are small.
    """

    epochs: int
    batch_size: int
    lr: float
    dense_lr: float
    temperature: float
    tolerance: float = 0.1
    least_ratio: float = 0.0
    kind: str = "variational"
    dense_part: float = 0.0
    quiet: float = 0.1
    full: float = 0.4
    tuning: float = 0.3
    tuning_lr: float = 0.5
    weight_decay: float = 0.0
    search_decay: float = 0.0
    precision: Precision = "float32"
    rebuild: bool = False


@dataclass(frozen=True)
class FoundRanks:
    """What a training with automatic ranks found; the model has its new ranks and is a plain one again.

    is_stable: whether the ranks were the same in the last evaluations before the decision.
    seconds: in steps, those before a kill included.
    """

    decision: Decision
    is_stable: bool
    n_steps: int
    seconds: float

    @property
    def ranks(self) -> dict[str, dict[str, int]]:
        """The new ranks by layer; 0 where nothing is left of it."""
        return self.decision.ranks

    @property
    def removed(self) -> tuple[str, ...]:
        """The layers of which nothing is left."""
        return self.decision.removed


def train_plain(
    model: nn.Module,
    task: Task,
    training: Training,
    lr: float,
    *,
    seed: int,
    part: float = 1.0,
    checkpoint: Path | None = None,
    save_every: int = SAVE_EVERY,
    label: str = "training",
    progress: Progress = silent,
) -> float:
    """Trains a model with the ranks that it has, or a dense one, in place; the seconds that its steps took.

    Args:
        part: so much of the steps, the first ones on the schedule of all, as in a full-rank warm-up.
        checkpoint: a file to go on from, written every `save_every` steps and at the end; remove it when what was trained is safe.

    Raises:
        ValueError: the checkpoint is damaged, or of a run with other settings; or the precision is none, or float16.
    """
    horizon = training.epochs * task.n_steps
    steps = _steps(model, task, training, lr, round(part * horizon), seed, task.n_examples, horizon=horizon)
    steps.run(checkpoint, save_every, label, progress)
    return steps.seconds


def train_automatic(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    seed: int,
    moments: Mapping[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    save_every: int = SAVE_EVERY,
    label: str = "training",
    progress: Progress = silent,
) -> FoundRanks:
    """Trains a model in place and finds its ranks meanwhile, in the steps that the full-rank warm-up has left.

    Args:
        moments: by layer, the second moment of its inputs; rounding errors are then measured on what the layer computes.
        checkpoint: as in `train_plain`.

    Raises:
        ValueError: as in `train_plain`, or no steps are left for the search.
    """
    horizon = training.epochs * task.n_steps
    n_before, n_tuning = round(training.dense_part * horizon), round(training.tuning * horizon)
    total = horizon - n_before
    if total <= n_tuning:
        raise ValueError(
            f"of {horizon} steps {n_before} are the warm-up's and {n_tuning} come after the decision; at least one is needed for the "
            "search: train for more epochs"
        )
    rule = Rounding(training.tolerance, n_spreads=0.0, moments=dict(moments or {}))
    lr = training.lr * training.tuning_lr
    steps = _steps(model, task, training, lr, total, seed, task.n_examples, total - n_tuning, rule, n_before=n_before)
    steps.run(checkpoint, save_every, label, progress)
    return _found(steps)


def train_null(
    model: nn.Module,
    n_examples: int,
    training: Training,
    n_steps: int,
    *,
    seed: int,
    checkpoint: Path | None = None,
    save_every: int = SAVE_EVERY,
    label: str = "null model",
    progress: Progress = silent,
) -> FoundRanks:
    """The same search without any data: what the prior and the optimiser do by themselves. Nothing should be left.

    Args:
        checkpoint: as in `train_plain`.

    Raises:
        ValueError: as in `train_plain`.
    """
    rule = Rounding(training.tolerance, n_spreads=0.0)
    steps = _steps(model, None, training, training.lr, n_steps, seed, n_examples, n_steps, rule)
    steps.run(checkpoint, save_every, label, progress)
    return _found(steps)


def fix_ranks(weights: Mapping[str, FactorizedWeight], ranks: Mapping[str, Mapping[str, int]]) -> None:
    """Gives weights the ranks that were found, in place; their values are to be set anew afterwards.

    Raises:
        ValueError: a layer has a rank of 0, so that no network of these ranks exists.
    """
    if gone := [name for name, one in ranks.items() if 0 in one.values()]:
        raise ValueError(f"nothing is left of {', '.join(gone)}; ranks of at least 1 are needed: train with a lower temperature")
    for name, sizes in ranks.items():
        resize(weights[name], sizes)


def adam(model: nn.Module, lr: float, weight_decay: float = 0.0) -> Optimizer:
    """AdamW, all parameters of a model at once where the machine can: factors are many and small. Vectors do not decay."""
    is_fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return make_optimizer(model, functools.partial(AdamW, fused=is_fused), lr, weight_decay)


def cosine(step: int, n_steps: int) -> float:
    """The learning rate relative to its peak: a straight rise, then half a cosine to zero."""
    n_warmup = max(1, round(WARMUP * n_steps))
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))


def search_rate(step: int, n_steps: int) -> float:
    """The same, down to `LAST`, which the last step has in short searches too."""
    return LAST if step == n_steps - 1 else max(cosine(step, n_steps), LAST)


def _steps(
    model: nn.Module,
    task: Task | None,
    training: Training,
    lr: float,
    total: int,
    seed: int,
    n_examples: int,
    n_search: int = 0,
    rule: Rounding | None = None,
    *,
    n_before: int = 0,
    horizon: int | None = None,
) -> Steps:
    """The steps of a model: `n_search` of a search where there is a rule, and then others whose highest learning rate is `lr`.

    n_before: steps whose batches are past; horizon: where the learning rate would reach zero; left out, at the last step.
    """
    if training.precision == "float16":
        raise ValueError(
            "precision is 'float16', which needs a scaled loss; this training takes 'float32', 'bfloat16' or 'auto': choose one of these"
        )
    precision = settled(training.precision, next(model.parameters()).device)
    training = replace(training, precision=precision)  # a checkpoint is of what was computed with
    end = total if horizon is None else horizon

    def rate(step: int) -> float:
        if step < n_search:
            return training.lr * search_rate(step, n_search)
        return lr * cosine(step - n_search, end - n_search)

    def optimizer(is_searching: bool) -> Optimizer:
        return adam(model, training.lr, training.search_decay) if is_searching else adam(model, lr, training.weight_decay)

    more = {"n_examples": n_examples, "n_steps": total, "n_search": n_search, "last_lr": lr, "seed": seed, "has_data": task is not None}
    more |= {"n_before": n_before, "horizon": end}
    settings = run_settings(model, training, **more)
    search = None
    if rule is not None:
        posterior = attach(
            model,
            n_examples=n_examples,
            kind=training.kind,  # pyright: ignore[reportArgumentType]
            temperature=training.temperature,
            warmup=(round(training.quiet * n_search), round(training.full * n_search)),
            seed=seed,
        )
        search = Search(posterior, rule, n_search, training.least_ratio)
    return Steps(model, task, seed, total, rate, optimizer, settings, search, precision, training.rebuild, n_before)


def _found(steps: Steps) -> FoundRanks:
    assert steps.search is not None and steps.search.decision is not None
    return FoundRanks(steps.search.decision, steps.search.stability.is_stable, steps.total, steps.seconds)
