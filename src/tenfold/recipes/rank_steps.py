"""Rank steps: the steps of a training in which ranks may be found, from the first one or from a checkpoint on.

What a step does follows from its number, and so do its batch and the posterior's noise. A checkpoint holds the rest: values, optimiser,
posterior, decision and torch's random numbers. So a training that was killed goes on with the same bits.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tenfold.bayes import Posterior, Rounding, Stability
from tenfold.bayes.report import Decision
from tenfold.learner import rebuilt
from tenfold.progress import Progress
from tenfold.recipes.run_checkpoint import load_state, plain_decision, save_state, saved_decision

CLIP_NORM = 1.0
HIGHEST = 0.99  # tolerance to which one is raised


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
        """The batches of an epoch, which follow from seed and epoch: `n_steps` pairs of (input, target)."""
        ...

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean loss of an example."""
        ...


def batches_from(task: Task, seed: int, step: int) -> Iterator[tuple[Any, Tensor]]:
    """The batches from a step on, those before it skipped at once; epochs follow one another without end."""
    epoch, n_done = divmod(step, task.n_steps)
    batches = itertools.chain.from_iterable(itertools.islice(task.batches(seed, number), task.n_steps) for number in itertools.count(epoch))
    for _ in range(n_done):
        next(batches)
    return batches


class Search:
    """A posterior in the first `n_steps`, and a rule that then decides; the decision is looked at before it counts.

    least_ratio: the rule's tolerance is raised until all weights together have so many times fewer values than if dense; 0 asks nothing.

    Raises:
        ValueError: ranks of 1 are not enough for that.
    """

    def __init__(self, posterior: Posterior, rule: Rounding, n_steps: int, least_ratio: float = 0.0) -> None:
        self.posterior, self.rule, self.n_steps, self.least_ratio = posterior, rule, n_steps, least_ratio
        check_ratio(posterior, least_ratio)
        self.stability = Stability(posterior, rule)
        self.decision: Decision | None = None
        n_more = self.stability.evaluations - 1
        first = max(0, n_steps - n_more * max(1, round(0.05 * n_steps)))  # the rate is below 2 % of its peak in the last twentieth
        self.evaluations = [first + round(k * (n_steps - first) / n_more) for k in range(n_more + 1)]

    def look(self, step: int) -> None:
        """Looks at the decision, or takes it, where that comes before this step."""
        for _ in range(self.evaluations.count(step)):
            self.stability.evaluate()
        if step == self.n_steps:
            self.decision = self.posterior.shrink(raised(self.rule, self.posterior, self.least_ratio))
            self.posterior.finish()

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, with the values of the model: plain values and tensors."""
        state = {"posterior": self.posterior.state_dict(), "stability": self.stability.state_dict()}
        return {**state, "decision": plain_decision(self.decision)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved state back; the weights get their ranks, and after the decision their plain factors."""
        self.posterior.load_state_dict(state["posterior"])
        self.stability.load_state_dict(state["stability"])
        self.decision = saved_decision(state["decision"])
        if self.decision is not None:
            self.posterior.finish()


def check_ratio(posterior: Posterior, least_ratio: float) -> None:
    """Raises ValueError where ranks of 1 are not small enough for a ratio."""
    best = _ratio(posterior, {name: dict.fromkeys(one.network.ranks, 1) for name, one in posterior.run.weights.items()})
    if not least_ratio <= best:
        raise ValueError(f"least_ratio is {least_ratio:g}; with all ranks at 1 these weights reach {best:.4g}: ask for less")


def raised(rule: Rounding, posterior: Posterior, least_ratio: float) -> Rounding:
    """The rule with the least tolerance, to a thousandth, at which all weights together have so many times fewer values than if dense."""

    def is_enough(rule: Rounding) -> bool:
        decided = posterior.decide(rule)
        return _ratio(posterior, {name: one.sizes for name, one in decided.items() if not one.is_removed}) >= least_ratio

    if not least_ratio or is_enough(rule):
        return rule
    low, high = rule.tolerance, HIGHEST
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(replace(rule, tolerance=middle)) else (middle, high)
    return replace(rule, tolerance=high)


def _ratio(posterior: Posterior, sizes: Mapping[str, Mapping[str, int]]) -> float:
    """How many times fewer values than if dense the weights have with these ranks; those that are not named have none."""
    weights = posterior.run.weights
    left = sum(weights[name].network.resized(dict(one)).numel for name, one in sizes.items())
    return sum(math.prod(one.fold.shape) for one in weights.values()) / max(1, left)


@dataclass
class Steps:
    """A training as far as it has come.

    task: None: the prior alone.
    rate: the learning rate of a step.
    optimizer: makes that of the model, whose parameters the decision replaces; it is told whether it serves the search.
    settings: what has to be the same for the training to go on, as texts.
    precision: of the forward and backward steps, float32 or bfloat16; is_rebuilt: they multiply with rebuilt weights.
    n_before: steps before the first one here, whose batches are past.
    seconds: in the steps that are done.
    """

    model: nn.Module
    task: Task | None
    seed: int
    total: int
    rate: Callable[[int], float]
    optimizer: Callable[[bool], Optimizer]
    settings: Mapping[str, str]
    search: Search | None = None
    precision: str = "float32"
    is_rebuilt: bool = False
    n_before: int = 0
    done: int = 0
    seconds: float = 0.0
    batches: Iterator[tuple[Any, Tensor]] = field(default_factory=lambda: iter(()))

    def run(self, checkpoint: Path | None, save_every: int, label: str, progress: Progress) -> None:
        """All steps, from the checkpoint on where there is one."""
        with torch.random.fork_rng(devices=[]), rebuilt(self.model) if self.is_rebuilt else contextlib.nullcontext():
            torch.manual_seed(self.seed)
            optimizer = self._start(None if checkpoint is None else load_state(checkpoint, self.settings))
            while self.done < self.total:
                began = time.perf_counter()
                optimizer = self._looked(optimizer)
                self._step(optimizer)
                self.done += 1
                self.seconds += time.perf_counter() - began
                if checkpoint is not None and (self.done % save_every == 0 or self.done == self.total):
                    save_state(checkpoint, self.settings, self._state(optimizer))
                progress(label, self.done, self.total)
            self._looked(optimizer)

    @property
    def posterior(self) -> Posterior | None:
        """That of the search, until ranks are decided."""
        return self.search.posterior if self.search is not None and self.search.decision is None else None

    def _looked(self, optimizer: Optimizer) -> Optimizer:
        """The optimiser of the next step: another one after the decision."""
        if self.search is None or self.posterior is None:
            return optimizer
        self.search.look(self.done)
        return optimizer if self.search.decision is None else self.optimizer(False)

    def _step(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.rate(self.done)
        if self.posterior is not None:
            self.posterior.step()
        loss = self._loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.task is not None:
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], CLIP_NORM)
        optimizer.step()

    def _loss(self) -> Tensor:
        if self.task is None:
            assert self.posterior is not None
            return self.posterior.penalty()
        inputs, targets = next(self.batches)
        with torch.autocast(targets.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = self.model(inputs)
        loss = self.task.loss(output.float(), targets)
        return loss if self.posterior is None else self.posterior.loss(loss)

    def _start(self, state: Mapping[str, Any] | None) -> Optimizer:
        """Puts a state back, if there is one; the optimiser of the next step."""
        if state is not None:
            self.done, self.seconds = state["done"], state["seconds"]
            if self.search is not None:
                self.search.load_state_dict(state["search"])
            device = next(self.model.parameters()).device
            self.model.load_state_dict({name: value.to(device) for name, value in state["model"].items()}, assign=True)  # strides too
        self.model.train()
        optimizer = self.optimizer(self.posterior is not None)
        if self.posterior is not None:
            self.posterior.watch(optimizer)
        if self.task is not None:
            self.batches = batches_from(self.task, self.seed, self.n_before + self.done)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
        return optimizer

    def _state(self, optimizer: Optimizer) -> dict[str, Any]:
        return {
            "done": self.done,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "search": None if self.search is None else self.search.state_dict(),
            "random": torch.get_rng_state(),
        }
