"""Bisection over the fraction that is kept, with a cheap proxy that says where fine-tuning is worth its time; resumable."""

import contextlib
import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from tenfold.budget import Budget, as_budget
from tenfold.compress import stayed_dense
from tenfold.evaluate import Evaluation, evaluate
from tenfold.finetune import FinetuneHistory
from tenfold.model_file import load, save
from tenfold.plan_data import Plan
from tenfold.progress import Progress
from tenfold.ranks.latency import Latency, timed_plan
from tenfold.ranks.offers import UNSOLVED, Offers
from tenfold.ranks.trials import BEST, SearchResult, Trial, TrialFile, as_json, history_of, trial_of

RECOVERY = 0.25  # the part of a one-shot loss that is left after fine-tuning, before any trial has told
LEAST_LOSS = 0.1  # points; smaller losses are noise, of which no ratio is taken

Tune: TypeAlias = Callable[[nn.Module, Path | None, Progress], Any]


@dataclass
class Bisection:
    """A search under way. A place is a number of steps: place k keeps k / steps of what is to be smallest."""

    model: nn.Module
    goal: Budget
    validation: Any
    make: Callable[[Plan, Progress], nn.Module]
    tune: Tune | None
    inputs: Any
    latency: Latency
    file: TrialFile
    steps: float
    tunings: int
    progress: Progress
    find: Callable[[], Offers]
    trials: dict[int, Trial | None] = field(default_factory=dict)  # by place; None: no plan is that small
    plans: dict[int, Plan] = field(default_factory=dict)  # by place, as first made: a later one might differ, as times do
    path: list[int] = field(default_factory=list)  # the places that were decided on
    best: int | None = None
    best_plan: Plan | None = None
    best_model: nn.Module | None = None
    history: FinetuneHistory | None = None
    dense: Evaluation | None = None
    offers: Offers | None = None
    unreachable: ValueError | None = None  # why the last place without a plan has none
    last: tuple[str, nn.Module] | None = None  # the plan that was decomposed last, and its model
    decomposing_s: float = 0.0  # of decompositions that no trial has counted yet

    def run(self) -> SearchResult:
        """Searches to the end."""
        self._resume()
        low, high, sizes = 0, int(self.goal.limits.get(self.goal.smallest, 1.0) * self.steps + 1e-9) + 1, []
        if self.goal.smallest not in self.goal.limits:
            high = round(self.steps)  # the dense model, which stays inside
        for number in range(self.tunings):
            if high - low < 2:
                break
            self.progress("search", number, self.tunings)
            sizes.append(high - low)
            if number == len(self.path):  # else a search that was stopped goes on along its path
                is_stuck = len(sizes) > 2 and sizes[-1] > sizes[-3] / 2
                self.path.append((low + high) // 2 if self.tune is None or is_stuck else self._promising(low, high))
            place = self.path[number]
            trial = self._trial(place, is_tuned=self.tune is not None)
            low, high = (low, place) if trial is not None and trial.is_inside else (place, high)
        self.progress("search", self.tunings, self.tunings)
        if self.unreachable is not None and not any(self.trials.values()):
            hint = "; or search for the fewest parameters: add smallest=params" if self.goal.smallest == "flops" else ""
            raise ValueError(
                f"no plan for {self.goal} keeps less of the {self.goal.smallest}: {self.unreachable}{hint}"
            ) from self.unreachable
        return self._result()

    def _promising(self, low: int, high: int) -> int:
        """The smallest place between two whose one-shot loss fine-tuning is expected to bring inside; the last one where none is."""
        least = max(self._drop_allowed, LEAST_LOSS)
        tuned = [one for one in self.trials.values() if one is not None and one.tuned is not None]
        part = RECOVERY
        if tuned:
            near = min(tuned, key=lambda one: abs(one.drop - least))
            part = min(1.0, max(0.02, max(near.drop, LEAST_LOSS) / max(self._lost(near.one_shot), LEAST_LOSS)))

        def is_promising(place: int) -> bool:
            trial = self._trial(place, is_tuned=False)
            return trial is not None and self._lost(trial.one_shot) <= least / part

        below, above = low, high
        for place in sorted(self.trials):  # what is known already narrows it down
            if below < place < above:
                below, above = (below, place) if is_promising(place) else (place, above)
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (below, middle) if is_promising(middle) else (middle, above)
        return min(above, high - 1)

    def _trial(self, place: int, *, is_tuned: bool) -> Trial | None:
        """The trial at a place, evaluated now or before; None where no plan is that small."""
        known = self.trials.get(place)
        if (place in self.trials and known is None) or (known is not None and (known.tuned is not None or not is_tuned)):
            return known
        plan = self._plan(place)
        if plan is None:
            self.trials[place] = None
            self._save()
            return None
        same = next((one for one in self.trials.values() if one is not None and one.plan == _uses(plan)), None)
        if same is not None and (same.tuned is not None or not is_tuned):
            self.trials[place] = replace(same, limit=place / self.steps)
        else:
            self._evaluate(place, plan, is_tuned)
        self._save()
        if (checkpoint := self._checkpoint(place)) is not None and is_tuned:
            checkpoint.unlink(missing_ok=True)
        return self.trials[place]

    def _evaluate(self, place: int, plan: Plan, is_tuned: bool) -> None:
        known = self.trials.get(place)
        show = self._at(place)
        small = self._compressed(plan, place)
        began, self.decomposing_s = time.perf_counter() - self.decomposing_s, 0.0
        assert self.dense is not None and self.dense.accuracy is not None
        if known is None:
            found = evaluate(small, self.validation, reference=self.model, progress=show)
            accuracy, flops = found.accuracy or 0.0, None
            if plan.flops_before and plan.flops_after is not None:
                flops = plan.flops_after / plan.flops_before
            known = Trial(
                limit=place / self.steps, params=plan.params_after / max(1, plan.params_before), flops=flops,
                one_shot=accuracy, tuned=None, drop=self._lost(accuracy), agreement=found.agreement,
                is_inside=False, seconds=0.0, plan=_uses(plan),
            )  # fmt: skip
        history = None
        if is_tuned and self.tune is not None:
            self.last = None  # it is about to change
            history = self.tune(small, self._checkpoint(place), show)
            found = evaluate(small, self.validation, reference=self.model, progress=show)
            tuned = found.accuracy or 0.0
            known = replace(known, tuned=tuned, drop=self._lost(tuned), agreement=found.agreement)
        is_inside = known.drop <= self._drop_allowed and (self.tune is None or is_tuned)
        self.trials[place] = replace(known, is_inside=is_inside, seconds=known.seconds + time.perf_counter() - began)
        if is_inside and (self.best is None or place < self.best):
            self._keep(place, small, history if isinstance(history, FinetuneHistory) else None, plan)

    def _keep(self, place: int, small: nn.Module, history: FinetuneHistory | None, plan: Plan) -> None:
        self.best, self.best_plan, self.history = place, plan, history
        if self.file.folder is None:
            self.best_model = copy.deepcopy(small)
        else:
            save(small, self.file.folder / BEST, plan=plan)

    def _compressed(self, plan: Plan, place: int) -> nn.Module:
        """The decomposed model of a plan, which the caller may change where it takes it out of `last`."""
        if self.last is None or self.last[0] != _uses(plan):
            began = time.perf_counter()
            self.last = (_uses(plan), self.make(plan, self._at(place)))
            self.decomposing_s += time.perf_counter() - began
        return self.last[1]

    def _plan(self, place: int) -> Plan | None:
        """The plan at a place, kept before it is tried; None where nothing is that small.

        A layer that cannot be decomposed would count as one that loses nothing: it is taken out of the offers.
        """
        while place not in self.plans:
            plan = self._best_of_offers(place)
            if plan is None:
                return None
            is_known = any(one is not None and one.plan == _uses(plan) for one in self.trials.values())
            if is_known or not (failed := stayed_dense(self._compressed(plan, place), plan)):
                self.plans[place] = plan
                self._save()
            else:
                assert self.offers is not None
                self.offers = self.offers.without_layers(dict.fromkeys(failed, UNSOLVED))
        return self.plans[place]

    def _best_of_offers(self, place: int) -> Plan | None:
        if self.offers is None:
            self.offers = self.find()
            if self.latency == "auto":
                self.latency = self._settled(self.offers)
        goal = as_budget({**self.goal.limits, self.goal.smallest: place / self.steps})
        try:
            self.offers, plan = timed_plan(self.offers, goal, self.latency, self.inputs, self.progress)
            return plan
        except ValueError as error:
            self.unreachable = error
            return None

    def _settled(self, offers: Offers) -> Latency:
        """What "auto" means here: budgets of FLOP are measured, unless all that could be chosen is slower than dense."""
        if not self.goal.counts_flops:
            return "ignored"
        largest = min(1 - 1 / self.steps, self.goal.limits.get(self.goal.smallest, 1.0))
        mildest = as_budget({**self.goal.limits, self.goal.smallest: largest})
        try:
            self.offers, _ = timed_plan(offers, mildest, "measured", self.inputs, self.progress)
        except ValueError:
            with contextlib.suppress(ValueError):  # nothing fits at all: the search will say so
                offers.pick(mildest)
                warnings.warn("all that could be chosen runs slower than dense here; this search does not look at times", stacklevel=2)
                return "ignored"
        return "measured"

    @property
    def _drop_allowed(self) -> float:
        return (self.goal.accuracy_drop or 0.0) + 1e-9

    def _lost(self, accuracy: float) -> float:
        """Points below the dense model."""
        assert self.dense is not None and self.dense.accuracy is not None
        return 100 * (self.dense.accuracy - accuracy)

    def _named(self, prefix: str) -> Progress:
        return lambda what, done, total: self.progress(f"{prefix}: {what}", done, total)

    def _at(self, place: int) -> Progress:
        return self._named(f"{self.goal.smallest}={place / self.steps:.3g}")

    def _checkpoint(self, place: int) -> Path | None:
        return None if self.file.folder is None else self.file.folder / f"trial{place}.ckpt"

    def _resume(self) -> None:
        if self.file.folder is not None:
            self.file.folder.mkdir(parents=True, exist_ok=True)
        state = self.file.load()
        if state:
            self.trials = {int(k): None if one is None else trial_of(one) for k, one in state["trials"].items()}
            self.plans = {int(k): Plan.parse(text) for k, text in state.get("plans", {}).items()}
            self.path, self.best, self.history = state["path"], state["best"], history_of(state["history"])
            self.best_plan = Plan.parse(state["plan"]) if state["plan"] else None
            self.dense = Evaluation(**state["dense"])
        else:
            self.dense = evaluate(self.model, self.validation, progress=self._named("dense"))
        if self.dense.accuracy is None:
            raise ValueError(
                f"the validation data have targets without classes; accuracy_drop={self.goal.accuracy_drop} needs class numbers: "
                "give a budget of fractions for such a model"
            )
        self._save()

    def _save(self) -> None:
        trials = {str(k): as_json(one) for k, one in self.trials.items()}
        plans = {str(k): one.to_text() for k, one in self.plans.items()}
        plan = self.best_plan.to_text() if self.best_plan else ""
        best = {"path": self.path, "best": self.best, "plan": plan, "history": as_json(self.history)}
        self.file.save({"dense": as_json(self.dense), "trials": trials, "plans": plans, **best})

    def _result(self) -> SearchResult:
        assert self.dense is not None and self.dense.accuracy is not None
        best = None if self.best is None else self.trials[self.best]
        plan = self.best_plan
        if plan is None:
            offers = self.offers or self.find()
            plan, small = offers.plan_of({}, self.goal), copy.deepcopy(self.model)
        elif self.best_model is not None:
            small = self.best_model
        else:
            assert self.file.folder is not None
            small = load(self.file.folder / BEST, self.model)
        shown = {one.limit: one for _, one in sorted(self.trials.items()) if one is not None}
        return SearchResult(plan, small, tuple(shown.values()), best, self.dense.accuracy, self.dense.n, self.history)


def _uses(plan: Plan) -> str:
    """What a plan does, as text: plans that say the same of every layer are one."""
    return "\n".join(f"{one.name} {one.format!r} {one.in_modes} {one.out_modes}" for one in plan.layers if one.format is not None)
