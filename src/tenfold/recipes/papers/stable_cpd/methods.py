"""The methods that are compared, and how each makes a smaller network for a budget of FLOP."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

import tenfold
from tenfold.calibrate import reestimate_norms
from tenfold.formats import CP, SVD, TKD, Tucker
from tenfold.plan import Plan, offers_for
from tenfold.progress import silent
from tenfold.ranks.latency import timed_plan
from tenfold.ranks.offers import Offers
from tenfold.recipes.papers.stable_cpd.networks import Case
from tenfold.recipes.papers.stable_cpd.plain import PlainCP
from tenfold.selection import Formats

Metric = Literal["weight", "output"]
METRICS: tuple[Metric, ...] = ("weight", "output")


@dataclass(frozen=True)
class Method:
    """A method of the tables.

    planned: the format that ranks are chosen for; methods with the same one get the same ranks.
    solved: the format that a row of the plan gets, from the one that was planned.
    """

    name: str
    planned: Formats
    solved: Callable[[Any], Any] = lambda format: format


METHODS = (
    Method("CP", CP(), lambda format: PlainCP(rank=format.rank)),
    Method("CP-EPC", CP(), lambda format: dataclasses.replace(format, stable=True)),
    Method("TKD-CPD-EPC", TKD()),
    Method("Tucker-2", Tucker()),
    Method("SVD", SVD()),
    Method("auto", "auto"),
)


@dataclass
class Compressor:
    """Smaller networks for one case. What ranks are chosen from is computed once for all budgets, and for all methods that share them.

    Only convolutions change: linear layers stay dense, as in the paper.
    """

    case: Case
    offers: dict[tuple[str, Metric], Offers] = dataclasses.field(default_factory=dict)

    def plan(self, method: Method, budget: float, metric: Metric) -> Plan:
        """The plan of a method, with the formats that its layers get.

        Raises:
            ValueError: the budget cannot be met.
        """
        key: tuple[str, Metric] = (str(method.planned), metric)
        goal, inputs = tenfold.Budget(flops=budget), self.case.train[0]
        if key not in self.offers:
            calibration = inputs if metric == "output" else None
            self.offers[key] = offers_for(
                self.case.model, method.planned, goal=goal, inputs=inputs[:1], calibration=calibration, filter=nn.Conv2d
            )
        _, plan = timed_plan(self.offers[key], goal, "ignored", None, silent)
        rows = tuple(row if row.format is None else dataclasses.replace(row, format=method.solved(row.format)) for row in plan.layers)
        return dataclasses.replace(plan, layers=rows)

    def small(self, plan: Plan, metric: Metric) -> nn.Module:
        """The network of a plan, with BatchNorm estimated anew."""
        inputs = self.case.train[0]
        if metric == "output":
            return tenfold.compress(self.case.model, plan, calibration=inputs)
        small = tenfold.compress(self.case.model, plan)
        reestimate_norms(small, inputs, reference=self.case.model)
        return small
