"""Writing is all or nothing; headers of safetensors files are checked before anything is read."""

import json
import os
import stat
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tenfold import files
from tenfold.files import DTYPES, Entry, read_header, read_tensors, replacing, write_bytes, write_safetensors, write_text


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- writing ----------------------------------------------------------------------------------------------------------


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "täglich\n")
    write_text(tmp_path / "a.txt", "neu\n")
    assert (tmp_path / "a.txt").read_bytes() == b"neu\n"
    assert only(tmp_path) == ["a.txt"]


def test_a_path_that_is_no_utf8_can_stand_in_a_text(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", f"tenfold compress --out {os.fsdecode(b'old' + bytes([255]))}")
    assert (tmp_path / "a.txt").read_text("utf-8").endswith(r"--out old\udcff")


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_bytes(tmp_path / "ours", b"1")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_link_is_followed(tmp_path: Path) -> None:
    write_bytes(tmp_path / "real", b"1")
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"2"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_bytes(tmp_path / "model.bin", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(files.os, "fsync", full)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"cannot write .*model\.bin: No space left on device; a writable folder .*: choose another path"):
        with replacing(tmp_path / "model.bin") as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".bin"
            temporary.write_bytes(b"half")
            if step == "write":
                full()
    monkeypatch.undo()
    assert (tmp_path / "model.bin").read_bytes() == b"old"
    assert only(tmp_path) == ["model.bin"]


def test_an_error_of_the_writer_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"), replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError("mine")
    assert only(tmp_path) == []


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot write .*: the folder .*none does not exist; .*: create it"):
        write_text(tmp_path / "none" / "a.txt", "")


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"cannot write .*a\.txt: Not a directory; .*: choose another path"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_path_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=r"it is a folder; the name of a file is needed: choose another path"):
        write_text(tmp_path, "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="it is a device, pipe or socket; the name of a file is needed"):
        write_text(tmp_path / "pipe", "")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits on file sizes and, as root, another user")
def test_full_and_read_only_folders(tmp_path: Path) -> None:
    """With real limits, in a process of its own: as root, permissions mean nothing, so it becomes another user."""
    script = """
    import os, pathlib, resource, sys, tempfile
    from tenfold.files import write_bytes
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            write_bytes(folder / "a", b"1" * 500, b"2" * 600)
        except OSError as error:
            print("full:", error, list(folder.iterdir()))
        folder.chmod(0o555)
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:
                os.setuid(65534)
            try:
                write_bytes(folder / "b", b"1")
            except PermissionError as error:
                print("read-only:", error, list(folder.iterdir()), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        folder.chmod(0o755)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=100, env=_environment()
    )
    assert result.returncode == 0, result.stderr
    full, read_only = result.stdout.splitlines()
    assert full.startswith("full: [Errno 27] cannot write") and full.endswith("choose another path, or make room []")
    assert read_only.startswith("read-only: [Errno 13] cannot write") and read_only.endswith("make room []")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# -- safetensors ------------------------------------------------------------------------------------------------------


def some_tensors() -> dict[str, torch.Tensor]:
    tensors = {f"t.{name}": torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in DTYPES.items()}
    return {**tensors, "scalar": torch.tensor(3), "empty": torch.empty(0, 3), "strided": torch.arange(12.0).reshape(3, 4).T}


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found.to(torch.complex64), wanted.to(torch.complex64), rtol=0, atol=0)


def test_every_dtype_comes_back(tmp_path: Path) -> None:
    tensors = some_tensors()
    write_safetensors(tmp_path / "a", tensors, {"key": "välue"})
    theirs, ours = load_file(tmp_path / "a"), read_tensors(tmp_path / "a")
    assert theirs.keys() == ours.keys() == tensors.keys()
    for name, tensor in tensors.items():
        same(theirs[name], tensor)
        same(ours[name], tensor)
    header = read_header(tmp_path / "a")
    assert header.metadata == {"key": "välue"}
    assert header.tensors == {name: Entry(t.dtype, tuple(t.shape)) for name, t in tensors.items()}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    tensors, metadata = some_tensors(), {"b": "2", "a": "1"}
    write_safetensors(tmp_path / "1", tensors, metadata)
    write_safetensors(tmp_path / "2", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_tensors_outlive_the_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a", {"x": torch.ones(3)}, {})
    tensors = read_tensors(tmp_path / "a")
    with (tmp_path / "a").open("rb+") as file:
        file.truncate(0)
    torch.testing.assert_close(tensors["x"], torch.ones(3))


def test_unknown_dtype(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"x has the dtype torch\.complex128; a file holds bool, .*: convert it"):
        write_safetensors(tmp_path / "a", {"x": torch.zeros(2, dtype=torch.complex128)}, {})
    assert only(tmp_path) == []


def test_header_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HEADER_LIMIT", 1000)
    with pytest.raises(ValueError, match=r"would have 1,0\d\d bytes; 1,000 are readable: save it in parts"):
        write_safetensors(tmp_path / "a", {}, {"plan": "x" * 990})


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str = "F32", shape: object = (2,), start: int = 0, stop: int = 8, **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **more}


WHOLE = raw({"a": entry()}, b"0" * 8)
NOT_WHOLE = (
    r"is not a whole safetensors file: .+; an undamaged file is needed: copy or save it again"  # the reason is safetensors' own text
)
DAMAGED = {
    "empty": (b"", "ends before its header and has 0 bytes in all"),
    "no header": (b"1234567", "ends before its header and has 7 bytes"),
    "cut in the header": (WHOLE[:20], r"promises a header of 61 bytes and has 20 bytes in all; .*: the file is truncated"),
    "cut in the data": (WHOLE[:-1], NOT_WHOLE),
    "more data": (WHOLE + b"1", NOT_WHOLE),
    "length above the limit": (struct.pack("<Q", 100_000_001) + b"{}", "promises a header of 100,000,001 bytes"),
    "length of 2^64 - 1": (b"\xff" * 8 + b"{}", "promises a header of 18,446,744,073,709,551,615 bytes"),
    "no JSON": (raw(b"not json"), NOT_WHOLE),
    "no UTF-8": (raw(b'{"\xff\xfe": 1}'), NOT_WHOLE),
    "deep JSON": (raw(b"[" * 100_000 + b"]" * 100_000), NOT_WHOLE),
    "deep metadata": (raw(b'{"__metadata__":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001), NOT_WHOLE),
    "wrong dtype": (raw({"a": entry("F99")}, b"0" * 8), NOT_WHOLE),
    "overlap": (raw({"a": entry(), "b": entry(start=4, stop=12)}, b"0" * 12), NOT_WHOLE),
    "hole": (raw({"a": entry(), "b": entry(start=12, stop=20)}, b"0" * 20), NOT_WHOLE),
    "out of range": (raw({"a": entry(stop=80)}, b"0" * 8), NOT_WHOLE),
    "backwards": (raw({"a": entry(start=8, stop=0)}, b"0" * 8), NOT_WHOLE),
    "overflow": (raw({"a": entry(shape=(2**40, 2**40))}, b"0" * 8), NOT_WHOLE),
    "huge sizes": (raw({"a": entry(shape=(2**70,))}, b"0" * 8), NOT_WHOLE),
    "negative sizes": (raw({"a": entry(shape=(-2,))}, b"0" * 8), NOT_WHOLE),
    "metadata that is no text": (raw({"__metadata__": {"a": 1}}), NOT_WHOLE),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(tmp_path: Path, name: str) -> None:
    data, message = DAMAGED[name]
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_header(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "a")


def test_dtype_that_only_safetensors_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(WHOLE)
    monkeypatch.delitem(DTYPES, "F32")
    with pytest.raises(ValueError, match=r"a holds 'a' with the dtype F32; BOOL, .* are known: convert it"):
        read_header(tmp_path / "a")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6), cut=st.none() | st.integers(0, 10_000))
def test_any_damage_is_a_value_error_or_harmless(tmp_path: Path, changes: list[tuple[int, int]], cut: int | None) -> None:
    """Bytes are changed anywhere and the end is cut off: tensors are then those that the header promises, or there is a ValueError."""
    path = tmp_path / "a"
    write_safetensors(path, {"a": torch.ones(2, 3), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.tensor(1)}, {"tenfold": "1"})
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data[: len(data) if cut is None else cut % (len(data) + 1)])
    try:
        header = read_header(path)
        tensors = read_tensors(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert {name: Entry(t.dtype, tuple(t.shape)) for name, t in tensors.items()} == header.tensors


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot read .*none: there is no such file; .*: check the path"):
        read_header(tmp_path / "none")


def test_reading_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=r"cannot read .*: it is a folder; .*: check the path"):
        read_tensors(tmp_path)


def test_reading_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(WHOLE)

    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(PermissionError, match=r"cannot read .*: Permission denied; .*: check the path"):
        read_header(tmp_path / "a")
