"""JSON that every program reads: JSON has no word for numbers that are not finite, where Python writes NaN and Infinity."""

import json
import math
from typing import Any


def json_text(value: Any, indent: int = 2) -> str:
    r"""The text of JSON values, with a line's end; null stands for numbers that are not finite.

    >>> json_text({"auc": math.nan}, 1)
    '{\n "auc": null\n}\n'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
