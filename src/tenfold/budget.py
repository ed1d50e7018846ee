"""Budget: how much of a model is to be kept."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Budget:
    """Fractions of the whole model that are KEPT, above 0 and at most 1; several together all hold.

    params: stored values. flops: floating-point operations for one sample. bytes: size of all parameters in their dtypes.

    >>> Budget.parse("flops=0.5,params=0.25")
    Budget(params=0.25, flops=0.5, bytes=None)
    """

    params: float | None = None
    flops: float | None = None
    bytes: float | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            raise ValueError("the budget is empty; at least one of params, flops and bytes is needed, e.g. Budget(flops=0.5)")
        for name, value in self.limits.items():
            if not (isinstance(value, float | int) and 0 < value <= 1):
                raise ValueError(f"the budget has {name}={value!r}; it needs a fraction to keep, above 0 and at most 1, e.g. {name}=0.5")

    @property
    def limits(self) -> dict[str, float]:
        """The fractions given, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """A budget from ``"flops=0.5"``, ``"flops=0.5,params=0.3"`` or a bare fraction of parameters, ``"0.25"``."""
        values: dict[str, float] = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            name, value = (name.strip(), value) if equals else ("params", name)
            try:
                values[name] = float(value)
            except ValueError:
                values[name] = math.nan
            if name not in {f.name for f in fields(cls)} or math.isnan(values[name]):
                names = ", ".join(f.name for f in fields(cls))
                raise ValueError(f"{part!r} is no budget; it needs NAME=FRACTION with one of {names}: write for instance flops=0.5")
        return cls(**values)

    def __str__(self) -> str:
        return ",".join(f"{name}={float(value)!r}" for name, value in self.limits.items())


def as_budget(budget: "Budget | float | dict[str, float] | str") -> Budget:
    """The budget that a bare fraction (of parameters), a mapping or a text stands for."""
    if isinstance(budget, Budget):
        return budget
    if isinstance(budget, str):
        return Budget.parse(budget)
    if isinstance(budget, dict):
        if unknown := set(budget) - {field.name for field in fields(Budget)}:
            raise ValueError(f"the budget has {', '.join(map(repr, unknown))}; it knows params, flops and bytes: correct the name")
        return Budget(**budget)
    return Budget(params=budget)
