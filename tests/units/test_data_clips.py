"""Clips: .npz files of frames or JPEG sheets, and the pixels of frames as inputs."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.data import Clips, as_inputs, holdout, read_clips

DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))
FIGHT = DATA / "fight_video" / "clips250_16x60x80.npz"


def sheets(heights: list[int], n_colours: int = 3) -> dict[str, np.ndarray]:
    """JPEG sheets of one grey a clip, 8 pixels wide."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    files = []
    for grey, height in enumerate(heights):
        file = io.BytesIO()
        image.fromarray(np.full((height, 8, n_colours), 40 * grey, np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    ends = np.cumsum([0, *map(len, files)])
    return {"bytes": np.frombuffer(b"".join(files), np.uint8), "offsets": ends, "labels": np.arange(len(files), dtype=np.uint8)}


def test_jpeg_sheets_are_cut_into_frames(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **sheets([32, 32, 32]), names=np.array(["x", "y", "z"]))
    data = read_clips(tmp_path / "a.npz", n_frames=4)
    assert (len(data), data.size, data.names, data.labels.tolist()) == (3, (8, 8), ("x", "y", "z"), [0, 1, 2])
    np.testing.assert_array_equal(data.frames(2), np.full((4, 8, 8, 3), 80, np.uint8))
    inputs, target = data[1]
    torch.testing.assert_close(inputs, torch.full((4, 192), (40 - 128) / 64), rtol=0, atol=0)
    assert target == 1


def test_frames_are_read_as_they_are(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 1), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", frames=frames, labels=np.array([1, 0]))
    data = read_clips(tmp_path / "a.npz", center=0, scale=255)
    torch.testing.assert_close(data[0][0], torch.from_numpy(frames[0].reshape(3, 20) / 255).float())
    assert data.names == ()


def test_pixels_become_inputs() -> None:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    inputs = as_inputs(frames, center=10, scale=4)
    assert inputs[1, 1 * 12 + 2 * 3 + 1] == (float(frames[1, 1, 2, 1]) - 10) / 4
    np.testing.assert_array_equal(frames, np.arange(72).reshape(2, 3, 4, 3))


@pytest.mark.skipif(not FIGHT.is_file(), reason="needs the surveillance clips: a folder named by $TENFOLD_DATA, or ../shared/data")
def test_surveillance_clips() -> None:
    pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    data = read_clips(FIGHT)
    assert (len(data), data.size) == (250, (60, 80))
    assert torch.bincount(data.labels).tolist() == [125, 125]
    squares = torch.stack([data[k][0].square().mean() for k in range(250)])
    torch.testing.assert_close(squares.mean().sqrt(), torch.tensor(1.0), rtol=0, atol=0.001)  # the figure in as_inputs' docstring
    assert data[0][0].shape == (16, 14_400)
    assert data.names[0].startswith("fight/")
    split = holdout(len(data), 0.2, labels=data.labels)
    assert torch.bincount(data.labels[list(split.test)]).tolist() == [25, 25]


def test_files_that_are_no_clips_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match=r"the file .*a\.npz does not exist; an \.npz file is needed: check the path"):
        read_clips(path)
    path.write_bytes(b"PK" + bytes(100))
    with pytest.raises(
        ValueError, match=r"a\.npz cannot be read \(\w+\); an undamaged \.npz file without objects is needed: save it again"
    ):
        read_clips(path)
    np.savez(path, bytes=np.zeros(3, np.uint8), labels=np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"a\.npz has the arrays \['bytes', 'labels'\]; it needs frames, .*: write it with numpy\.savez"):
        read_clips(path)
    np.savez(path, frames=np.zeros((1, 2, 3, 4, 3), np.uint8), labels=np.zeros(1))
    with pytest.raises(ValueError, match=r"labels of dtype float64; whole numbers are needed: save them as integers"):
        read_clips(path)
    np.savez(path, frames=np.zeros((1, 2, 3, 4, 3)), labels=np.zeros(1, np.int64))
    with pytest.raises(
        ValueError,
        match=r"in .*a\.npz the clips have shape \(1, 2, 3, 4, 3\) and dtype float64; uint8 \(clips, frames, height, width, channels\)",
    ):
        read_clips(path)
    with pytest.raises(
        ValueError, match=r"there are 1 clips, labels of shape \(2,\) and dtype torch\.int64, and 0 names; a whole number, and a name"
    ):
        Clips(np.zeros((1, 2, 3, 4, 3), np.uint8), torch.tensor([0, 1]))


def test_damaged_sheets_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    good = sheets([32, 32])
    with pytest.raises(ValueError, match=r"clip 0 of .*a\.npz is 32 pixels high, which 5 frames do not divide; .*: give n_frames"):
        np.savez(path, **good)
        read_clips(path, n_frames=5)
    with pytest.raises(ValueError, match=r"n_frames is 0; a sheet needs at least 1 frame: give the number of frames of a clip"):
        read_clips(path, n_frames=0)
    with pytest.raises(
        ValueError, match=r"clip 1 of .*a\.npz has shape \(4, 4, 8, 3\), clip 0 has \(4, 8, 8, 3\); one shape is needed: resize it"
    ):
        np.savez(path, **sheets([32, 16]))
        read_clips(path, n_frames=4)
    with pytest.raises(ValueError, match=r"has \d+ bytes and 3 offsets that do not ascend within them; .* are needed: write it again"):
        np.savez(path, **{**good, "offsets": good["offsets"] + 1})
        read_clips(path, n_frames=4)
    with pytest.raises(ValueError, match=r"has \d+ bytes and 1 offsets that do not ascend within them; .* are needed: write it again"):
        np.savez(path, **{**good, "offsets": np.array(3)})
        read_clips(path, n_frames=4)
    broken = good["bytes"].copy()
    broken[good["offsets"][1] :] = 0
    with pytest.raises(ValueError, match=r"clip 1 of .*a\.npz is damaged \(.*\); a whole JPEG file is needed: write it again"):
        np.savez(path, **{**good, "bytes": broken})
        read_clips(path, n_frames=4)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", **sheets([32]))

    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(
        ImportError, match=r"a.npz has clips as JPEG sheets; that needs Pillow, which is not installed: run pip install pillow"
    ):
        read_clips(tmp_path / "a.npz", n_frames=4)
