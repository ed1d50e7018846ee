"""Global budget: slices of all ranks of all layers compete for a falling number of places.

Each rank has a scale on every slice. The importance of a slice is the smoothed product of value and gradient, of its scale and in the
mean of its entries, times its smoothed fluctuation. Every so many steps the least important slices get the scale 0; they may come back.
Ranks whose scale is frozen, since their first factor is, cannot be scored: they keep all slices, and take no place.

Source: AdaLoRA, Zhang et al. 2023, arXiv 2303.10512: importance (eqs. 8 to 11), cubic schedule, soft orthogonality of 0.1. Deviations: any
rank of any network takes the place of the singular values, and the orthogonality is relative to the mean norm of the slices.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.bayes.guards import check_count, check_number, check_whole_number
from tenfold.bayes.reduction import Reduction
from tenfold.bayes.run import Run
from tenfold.bayes.scaled_method import ScaledMethod
from tenfold.bayes.surgery import factor_parameter

SMOOTHING = 0.85
ORTHOGONALITY = 0.1


class GlobalBudget(ScaledMethod):
    """Slices that stay by their importance among all; `step()` reads the gradients of the last backward pass: zero them after it.

    Args:
        slices: how many slices shall be left, over all ranks of all layers that can be scored.
        schedule: (first, last) step of the decisions; the number falls by a cubic law between them.
        interval: steps between two decisions.
        orthogonality: weight of the penalty that keeps the slices of a rank of two factors apart.

    Raises:
        ValueError: as for `attach`, a setting is out of its range, or there are fewer slices that can be scored than are to be left.
        TypeError: a setting is no number.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        slices: int,
        schedule: tuple[int, int],
        interval: int = 10,
        orthogonality: float = ORTHOGONALITY,
    ) -> None:
        check_count("GlobalBudget", "interval", interval, 10)
        check_whole_number("GlobalBudget", "slices", slices, 64)
        check_number("GlobalBudget", "orthogonality", orthogonality, ORTHOGONALITY)
        if not 0 <= orthogonality < math.inf:
            raise ValueError(
                f"GlobalBudget got orthogonality={orthogonality}; it is the weight of a penalty, 0 or a finite number above it: give "
                f"one like {ORTHOGONALITY}"
            )
        if not isinstance(schedule, Sequence) or isinstance(schedule, str) or len(schedule) != 2:  # pyright: ignore
            raise TypeError(f"GlobalBudget got schedule={schedule!r}; it is (first, last) in steps: give one like (500, 3000)")
        for name, step in zip(("first", "last"), schedule, strict=True):
            check_number("GlobalBudget", f"the {name} step of the schedule", step, 500)
        self.run = Run(model, layers)
        self.n_start = sum(
            size
            for weight in self.run.weights.values()
            for rank, size in weight.network.ranks.items()
            if factor_parameter(weight, weight.network.carriers(rank)[0][0]).requires_grad
        )
        if not 1 <= slices <= self.n_start or not 0 <= schedule[0] < schedule[1]:
            raise ValueError(
                f"GlobalBudget got slices={slices} and schedule={schedule}; it needs 1 to {self.n_start} slices, which is what can "
                "be scored, and 0 <= first < last step: give for instance "
                f"slices={max(1, self.n_start // 2)}, schedule=(500, 3000)"
            )
        self.slices, self.schedule, self.interval, self.orthogonality = int(slices), schedule, int(interval), orthogonality
        self.settings = f"GlobalBudget({slices}, {schedule}, {interval}, {orthogonality})"
        self.means: dict[str, dict[str, Tensor]] = {}
        self.spreads: dict[str, dict[str, Tensor]] = {}
        self.places: dict[str, dict[str, Tensor]] = {}
        self.has_gradients = False  # since the start: at a step at least
        self.saved: dict[str, dict[str, Tensor]] = {}  # sensitivities that a loaded state brings, whose gradients it does not hold
        self._insert()
        self._forget(self.run.weights)

    def _forget(self, names: Any) -> None:
        for name in names:
            ranks = self.run.weights[name].network.ranks
            self.means[name] = {rank: torch.zeros(size, dtype=torch.float64) for rank, size in ranks.items()}
            self.places[name] = {rank: torch.ones(size, dtype=torch.bool) for rank, size in ranks.items()}
            self.spreads[name] = {rank: torch.zeros(size, dtype=torch.float64) for rank, size in ranks.items()}

    def budget(self) -> int:
        """The number of slices that may be left at this step."""
        first, last = self.schedule
        left = min(1.0, max(0.0, 1 - (self.run.steps - first) / (last - first)))
        return round(self.slices + (self.n_start - self.slices) * left**3)

    def penalty(self) -> Tensor:
        """The soft orthogonality."""
        total = torch.zeros((), dtype=torch.float64)
        for weight in self.run.live.values():
            for rank, size in weight.network.ranks.items():
                carriers = weight.network.carriers(rank)
                if len(carriers) != 2 or size == 1:
                    continue
                for number, axis in carriers:
                    matrix = factor_parameter(weight, number).movedim(axis, 0).flatten(1)
                    gram = matrix @ matrix.mT
                    gram = gram / gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
                    total = total.to(gram.device) + (gram - torch.eye(size, dtype=gram.dtype, device=gram.device)).square().sum(
                        dtype=torch.float64
                    )
        return self.orthogonality * total

    def marks(self, name: str) -> Mapping[str, Tensor]:
        """Slices that had a place at the last decision."""
        return dict(self.places[name])

    def importance(self, name: str) -> dict[str, Tensor]:
        """By rank, the smoothed importance of every slice times its fluctuation."""
        return {rank: mean * self.spreads[name][rank] for rank, mean in self.means[name].items()}

    def _update(self) -> None:
        sensitivities, self.saved = self.saved or self._sensitivities(), {}
        found = [now for ranks in sensitivities.values() for now in ranks.values()]
        self.has_gradients = self.has_gradients or any(bool(now.any()) for now in found)
        if all(bool(now.isfinite().all()) for now in found):  # else a step that a gradient scaler has skipped: means would never recover
            self._smooth(sensitivities)
        first, last = self.schedule
        if not self.has_gradients and self.run.steps >= max(2, first):  # before the first step there was no backward pass
            raise RuntimeError(
                f"GlobalBudget has found no gradient in {self.run.steps} steps; step() reads those of the last backward pass: call it "
                "before optimizer.zero_grad(), and not after it"
            )
        if self.run.steps >= first and (self.run.steps % self.interval == 0 or self.run.steps >= last):
            self._cut()

    def _smooth(self, sensitivities: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes the sensitivities of a step into the running means."""
        for name, ranks in sensitivities.items():
            for rank, now in ranks.items():
                mean = SMOOTHING * self.means[name][rank] + (1 - SMOOTHING) * now
                spread = SMOOTHING * self.spreads[name][rank] + (1 - SMOOTHING) * (now - mean).abs()
                self.means[name][rank], self.spreads[name][rank] = mean, spread

    def _cut(self) -> None:
        """Zeroes the scales of all slices but the most important ones of all layers."""
        scores = {
            (name, rank): score
            for name in self.run.live
            for rank, score in self.importance(name).items()
            if self.factors[name].scales[rank].requires_grad
        }
        if not scores:
            return
        everything = torch.cat(list(scores.values()))
        n_left = min(self.budget(), len(everything))
        if n_left == len(everything) or not bool(everything.any()):
            return
        chosen = torch.zeros(len(everything), dtype=torch.bool)
        chosen[everything.topk(n_left).indices] = True
        for (name, rank), keep in zip(scores, chosen.split([len(score) for score in scores.values()]), strict=True):
            scale = self.factors[name].scales[rank]
            scale.mul_(keep.to(scale))
            self.places[name][rank] = keep

    def _sensitivities(self) -> dict[str, dict[str, Tensor]]:
        return {name: self._sensitivity(name) for name in self.run.live}

    @torch.no_grad()
    def _sensitivity(self, name: str) -> dict[str, Tensor]:
        """By rank and slice: |scale x gradient| plus the mean |value x gradient| of the entries; empty before the first backward."""
        container, found = self.factors[name], {}
        for rank in container.network.ranks:
            scale = container.scales[rank]
            if scale.grad is None:
                continue
            total = (scale * scale.grad).abs().double().cpu()
            for number, axis in container.network.carriers(rank):
                factor = container.parameters_alone[number]
                if factor.grad is not None:
                    total = total + (factor * factor.grad).abs().movedim(axis, 0).flatten(1).mean(1).double().cpu()
            found[rank] = total
        return found

    def _follow(self, name: str, reduction: Reduction) -> None:
        super()._follow(name, reduction)
        self._forget([name])
        self.saved.pop(name, None)

    def _extra_state(self) -> dict[str, Any]:
        return {
            **super()._extra_state(),
            "means": _copies(self.means),
            "spreads": _copies(self.spreads),
            "places": _copies(self.places),
            "has_gradients": self.has_gradients,
            "sensitivities": _copies(self.saved or self._sensitivities()),
        }

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        super()._load_extra(state)
        self.has_gradients = state.get("has_gradients", True)  # older states do not say
        self.means, self.spreads, self.places, self.saved = (
            _copies(state.get(key, {})) for key in ("means", "spreads", "places", "sensitivities")
        )


def _copies(values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {name: {rank: value.clone() for rank, value in ranks.items()} for name, ranks in values.items()}
