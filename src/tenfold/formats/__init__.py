"""Weight formats, one file each. A format is found by being here: `all_formats` imports every file of this folder."""

import dataclasses
import importlib
import pkgutil
from typing import Any

from tenfold.format import Format
from tenfold.formats.cp import CP as CP
from tenfold.formats.svd import SVD as SVD
from tenfold.formats.tt import TT as TT
from tenfold.formats.ttm import TTM as TTM
from tenfold.formats.tucker import Tucker as Tucker


def all_formats() -> dict[str, type[Format]]:
    """Every format of this folder by its lower-case name."""
    found: dict[str, type[Format]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found |= {
            name.lower(): value
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, Format) and value.__module__ == module.__name__
        }
    return found


def parse_format(text: str) -> tuple[Format, dict[str, tuple[int, ...]]]:
    """A format, and the modes that are given with it, from its text as in files and on the command line.

    The text is a name of this folder or a dotted path to a class, then fields: ``tt:rank=8``, ``tucker:rank=4x6,all_modes=true``,
    ``ttm:rank=4,in=8x8,out=4x16``, ``mypackage.ring.Ring:rank=4``.

    Raises:
        ValueError: an unknown format or field, or a value that cannot be read.
    """
    name, _, rest = text.strip().partition(":")
    kind = _format_class(name.strip())
    names = {field.name for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    modes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        key, equals, value = map(str.strip, part.partition("="))
        if not equals or key not in {*names, "in", "out"}:
            known = ", ".join(f"{field}=.." for field in (*sorted(names), "in", "out"))
            raise ValueError(f"{text!r} has {part!r}; {name} takes {known}: write for instance {name}:rank=8")
        if key in ("in", "out"):
            parsed = _value(text, value)
            modes[f"{key}_modes"] = parsed if isinstance(parsed, tuple) else (parsed,)
        else:
            values[key] = _value(text, value)
    return kind(**values), modes


def format_text(format: Format, in_modes: tuple[int, ...] | None = None, out_modes: tuple[int, ...] | None = None) -> str:
    """The text that `parse_format` reads back.

    >>> format_text(TTM(rank=(4, 2)), (8, 8), (4, 16))
    'ttm:rank=4x2,in=8x8,out=4x16'
    """
    kind = type(format)
    name = kind.__name__.lower()
    if all_formats().get(name) is not kind:
        name = f"{kind.__module__}.{kind.__qualname__}"
    parts = []
    for field in dataclasses.fields(format):
        value = getattr(format, field.name)
        if value != field.default:
            parts.append(f"{field.name}={_text(value)}")
    parts += [f"{key}={_text(modes)}" for key, modes in (("in", in_modes), ("out", out_modes)) if modes is not None]
    return f"{name}:{','.join(parts)}" if parts else name


def _format_class(name: str) -> type[Format]:
    if (found := all_formats().get(name.lower())) is not None:
        return found
    module, _, attribute = name.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"the format {name!r} cannot be imported ({error}); a class that Python can import is needed: check it") from error
    if not (isinstance(value, type) and issubclass(value, Format)):
        known = ", ".join(sorted(all_formats()))
        raise ValueError(f"{name!r} is no format; known are {known}, or the dotted path of a Format class: choose one of them")
    return value


def _value(text: str, value: str) -> Any:
    if value in ("true", "false"):
        return value == "true"
    try:
        if "x" in value:
            return tuple(int(part) for part in value.removesuffix("x").split("x"))
        return float(value) if set(value) & set(".e") else int(value)
    except ValueError:
        raise ValueError(f"{text!r} has the value {value!r}; it needs a whole number, a fraction, sizes as 4x6, true or false") from None


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value)) + ("x" if len(value) == 1 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)
