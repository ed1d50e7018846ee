"""Images: .npz files in both layouts, and what is wrong with others."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tenfold.data import Images, read_images, read_packed_images


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    made = {}
    for part, n in (("train", 6), ("test", 4)):
        made |= {f"x_{part}": random.randint(0, 256, (n, 5, 4)).astype(np.uint8), f"y_{part}": np.arange(n) % 3}
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def save(folder: Path, made: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "images.npz", **made)  # pyright: ignore[reportArgumentType]
    return folder / "images.npz"


def test_pixels_and_classes(tmp_path: Path) -> None:
    made = arrays()
    train, test = read_images(save(tmp_path, made))
    assert (len(train), len(test)) == (6, 4)
    assert torch.equal(train.pixels, torch.from_numpy(made["x_train"])[:, None]) and train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    colour, _ = read_images(save(tmp_path, arrays(x_train=np.zeros((6, 5, 4, 3), np.uint8), x_test=np.zeros((4, 5, 4, 3), np.uint8))))
    assert colour.pixels.shape == (6, 3, 5, 4)


def test_parts_and_moments() -> None:
    pixels = torch.randint(0, 256, (20, 3, 6, 6), dtype=torch.uint8)
    images = Images(pixels, torch.arange(20))
    mean, std = images.moments()
    wide = pixels.double().transpose(0, 1).flatten(1)
    assert_close(mean, wide.mean(1).float(), rtol=1e-5, atol=1e-4)
    assert_close(std, wide.std(1, unbiased=False).float(), rtol=1e-5, atol=1e-4)
    assert images.part(slice(2, 5)).labels.tolist() == [2, 3, 4]
    assert images.part(torch.tensor([7, 1])).labels.tolist() == [7, 1]


def packed(n: int = 3, size: int = 8) -> dict[str, np.ndarray]:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    files = []
    for number in range(n):
        buffer = io.BytesIO()
        image.fromarray(np.full((size, size, 3), 60 * number, np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    header = files[0][:20]
    assert all(one.startswith(header) for one in files)
    rest = [np.frombuffer(one[20:], np.uint8) for one in files]
    return {
        "header": np.frombuffer(header, np.uint8),
        "payload": np.concatenate(rest),
        "offsets": np.cumsum([0, *map(len, rest)]).astype(np.uint32),
        "labels": np.arange(n).astype(np.uint8),
    }


def test_packed_files_need_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = save(tmp_path, packed())
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"has images packed as JPEG; that needs Pillow, which is not installed: run pip install pillow"):
        read_packed_images(place)


def test_packed_files(tmp_path: Path) -> None:
    found = read_packed_images(save(tmp_path, packed()))
    assert found.pixels.shape == (3, 3, 8, 8) and found.labels.tolist() == [0, 1, 2]
    assert [int(one.float().mean().round()) for one in found.pixels] == [0, 60, 120]


def test_a_packed_file_that_is_damaged(tmp_path: Path) -> None:
    made = packed()
    with pytest.raises(ValueError, match=r"has no labels; header, payload, offsets, labels are needed: save it with these names"):
        read_packed_images(save(tmp_path, {name: value for name, value in made.items() if name != "labels"}))
    with pytest.raises(ValueError, match="has offsets that do not cut its payload of .* bytes into images; ascending whole"):
        read_packed_images(save(tmp_path, {**made, "offsets": made["offsets"][::-1].copy()}))
    for wrong in ({"offsets": made["offsets"] + 0.5}, {"payload": np.uint8(1)}):
        with pytest.raises(ValueError, match="has offsets that do not cut its payload of"):
            read_packed_images(save(tmp_path, {**made, **wrong}))
    one, other = packed(1), packed(1, 16)
    sizes = {"payload": np.concatenate([one["payload"], other["payload"]]), "labels": np.arange(2)}
    sizes["offsets"] = np.array([0, len(one["payload"]), len(sizes["payload"])])
    with pytest.raises(
        ValueError, match=r"image 1 of .* has height and width \(16, 16\), image 0 \(8, 8\); one size is needed: resize them"
    ):
        read_packed_images(save(tmp_path, {**one, **sizes}))
    broken = made["payload"].copy()
    broken[:] = 0
    with pytest.raises(ValueError, match="image 0 of .* cannot be read .*; undamaged JPEG files are needed"):
        read_packed_images(save(tmp_path, {**made, "payload": broken}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "has no y_test; x_train, y_train, x_test, y_test are needed: save it with these names"),
        ({"x_train": np.zeros((6, 5, 4))}, r"images of shape \(6, 5, 4\) and dtype float64 .*; uint8 .* and whole numbers are needed"),
        ({"y_train": np.zeros(6)}, "labels of dtype float64; uint8 .* and whole numbers are needed: convert them"),
        (
            {"y_train": np.zeros(5, int)},
            r"in .*\.npz the images have shape \(6, 1, 5, 4\) .*, their labels \(5,\); uint8 .* a label for each are needed",
        ),
        ({"x_test": np.zeros((4, 3, 4), np.uint8)}, r"images of shape \(1, 5, 4\) and \(1, 3, 4\); training and test images need one"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_images(save(tmp_path, arrays(**changes)))
