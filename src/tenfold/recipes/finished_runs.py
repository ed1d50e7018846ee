"""Finished runs in files, so that the same command goes on and repeats nothing."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tenfold.files import write_text
from tenfold.identity import value_bytes


def digest_of(*tensors: Tensor) -> str:
    """A short text that tells tensors apart by their values: what a key has of data that have no name of their own."""
    made = hashlib.sha256()
    for one in tensors:
        made.update(f"{one.dtype} ".encode() + value_bytes(one))
    return made.hexdigest()[:16]


def digest_of_files(*places: Path) -> str:
    """A short text that tells files apart by their bytes; of a folder by those of all files in it."""
    made = hashlib.sha256()
    for place in places:
        for file in sorted(one for one in place.rglob("*") if one.is_file()) if place.is_dir() else [place]:
            made.update(hashlib.sha256(file.read_bytes()).digest())
    return made.hexdigest()[:16]


def kept_place(folder: Path | None, recipe: str, name: str, key: Mapping[str, Any]) -> Path | None:
    """The file of a run: the recipe, a readable name, and a digest of all that its numbers depend on; None without a folder."""
    if folder is None:
        return None
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower())
    return folder / "runs" / f"{recipe}-{slug}-{digest}.json"


def read_kept(place: Path | None, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers of a finished run; None where there are none, or those of another key."""
    if place is None or not place.exists():
        return None
    try:
        kept = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return kept["found"] if isinstance(kept, dict) and kept.get("key") == key else None


def write_kept(place: Path | None, key: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Keeps the numbers of a run; nothing without a place."""
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps({"key": key, "found": found}, indent=2) + "\n")
