"""Video folders: clips of all layouts as data sets, what is skipped, and the cache."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from video_cases import brightness, cut_off, positions_of, write_video

from tenfold.data import (
    AllFrames,
    Evenly,
    Layout,
    RandomSorted,
    UnreadableFile,
    VideoFolder,
    class_folders,
    sequence_loader,
    ucf11,
    ucf50,
    youtube_celebrities,
)
from tenfold.data import video as video_module
from tenfold.data.video_cache import FrameCache

SMALL = (12, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with a clip of 12 and one of 5 frames."""
    write_video(tmp_path / "clips" / "a" / "long.avi", 12)
    write_video(tmp_path / "clips" / "b" / "short.avi", 5)
    return tmp_path / "clips"


@pytest.mark.parametrize(
    ("layout", "names", "classes", "groups"),
    [
        (ucf11, ["diving/v_diving_03/v_diving_03_01.mpg", "golf/v_golf_07/v_golf_07_02.mpg"], ("diving", "golf"), ("g03", "g07")),
        (ucf50, ["Drumming/v_Drumming_g01_c01.avi", "YoYo/v_YoYo_g25_c04.avi"], ("Drumming", "YoYo"), ("g01", "g25")),
        (youtube_celebrities, ["0001_01_Al_Gore.avi", "0294_02_004_Jet_Li.avi"], ("Al_Gore", "Jet_Li"), ("01", "02")),
    ],
)
def test_layouts_become_data_sets(
    tmp_path: Path, layout: Layout, names: list[str], classes: tuple[str, ...], groups: tuple[str, ...]
) -> None:
    for name in names:
        write_video(tmp_path / name, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = VideoFolder(tmp_path, layout, sampling=Evenly(3), size=SMALL)
    assert (len(data), data.classes, data.groups, data.skipped) == (2, classes, groups, ())
    assert [file.path.relative_to(tmp_path).as_posix() for file in data.files] == names
    inputs, target = data[1]
    assert inputs.shape == (3, 12 * 16 * 3)
    assert (inputs.dtype, target.item()) == (torch.float32, 1)
    assert positions_of(data.frames(1)) == [1, 4, 7]
    torch.testing.assert_close(
        inputs[:, 0], (torch.tensor([brightness(k) for k in (1, 4, 7)]) - 128) / 64, atol=0.05, rtol=0
    )  # 3 of 255 greys


def test_inputs_run_over_height_width_and_colour_and_are_scaled(folder: Path) -> None:
    data = VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL, center=100, scale=2)
    wanted = (torch.from_numpy(data.frames(0).astype(np.float32)) - 100) / 2
    torch.testing.assert_close(data[0][0].reshape(2, 12, 16, 3), wanted, rtol=0, atol=0)


def test_short_clips_give_fewer_frames_and_are_padded_in_batches(folder: Path) -> None:
    data = VideoFolder(folder, class_folders, sampling=AllFrames(8), size=SMALL)
    assert data.lengths.tolist() == [8, 5]
    (inputs, lengths), targets = next(iter(sequence_loader(data, 2)))
    assert inputs.shape == (2, 8, 12 * 16 * 3)
    assert (lengths.tolist(), targets.tolist()) == ([8, 5], [0, 1])
    assert positions_of(data.frames(1)) == [0, 1, 2, 3, 4]
    assert inputs[1, 5:].abs().max() == 0


def test_unreadable_clips_and_other_files_are_listed_and_warned_of(folder: Path) -> None:
    (folder / "a" / "notes.txt").write_text("not a video")
    (folder / "c").mkdir()
    (folder / "c" / "broken.avi").write_bytes(b"RIFF" + bytes(200))
    cut_off(write_video(folder / "a" / "cut.avi", 50, noise=0), 0.5)
    with pytest.warns(
        UserWarning, match=r"3 of 5 files in .*clips were skipped: cut\.avi \(\d+ of 50 frames can be decoded\), notes\.txt"
    ) as caught:
        data = VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL)
    assert caught[0].filename == __file__
    assert [path.name for path, _ in data.skipped] == ["cut.avi", "notes.txt", "broken.avi"]
    assert data.skipped[1].reason == ".txt is not the ending of a video file"
    assert data.skipped[2].reason == "Invalid data found when processing input"
    assert data.classes == ("a", "b", "c"), "a class keeps its number"
    assert data.labels.tolist() == [0, 1]
    with pytest.raises(
        UnreadableFile, match=r"cut\.avi cannot be read \(\d+ of 50 frames can be decoded\); a whole .* repair or remove it"
    ):
        VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL, strict=True)


@pytest.mark.parametrize("has_cache", [False, True])
def test_links_that_lead_nowhere_are_listed(folder: Path, tmp_path: Path, has_cache: bool) -> None:
    (folder / "a" / "gone.avi").symlink_to("elsewhere.avi")
    (folder / "a" / "loop.avi").symlink_to("loop.avi")
    with pytest.warns(UserWarning, match=r"2 of 4 files in .* were skipped: gone\.avi \(it is no file, or a link to none\), loop\.avi"):
        data = VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL, cache=tmp_path / "cache" if has_cache else None)
    assert len(data) == 2


def test_a_folder_without_readable_clips_raises(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    with pytest.raises(ValueError, match=r"the folder .*nowhere does not exist; a folder of clips is needed: check the path"):
        VideoFolder(tmp_path / "nowhere", ucf11)
    with pytest.raises(
        ValueError, match=r"has 0 readable clips; it has no files where they are looked for; at least one is needed, as CLASS/GROUP/CLIP"
    ):
        VideoFolder(tmp_path, ucf11)
    (tmp_path / "a").mkdir()
    for k in range(5):
        (tmp_path / "a" / f"{k}.avi").write_bytes(b"x" * 100)
    message = r"0 readable clips; it has 5 files, of which 0\.avi \(Invalid data .*\), 1\.avi .*, 2\.avi .* and 2 more; .*Check the path and the layout"
    with pytest.raises(ValueError, match=message):
        VideoFolder(tmp_path, class_folders)


def test_settings_out_of_range_raise(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"size is \(0, 16\) and n_threads is 1; a height and a width of at least 1 pixel, .* size=\(120, 160\)"
    ):
        VideoFolder(folder, class_folders, size=(0, 16))
    with pytest.raises(ValueError, match=r"size is \(12, 16\) and n_threads is 0; .* at least 1 thread, are needed"):
        VideoFolder(folder, class_folders, size=SMALL, n_threads=0)
    with pytest.raises(ValueError, match=r"scale is 0; pixels are divided by it, which needs a finite number above 0, e\.g\. scale=64"):
        VideoFolder(folder, class_folders, scale=0)


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many clips were decoded since the last call."""
    count = 0
    decode = video_module.read_frames

    def count_and_decode(*arguments: object) -> np.ndarray:
        nonlocal count
        count += 1
        return decode(*arguments)  # pyright: ignore[reportArgumentType]

    def since() -> int:
        nonlocal count
        found, count = count, 0
        return found

    monkeypatch.setattr(video_module, "read_frames", count_and_decode)
    return since


def test_frames_are_cached_for_one_file_size_and_sampling(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_decoded = counted(monkeypatch)
    cache = tmp_path / "cache"
    plain = VideoFolder(folder, class_folders, sampling=RandomSorted(3), size=SMALL)
    assert n_decoded() == 2
    first = VideoFolder(folder, class_folders, sampling=RandomSorted(3), size=SMALL, cache=cache)
    again = VideoFolder(folder, class_folders, sampling=RandomSorted(3), size=SMALL, cache=cache, center=0)
    assert n_decoded() == 2, "the second one finds all"
    for k in range(2):
        np.testing.assert_array_equal(first.frames(k), plain.frames(k))
        np.testing.assert_array_equal(again.frames(k), plain.frames(k))
    for sampling, size in [(RandomSorted(3, seed=1), SMALL), (RandomSorted(2), SMALL), (Evenly(3), SMALL), (RandomSorted(3), (16, 12))]:
        VideoFolder(folder, class_folders, sampling=sampling, size=size, cache=cache)
        assert n_decoded() == 2, f"{sampling}, {size}"
    os.utime(folder / "a" / "long.avi", ns=(0, 0))
    VideoFolder(folder, class_folders, sampling=RandomSorted(3), size=SMALL, cache=cache)
    assert n_decoded() == 1, "the clip that changed"
    assert not list(cache.glob(".*")), "nothing half-written is left"
    assert all(path.suffix == ".npy" for path in cache.iterdir())


def test_a_damaged_cache_is_made_again_and_a_lost_one_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    data = VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL, cache=cache)
    wanted = [data.frames(k).copy() for k in range(2)]
    one, other = sorted(cache.iterdir())
    cut_off(one, 0.7)
    other.write_bytes(b"")
    n_decoded = counted(monkeypatch)
    data = VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL, cache=cache)
    assert n_decoded() == 2
    for k in range(2):
        np.testing.assert_array_equal(data.frames(k), wanted[k])
    one.unlink()
    with pytest.raises(
        ValueError, match=r"the cached frames .*\.npy cannot be read \(FileNotFoundError\); the cache is needed .*: make the data set"
    ):
        data[0]


def test_a_cache_that_cannot_be_written_raises_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = FrameCache(tmp_path / "file", SMALL, Evenly(2))
    with pytest.raises(
        OSError, match=r"frames of a clip cannot be written to .*; a writable folder with 0\.0 MB is needed: make room, or give"
    ):
        cache.save(tmp_path / "file" / "a.npy", np.zeros((2, *SMALL, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_threads_progress_and_workers_change_nothing(folder: Path, tmp_path: Path) -> None:
    write_video(folder / "a" / "third.avi", 7)
    seen: list[tuple[str, int, int]] = []
    one = VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL, progress=lambda *step: seen.append(step))
    two = VideoFolder(folder, class_folders, sampling=Evenly(2), size=SMALL, n_threads=2, cache=tmp_path / "cache")
    assert seen == [("decoding", 1, 3), ("decoding", 2, 3), ("decoding", 3, 3)]
    assert one.files == two.files
    (inputs, targets), (others, _) = (next(iter(DataLoader(data, 3))) for data in (one, two))
    torch.testing.assert_close(inputs, others, rtol=0, atol=0)
    assert targets.tolist() == [0, 0, 1]
