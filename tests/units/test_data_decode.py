"""Decoding: the frames that were asked for, in their colours and size; damaged files raise and say why."""

import builtins
import importlib
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_cases import RIGHT, cut_off, positions_of, write_video

from tenfold.data import AllFrames, Evenly, UnreadableFile
from tenfold.data.decode import read_frames, video_package


@pytest.mark.parametrize("ending", [".mpg", ".avi", ".mp4"])
def test_frames_have_their_place_size_and_colour(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"a{ending}", 12)
    frames = read_frames(path, (12, 16), AllFrames(), "a")
    assert frames.dtype == np.uint8
    assert frames.shape == (12, 12, 16, 3)
    assert positions_of(frames) == list(range(12))
    np.testing.assert_allclose(frames[:, :, 12:].mean((0, 1, 2)), RIGHT, atol=6)  # what the lossy codec leaves of a flat colour
    assert positions_of(read_frames(path, (12, 16), Evenly(3), "a")) == [2, 6, 10]
    assert read_frames(path, (20, 10), Evenly(1), "a").shape == (1, 20, 10, 3)


def test_a_file_that_ends_early_is_unreadable(tmp_path: Path) -> None:
    path = cut_off(write_video(tmp_path / "a.avi", 50, noise=0), 0.5)
    with pytest.raises(
        UnreadableFile, match=r"a\.avi cannot be read \(\d+ of 50 frames can be decoded\); a whole and undamaged video file is"
    ):
        read_frames(path, (12, 16), Evenly(2), "a")
    path = cut_off(write_video(tmp_path / "b.mp4", 50, noise=0), 0.5)
    with pytest.raises(ValueError, match=r"b\.mp4 cannot be read \(Invalid data found when processing input\)"):
        read_frames(path, (12, 16), Evenly(2), "b")


def test_files_without_pictures_are_unreadable(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    for name, data in {"text.avi": b"no video\n" * 40, "empty.avi": b"", "noise.avi": np.random.RandomState(0).bytes(4000)}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnreadableFile, match=rf"{name} cannot be read \(Invalid data .*\); a whole and undamaged video file is needed"):
            read_frames(tmp_path / name, (12, 16), Evenly(2), name)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4000))
    with pytest.raises(UnreadableFile, match=r"sound\.wav cannot be read \(it has no video stream\)"):
        read_frames(tmp_path / "sound.wav", (12, 16), Evenly(2), "sound")
    with pytest.raises(UnreadableFile, match=r"absent\.avi cannot be read \(No such file or directory\)"):
        read_frames(tmp_path / "absent.avi", (12, 16), Evenly(2), "absent")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *arguments: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return builtins.__import__(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(
        ImportError, match=r'needs PyAV, .* which is not installed; the extra "video" is needed: run pip install "tenfold\[video\]"'
    ):
        video_package()
