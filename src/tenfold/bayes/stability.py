"""Stability: whether the ranks that a rule would decide have stopped changing. One decision may be an accident; several alike are not."""

from collections.abc import Mapping
from typing import Any

from tenfold.bayes.guards import check_whole_number
from tenfold.bayes.method import RankMethod
from tenfold.bayes.shrink import Rule

EVALUATIONS = 3


class Stability:
    """Evaluate it every so often, at the end of the decay of the learning rate; shrink when it says so.

    Args:
        rule: of the decision; left out, the method's own.
        evaluations: how many in a row have to agree.
        slack: ranks that differ by at most so much agree.

    Raises:
        ValueError: there are less than two evaluations, the slack is negative, or one is no whole number.
        TypeError: one is no number.
    """

    def __init__(self, method: RankMethod, rule: Rule | None = None, *, evaluations: int = EVALUATIONS, slack: int = 0) -> None:
        check_whole_number("Stability", "evaluations", evaluations, EVALUATIONS)
        check_whole_number("Stability", "slack", slack, 0)
        if evaluations < 2 or slack < 0:
            raise ValueError(
                f"Stability got evaluations={evaluations} and slack={slack}; at least 2 and 0 are needed: give for instance 3 and 0"
            )
        self.method, self.rule, self.evaluations, self.slack = method, rule, int(evaluations), int(slack)
        self.history: list[dict[str, dict[str, int]]] = []

    def evaluate(self) -> bool:
        """What the rule would decide now is added to the history, and nothing is changed; whether the last decisions agree."""
        decided = self.method.decide(self.rule)
        self.history.append({name: dict.fromkeys(one.sizes, 0) if one.is_removed else dict(one.sizes) for name, one in decided.items()})
        return self.is_stable

    @property
    def is_stable(self) -> bool:
        """Whether the last decisions agree; False where there are too few."""
        last = self.history[-self.evaluations :]
        if len(last) < self.evaluations or any(set(one) != set(last[0]) for one in last):
            return False
        spans = [[one[name][rank] for one in last] for name, ranks in last[0].items() for rank in ranks]
        return all(max(span) - min(span) <= self.slack for span in spans)

    def state_dict(self) -> dict[str, Any]:
        """The history, as plain values."""
        return {"history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved history back."""
        self.history = [{name: dict(ranks) for name, ranks in one.items()} for one in state["history"]]
