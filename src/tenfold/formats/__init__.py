"""Weight formats, one file each. A format is found by being here: `all_formats` imports every file of this folder."""

import dataclasses
import functools
import importlib
import pkgutil
import typing
from typing import Any

from tenfold.format import Format
from tenfold.formats.bt import BT as BT
from tenfold.formats.cp import CP as CP
from tenfold.formats.fctn import FCTN as FCTN
from tenfold.formats.ht import HT as HT
from tenfold.formats.kcp import KCP as KCP
from tenfold.formats.kt import KT as KT
from tenfold.formats.lmtn import LMTN as LMTN
from tenfold.formats.loha import LoHa as LoHa
from tenfold.formats.lokr import LoKr as LoKr
from tenfold.formats.monarch import Monarch as Monarch
from tenfold.formats.str_ import STR as STR
from tenfold.formats.stt import STT as STT
from tenfold.formats.sttu import STTu as STTu
from tenfold.formats.svd import SVD as SVD
from tenfold.formats.tkd import TKD as TKD
from tenfold.formats.tr import TR as TR
from tenfold.formats.trm import TRM as TRM
from tenfold.formats.tt import TT as TT
from tenfold.formats.ttm import TTM as TTM
from tenfold.formats.tucker import Tucker as Tucker


def all_formats() -> dict[str, type[Format]]:
    """Every format of this folder by its lower-case name."""
    return dict(_formats_in(tuple(__path__)))


@functools.cache
def _formats_in(folders: tuple[str, ...]) -> dict[str, type[Format]]:
    """The formats of folders, which are read once: a plan asks for every layer, and reading takes a millisecond."""
    found: dict[str, type[Format]] = {}
    for info in pkgutil.iter_modules(folders):
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
    ``ttm:rank=4,in=8x8,out=4x16``, ``kt:rank=4x4,groups=2x1+1x2``, ``ht:rank=4,tree=(1 2) 3``, ``mypackage.ring.Ring:rank=4``.

    Raises:
        ValueError: an unknown format or field, or a value that cannot be read.
    """
    name, _, rest = text.strip().partition(":")
    kind = _format_class(name.strip())
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    modes: dict[str, tuple[int, ...]] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        key, equals, value = map(str.strip, part.partition("="))
        if not equals or key not in {*types, "in", "out"}:
            known = ", ".join(f"{field}=.." for field in (*sorted(types), "in", "out"))
            raise ValueError(f"{text!r} has {part!r}; {name} takes {known}: write for instance {name}:rank=8")
        if key in ("in", "out"):
            parsed = _value(text, value)
            modes[f"{key}_modes"] = parsed if isinstance(parsed, tuple) else (parsed,)
        else:
            values[key] = _value(text, value, types[key])
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


def _value(text: str, value: str, kind: Any = None) -> Any:
    if value in ("true", "false"):
        return value == "true"
    if str in (typing.get_args(kind) or (kind,)):
        return value
    if "+" in value and typing.get_origin(kind) is tuple:
        groups = [_value(text, part) for part in value.removesuffix("+").split("+")]
        return tuple(group if isinstance(group, tuple) else (group,) for group in groups)
    try:
        if "x" in value:
            return tuple(int(part) for part in value.removesuffix("x").split("x"))
        return float(value) if set(value) & set(".e") else int(value)
    except ValueError:
        raise ValueError(
            f"{text!r} has the value {value!r}; it needs a whole number, a fraction, sizes as 4x6, groups as 2x1+1x2, true or false"
        ) from None


def _text(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return "+".join(map(_text, value)) + ("+" if len(value) == 1 else "")
    if isinstance(value, tuple):
        return "x".join(map(str, value)) + ("x" if len(value) == 1 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)
