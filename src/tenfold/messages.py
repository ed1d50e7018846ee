"""Parts of our own messages: what an error of somebody else's code says, and what kind of thing was given for an argument."""

import re
from types import UnionType
from typing import Any

MODULE = "a torch.nn.Module is needed: give the network, not its weights, file or class"
PLAN = "a Plan is needed: make one with tenfold.plan, or read its file with tenfold.Plan.load"
LOSS = "a function loss(output, targets) is needed: give for instance torch.nn.functional.mse_loss"
NUMBER = "a number is needed: convert it with float"
WHOLE = "a whole number is needed: convert it with int"
PATH = "a path is needed: give the name of a file, or a pathlib.Path"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an error on one line, without a terminal's colours, cut at `limit` characters."""
    text = " ".join(_COLOUR.sub("", str(error)).split())
    return text if len(text) <= limit else text[:limit] + " ..."


def check_kind(name: str, value: Any, kind: type | UnionType, needed: str) -> None:
    """Raises TypeError where the argument `name` is of another kind; `needed` says what is needed and what to do."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {given}; {needed}")
