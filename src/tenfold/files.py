"""Files: writing that leaves the old file or the whole new one, never half of it; and safetensors, written and read with care."""

import contextlib
import json
import os
import secrets
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tenfold.messages import PATH, check_kind

HEADER_LIMIT = 100_000_000  # bytes of JSON; safetensors' own limit
READABLE = "a file that you may read is needed: check the path"
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@contextlib.contextmanager
def said_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """A context for what is made of a file's contents and checks them: its ValueErrors begin with the name of the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"in {path} {error}") from error


# -- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name in the folder of `path`, with its suffix, for the block to write to; afterwards it takes the place of `path`.

    Where the block or the replacement fails, the temporary file is removed and `path` is as it was. A link is followed.

    Raises:
        OSError: the folder is missing, read-only or full, or `path` is something else than a regular file (the subclass says which).
        TypeError: `path` is none.
    """
    check_kind("path", path, str | os.PathLike, PATH)
    target = Path(os.path.realpath(path))
    _check_target(Path(path), target)
    temporary = target.parent / f".tenfold-{secrets.token_hex(6)}{target.suffix}"
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise _cannot("write", path, error, "a writable folder with enough room is needed: choose another path, or make room") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """Writes the parts one after another, all or nothing (see `replacing`)."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        for part in parts:
            file.write(part)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8, all or nothing (see `replacing`); bytes of paths that are no UTF-8 are written as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, all or nothing; the same tensors and metadata always give the same bytes.

    Raises:
        TypeError: a tensor has a dtype that safetensors does not know.
        ValueError: names, shapes and metadata need more than HEADER_LIMIT bytes.
        OSError: see `replacing`.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    parts: list[memoryview] = []
    start = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):  # wide values first: all aligned
        if (dtype := _NAMES.get(tensor.dtype)) is None:
            known = ", ".join(str(one).removeprefix("torch.") for one in _NAMES)
            raise TypeError(f"{name} has the dtype {tensor.dtype}; a file holds {known}: convert it")
        values = tensor.detach().to("cpu").reshape(-1).contiguous().view(torch.uint8).numpy()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, start + values.nbytes]}
        start += values.nbytes
        parts.append(values.data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"the header of {path} would have {len(text):,} bytes; {HEADER_LIMIT:,} are readable: save it in parts")
    write_bytes(path, struct.pack("<Q", len(text)), text, *parts)


def _check_target(path: Path, target: Path) -> None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            problem = FileNotFoundError(2, f"the folder {target.parent} does not exist")
            raise _cannot("write", path, problem, "an existing folder is needed: create it, or choose another path") from None
        return
    except OSError as error:
        raise _cannot("write", path, error, "a file in a folder that you may use is needed: choose another path") from error
    if not stat.S_ISREG(mode):
        what = IsADirectoryError(21, "it is a folder") if stat.S_ISDIR(mode) else FileExistsError(17, "it is a device, pipe or socket")
        raise _cannot("write", path, what, "the name of a file is needed: choose another path, such as one within it")


def _cannot(verb: str, path: str | os.PathLike[str], error: OSError, advice: str) -> OSError:
    """The same kind of error with a message that names the file, the problem and the way out."""
    return OSError(error.errno or 5, f"cannot {verb} {os.fspath(path)}: {error.strerror or error}; {advice}")


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What the header of a safetensors file says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file, checked against the size of the file."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, Entry]


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is not UTF-8.
    """
    check_kind("path", path, str | os.PathLike, PATH)
    try:
        return Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise _cannot("read", path, error, READABLE) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); a text in UTF-8 is needed: save it so") from error


def read_header(path: str | os.PathLike[str]) -> Header:
    """Names, dtypes and shapes of the tensors in a safetensors file, and its metadata. No tensor is read, nothing is executed.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is no whole safetensors file.
    """
    path = _whole(path)
    with _damage(path), safe_open(path, "pt") as file:
        tensors = {}
        for name in sorted(file.keys()):
            part = file.get_slice(name)
            if (dtype := DTYPES.get(part.get_dtype())) is None:
                raise ValueError(f"{path} holds {name!r} with the dtype {part.get_dtype()}; {', '.join(DTYPES)} are known: convert it")
            tensors[name] = Entry(dtype, tuple(part.get_shape()))
        return Header(path, dict(file.metadata() or {}), tensors)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file on the CPU, in memory of their own: the file may be replaced afterwards.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is no whole safetensors file.
    """
    path = _whole(path)
    with _damage(path), safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}


def _whole(path: str | os.PathLike[str]) -> Path:
    """The path of a file as long as it says itself, which safetensors would report without numbers, or not at all."""
    check_kind("path", path, str | os.PathLike, PATH)
    path = Path(path)
    try:
        if not path.is_file():
            problem = IsADirectoryError(21, "it is a folder") if path.is_dir() else FileNotFoundError(2, "there is no such file")
            raise _cannot("read", path, problem, READABLE)
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
    except PermissionError as error:
        raise _cannot("read", path, error, READABLE) from error
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, HEADER_LIMIT):
        promised = f"promises a header of {length:,} bytes" if len(start) == 8 else "ends before its header"
        raise ValueError(
            f"{path} {promised} and has {size:,} bytes in all; a header must fit the file and {HEADER_LIMIT:,} bytes: "
            "the file is truncated or no safetensors file, so copy or save it again"
        )
    return path


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, UnicodeDecodeError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error while deserializing header: ")
        raise ValueError(
            f"{path} is not a whole safetensors file: {reason[:300]}; an undamaged file is needed: copy or save it again"
        ) from error
