"""Budget: how much of a model is to be kept, or how much accuracy may be lost."""

import math
from dataclasses import dataclass
from typing import Any

COSTS = ("params", "flops", "bytes")


@dataclass(frozen=True)
class Budget:
    """Fractions of the whole model that are KEPT, above 0 and at most 1; several together all hold. Or a loss of accuracy that is allowed.

    params: stored values. flops: floating-point operations for one sample. bytes: size of all parameters in their dtypes.
    accuracy_drop: points of top-1 accuracy, on validation data, that may be lost; `smallest` is then what is made as small as it can be
    ("flops", "params" or "bytes"), and the fractions are upper limits. Only `tenfold.search` can find that out.

    >>> Budget.parse("flops=0.5,params=0.25")
    Budget(params=0.25, flops=0.5)
    >>> Budget.parse("accuracy_drop=0.5")
    Budget(accuracy_drop=0.5, smallest='flops')

    Raises:
        ValueError: nothing is given, a value is out of its range, or `smallest` is given without `accuracy_drop`.
    """

    params: float | None = None
    flops: float | None = None
    bytes: float | None = None
    accuracy_drop: float | None = None
    smallest: str = "flops"

    def __post_init__(self) -> None:
        if not self.limits and self.accuracy_drop is None:
            raise ValueError(
                "the budget is empty; at least one of params, flops and bytes is needed, or accuracy_drop: give for instance "
                "Budget(flops=0.5)"
            )
        for name, value in self.limits.items():
            if not (_is_number(value) and 0 < value <= 1):
                raise ValueError(f"the budget has {name}={value!r}; it needs a fraction to keep, above 0 and at most 1, e.g. {name}=0.5")
        drop = self.accuracy_drop
        if drop is not None and not (_is_number(drop) and 0 <= drop < 100):
            raise ValueError(
                f"the budget has accuracy_drop={drop!r}; it needs points of top-1 accuracy, at least 0 and below 100, "
                "e.g. accuracy_drop=0.5"
            )
        if self.smallest not in COSTS:
            raise ValueError(f"the budget has smallest={self.smallest!r}; {', '.join(COSTS)} can be made small: give one of them")
        if drop is None and self.smallest != "flops":
            raise ValueError(
                f"the budget has smallest={self.smallest!r} without accuracy_drop; it says what is searched for a loss of accuracy: "
                f"give accuracy_drop= too, or {self.smallest}= alone"
            )

    @property
    def limits(self) -> dict[str, float]:
        """The fractions given, by name."""
        return {name: getattr(self, name) for name in COSTS if getattr(self, name) is not None}

    @property
    def counts_flops(self) -> bool:
        """Whether FLOP have to be known, which needs an example input."""
        return self.flops is not None or (self.accuracy_drop is not None and self.smallest == "flops")

    @property
    def parts(self) -> dict[str, Any]:
        """All that was given, by name."""
        drop = {} if self.accuracy_drop is None else {"accuracy_drop": self.accuracy_drop, "smallest": self.smallest}
        return {**self.limits, **drop}

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """A budget from ``"flops=0.5"``, ``"flops=0.5,params=0.3"``, ``"accuracy_drop=0.5"`` or, of parameters, a bare ``"0.25"``.

        Raises:
            ValueError: a part is not NAME=NUMBER with a name of the budget, or its number is out of its range.
        """
        values: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            name, value = (name.strip(), value.strip()) if equals else ("params", name)
            if name == "smallest":
                values[name] = value
                continue
            try:
                values[name] = float(value)
            except ValueError:
                values[name] = math.nan
            if name not in (*COSTS, "accuracy_drop") or math.isnan(values[name]):
                names = ", ".join(COSTS)
                raise ValueError(
                    f"{part!r} is no budget; it needs NAME=FRACTION with one of {names}: write for instance flops=0.5, or "
                    "accuracy_drop=0.5 for points of accuracy"
                )
        return cls(**values)

    def __str__(self) -> str:
        return ",".join(f"{name}={value if name == 'smallest' else repr(float(value))}" for name, value in self.parts.items())

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'{name}={value!r}' for name, value in self.parts.items())})"


def as_budget(budget: "Budget | float | dict[str, Any] | str") -> Budget:
    """The budget that a bare fraction (of parameters), a mapping or a text stands for."""
    if isinstance(budget, Budget):
        return budget
    if isinstance(budget, str):
        return Budget.parse(budget)
    if isinstance(budget, dict):
        if unknown := set(budget) - {*COSTS, "accuracy_drop", "smallest"}:
            raise ValueError(
                f"the budget has {', '.join(map(repr, unknown))}; it knows params, flops and bytes, accuracy_drop and smallest: "
                "correct the name"
            )
        return Budget(**budget)
    return Budget(params=budget)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)
