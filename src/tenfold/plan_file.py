"""A plan as text that a person can edit: TOML, one line for each layer."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tenfold.budget import Budget
from tenfold.formats import parse_format
from tenfold.plan_data import LayerPlan, Plan, use_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

VERSION = 1
_HEAD = """\
# A tenfold plan. One line for each layer: change what stands behind `use`, then give the file to `tenfold compress --plan`.
# use = "dense", or a format with its ranks: "cp:rank=12", "tucker:rank=8x12", "ttm:rank=4,in=8x8,out=4x16".
# Everything else on a line says how the plan came about; it is not read when the plan is carried out.
"""


def to_text(plan: Plan) -> str:
    """The text of a plan; `parse` reads it back."""
    head = {
        "version": VERSION,
        "model": plan.model,
        "budget": str(plan.budget) if plan.budget else "",
        "metric": plan.metric,
        "seed": plan.seed,
        "params": [plan.params_before, plan.params_after],
    }
    if plan.flops_before is not None:
        head["flops"] = [plan.flops_before, plan.flops_after]
    lines = [_HEAD, *(f"{key} = {_toml(value)}" for key, value in head.items()), "", "[layers]"]
    width = max((len(_toml(layer.name)) for layer in plan.layers), default=0)
    lines += [f"{_toml(layer.name):<{width}} = {_line(layer)}" for layer in plan.layers]
    return "\n".join(lines) + "\n"


def parse(text: str, source: str = "plan") -> Plan:
    """The plan of a text.

    Raises:
        ValueError: the text is no plan; the message names the line.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = str(error).replace("at end of document", f"at line {text.rstrip().count(chr(10)) + 1}, its end")
        raise ValueError(f"{source} is not readable as TOML: {problem}; mend that line") from error
    rows = data.pop("layers", None)
    if data.get("version") != VERSION or not isinstance(rows, dict):
        raise ValueError(
            f"{source} has version {data.get('version')!r} and {'no' if rows is None else 'a'} [layers] part; "
            f"a plan needs version = {VERSION} and [layers]: write it with Plan.save"
        )
    for key, value in data.items():
        if problem := _problem(key, value, _HEAD_FIELDS):
            raise ValueError(f"{source}, line {_line_of(text, key, '')}: {problem}")
    layers = []
    for name, value in rows.items():
        try:
            layers.append(_layer(name, {"use": value} if isinstance(value, str) else value))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}, line {_line_of(text, name, 'layers')}, layer {name!r}: {error}") from error
    params, flops = data.get("params", [0, 0]), data.get("flops", [None, None])
    said, layers = layers, [_without_factors(one) if one.format is None else one for one in layers]
    params[1] += sum(one.params_after - old.params_after for one, old in zip(layers, said, strict=True))
    if flops[1] is not None:
        flops[1] += sum((one.flops_after or 0) - (old.flops_after or 0) for one, old in zip(layers, said, strict=True))
    return Plan(
        layers=tuple(layers),
        model=data.get("model", ""),
        budget=Budget.parse(data["budget"]) if data.get("budget") else None,
        params_before=params[0],
        params_after=params[1],
        flops_before=flops[0],
        flops_after=flops[1],
        metric=data.get("metric", "weight"),
        seed=data.get("seed", 0),
    )


def _is_budget(value: Any) -> bool:
    try:
        return isinstance(value, str) and (not value or bool(Budget.parse(value)))
    except ValueError:
        return False


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


_NAME = ("a text", lambda value: isinstance(value, str))
_PAIR = ("two whole numbers, as [20, 10]", lambda value: _is_sizes(value) and len(value) == 2)
_NUMBER = ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
_HEAD_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "version": _NUMBER,
    "model": _NAME,
    "budget": ('a text such as "flops=0.5", or ""', _is_budget),
    "metric": ('"weight" or "output"', lambda value: value in ("weight", "output")),
    "seed": ("a whole number", lambda value: type(value) is int),
    "params": _PAIR,
    "flops": _PAIR,
}
_LAYER_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "use": ('a text such as "cp:rank=8", or "dense"', lambda value: isinstance(value, str)),
    "kind": _NAME,
    "shape": ("whole numbers, as [16, 3, 3, 3]", _is_sizes),
    "params": _PAIR,
    "flops": _PAIR,
    "error": _NUMBER,
    "metric": ('"weight", or nothing', lambda value: value == "weight"),
    "predicted_speedup": _NUMBER,
    "measured_speedup": _NUMBER,
    "note": _NAME,
}


def _problem(key: str, value: Any, known: dict[str, tuple[str, Callable[[Any], bool]]]) -> str:
    """What is wrong with a field, "" where nothing is."""
    if key not in known:
        return f"{key!r} is unknown; known are {', '.join(known)}: correct or remove it"
    needed, is_right = known[key]
    return "" if is_right(value) else f"{key} is {value!r}; it needs {needed}: correct it"


def _layer(name: str, value: Any) -> LayerPlan:
    if not isinstance(value, dict) or "use" not in value:
        raise ValueError(
            f'{value!r} is no entry; a text or a table with `use` is needed: write "cp:rank=8", "dense" or {{ use = "cp:rank=8" }}, '
            "and put a name with dots in quotes"
        )
    if problems := [problem for key, one in value.items() if (problem := _problem(key, one, _LAYER_FIELDS))]:
        raise ValueError(problems[0])
    format, modes = (None, {}) if value["use"] == "dense" else parse_format(value["use"])
    if format is not None and format.rank is None:
        raise ValueError(f"{value['use']!r} has no rank; a plan needs one: write for instance {value['use'].partition(':')[0]}:rank=8")
    params, flops = value.get("params", [0, 0]), value.get("flops", [None, None])
    return LayerPlan(
        name=name,
        kind=value.get("kind", ""),
        shape=tuple(value.get("shape", ())),
        format=format,
        in_modes=modes.get("in_modes"),
        out_modes=modes.get("out_modes"),
        reason=value.get("note", ""),
        params_before=params[0],
        params_after=params[1],
        flops_before=flops[0],
        flops_after=flops[1],
        error=value.get("error"),
        predicted_speedup=value.get("predicted_speedup"),
        measured_speedup=value.get("measured_speedup"),
        metric=value.get("metric", ""),
    )


def _without_factors(layer: LayerPlan) -> LayerPlan:
    """The row of a dense layer without what the plan predicted of factors, which may be left of a line that a person edited."""
    return replace(
        layer,
        reason=layer.reason or "set to dense in the plan",
        params_after=layer.params_before,
        flops_after=layer.flops_before,
        error=None,
        predicted_speedup=None,
        measured_speedup=None,
        metric="",
    )


def _line(layer: LayerPlan) -> str:
    params = [layer.params_before, layer.params_after]
    values: dict[str, Any] = {"use": use_text(layer), "kind": layer.kind, "shape": list(layer.shape), "params": params}
    if layer.flops_before is not None:
        values["flops"] = [layer.flops_before, layer.flops_after]
    if layer.error is not None:
        values["error"] = float(f"{layer.error:.4g}")
    if layer.metric:
        values["metric"] = layer.metric
    for name in ("predicted_speedup", "measured_speedup"):
        if (speedup := getattr(layer, name)) is not None:
            values[name] = float(f"{speedup:.3g}")
    if layer.reason:
        values["note"] = layer.reason
    return "{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in values.items()) + " }"


def _toml(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m.group()):04x}", escaped) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _line_of(text: str, name: str, table: str) -> int | str:
    """The line at which a key of a table ("" is the top) stands."""
    inside = not table
    for number, line in enumerate(text.split("\n"), 1):
        try:
            found = tomllib.loads(line.rstrip("\r"))
        except tomllib.TOMLDecodeError:
            continue  # part of a value that goes over several lines
        if line.lstrip().startswith("["):
            inside = table in found if table else False
            found = found.get(table, {})
        if inside and name in found:
            return number
    return "?"
