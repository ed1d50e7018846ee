"""Automatic ranks: one training in which ranks are found: a posterior over the factors, a decision, and training of what is left.

The steps are divided in three. Search: a `Posterior` with the prior's weight at zero, rising, and then constant, while the learning rate
falls along a cosine to less than a hundredth of its peak. Decision: rounding, where wanted weighted by the second moments of the inputs;
whether the ranks have stopped changing is looked at several times before. Tuning: the smaller factors without a prior. Networks
without a search (dense ones, fixed ranks) get as many steps on one cosine.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from tenfold.bayes import Posterior, Rounding, Stability, attach
from tenfold.bayes.report import Decision, RankReport
from tenfold.bayes.surgery import resize
from tenfold.optimizer import make_optimizer
from tenfold.progress import Progress, silent
from tenfold.weight import FactorizedWeight

WARMUP = 0.05  # of all steps: until the highest learning rate
LAST = 0.005  # of the highest learning rate, at the end of the search: well below what a decision needs
CLIP_NORM = 1.0


class Task(Protocol):
    """What is learned."""

    @property
    def n_examples(self) -> int:
        """N of the prior's weight T / N."""
        ...

    @property
    def n_steps(self) -> int:
        """Steps in an epoch."""
        ...

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Any, Tensor]]:
        """The batches of an epoch: `n_steps` pairs of (input, target)."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean loss of an example."""
        ...


@dataclass(frozen=True)
class Training:
    """How the networks of a recipe are trained: AdamW, a warm-up and a cosine, gradients clipped at norm 1.

    lr, dense_lr: the highest learning rate of the factorised networks, and of the dense one.
    temperature: T of the prior's weight T / N.
    tolerance: of the rounding.
    kind: of the posterior.
    quiet, full: parts of the search: until the prior begins, and until it has its full weight.
    tuning: the part of all steps after the decision; tuning_lr: its highest learning rate relative to `lr`.
    weight_decay: of AdamW, for parameters with two axes or more; not during the search, where the prior takes its place.
    precision: float32, or bfloat16: the forward and backward steps in mixed precision; values, optimiser and tests stay in float32.
    """

    epochs: int
    batch_size: int
    lr: float
    dense_lr: float
    temperature: float
    tolerance: float = 0.1
    kind: str = "variational"
    quiet: float = 0.1
    full: float = 0.4
    tuning: float = 0.3
    tuning_lr: float = 0.5
    weight_decay: float = 0.0
    precision: str = "float32"


@dataclass(frozen=True)
class Found:
    """What a training with automatic ranks found; the model has its new ranks and is a plain one again.

    ranks: by layer; 0 where nothing is left of it.
    is_stable: whether the ranks were the same in the last evaluations before the decision.
    """

    decision: Decision
    report: RankReport
    is_stable: bool
    n_steps: int

    @property
    def ranks(self) -> dict[str, dict[str, int]]:
        """The new ranks by layer."""
        return self.decision.ranks


@dataclass
class _Loop:
    """Steps of one model on one task, counted."""

    model: nn.Module
    task: Task
    seed: int
    progress: Progress
    label: str
    total: int
    precision: str = "float32"
    done: int = 0
    batches: Iterator[tuple[Any, Tensor]] = field(default_factory=lambda: iter(()))

    def batch(self) -> tuple[Any, Tensor]:
        """The next batch; epochs follow one another."""
        if self.done % self.task.n_steps == 0:
            self.batches = self.task.batches(self.seed, self.done // self.task.n_steps)
        self.done += 1
        self.progress(self.label, self.done, self.total)
        return next(self.batches)

    def run(self, optimizer: Optimizer, rates: Callable[[int], float], n_steps: int, posterior: Posterior | None = None) -> None:
        """Some steps."""
        self.model.train()
        for step in range(n_steps):
            for group in optimizer.param_groups:
                group["lr"] = rates(step)
            if posterior is not None:
                posterior.step()
            inputs, targets = self.batch()
            with torch.autocast(targets.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                output = self.model(inputs)
            loss = self.task.loss(output.float(), targets)
            if posterior is not None:
                loss = posterior.loss(loss)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], CLIP_NORM)
            optimizer.step()


def train_plain(
    model: nn.Module, task: Task, training: Training, lr: float, *, seed: int, label: str = "training", progress: Progress = silent
) -> None:
    """Trains a model with the ranks that it has, or a dense one, in place."""
    total = training.epochs * task.n_steps
    with _seeded(seed):
        loop = _Loop(model, task, seed, progress, label, total, training.precision)
        loop.run(adam(model, lr, training.weight_decay), lambda step: lr * cosine(step, total), total)


def train_automatic(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    seed: int,
    moments: Mapping[str, Tensor] | None = None,
    label: str = "training",
    progress: Progress = silent,
) -> Found:
    """Trains a model in place and finds its ranks meanwhile.

    Args:
        moments: by layer, the second moment of its inputs; rounding errors are then measured on what the layer computes.
    """
    total = training.epochs * task.n_steps
    n_search = total - round(training.tuning * total)
    rule = Rounding(training.tolerance, n_spreads=0.0, moments=dict(moments or {}))
    with _seeded(seed):
        posterior, optimizer = _attached(model, task.n_examples, training, n_search, seed)
        stability = Stability(posterior, rule)
        loop = _Loop(model, task, seed, progress, label, total, training.precision)
        n_last = max(1, round(0.05 * n_search))  # the rate is below 2 % of its peak in the last twentieth
        first = max(0, n_search - (stability.evaluations - 1) * n_last)
        for start, end in _spans(first, n_search, stability.evaluations - 1):
            loop.run(optimizer, lambda step, start=start: training.lr * search_rate(start + step, n_search), end - start, posterior)
            stability.evaluate()
        report, decision = posterior.report(), posterior.shrink(rule)
        posterior.finish()
        tuning_lr = training.lr * training.tuning_lr
        optimizer = adam(model, tuning_lr, training.weight_decay)
        loop.run(optimizer, lambda step: tuning_lr * cosine(step, total - n_search), total - n_search)
    return Found(decision, report, stability.is_stable, total)


def train_null(
    model: nn.Module,
    n_examples: int,
    training: Training,
    n_steps: int,
    *,
    seed: int,
    label: str = "null model",
    progress: Progress = silent,
) -> Decision:
    """The decision of the same search without any data: what the prior and the optimiser do by themselves. Nothing should be left."""
    rule = Rounding(training.tolerance, n_spreads=0.0)
    with _seeded(seed):
        posterior, optimizer = _attached(model, n_examples, training, n_steps, seed)
        for step in range(n_steps):
            for group in optimizer.param_groups:
                group["lr"] = training.lr * search_rate(step, n_steps)
            posterior.step()
            optimizer.zero_grad(set_to_none=True)
            posterior.penalty().backward()
            optimizer.step()
            progress(label, step + 1, n_steps)
        decision = posterior.shrink(rule)
    posterior.finish()
    return decision


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


def _attached(model: nn.Module, n_examples: int, training: Training, n_steps: int, seed: int) -> tuple[Posterior, Optimizer]:
    posterior = attach(
        model,
        n_examples=n_examples,
        kind=training.kind,  # pyright: ignore[reportArgumentType]
        temperature=training.temperature,
        warmup=(round(training.quiet * n_steps), round(training.full * n_steps)),
        seed=seed,
    )
    optimizer = adam(model, training.lr)
    posterior.watch(optimizer)
    return posterior, optimizer


def _spans(first: int, last: int, n_more: int) -> list[tuple[int, int]]:
    """The steps between evaluations: up to the first one, and then in equal parts up to the last."""
    ends = [first + round(k * (last - first) / n_more) for k in range(n_more + 1)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


class _seeded:
    """Torch's random numbers follow from a seed within, and are as before after it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.fork = torch.random.fork_rng(devices=[])
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        self.fork.__exit__(*error)
