"""Data arguments: functions, .npz files and image folders, and example inputs."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tenfold.datasets import EXAMPLES, check_inputs, example_inputs, first_inputs, parse_shape, read_data

FILE = """
import torch
from torch.utils.data import DataLoader, TensorDataset

def pairs():
    return TensorDataset(torch.arange(40.).reshape(20, 2), torch.arange(20))

def loader():
    return DataLoader(pairs(), batch_size=5)

def empty():
    return TensorDataset(torch.zeros(0, 2), torch.zeros(0))

def unlabelled():
    return torch.utils.data.ConcatDataset([[torch.zeros(3)]])

def listed():
    return [1, 2]
"""


@pytest.fixture
def loaders(tmp_path: Path) -> str:
    (tmp_path / "loaders.py").write_text(FILE)
    return str(tmp_path / "loaders.py")


def test_functions_give_data_sets_and_loaders(loaders: str) -> None:
    assert len(read_data(f"{loaders}:pairs")) == 20
    assert isinstance(read_data(f"{loaders}:loader"), DataLoader)
    assert isinstance(read_data("tenfold.demo:digits_test"), TensorDataset)


def test_pixels_of_an_npz_become_channels_first_in_0_to_1(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "rgb.npz", images=pixels, labels=np.arange(5, dtype=np.uint8))
    images, labels = read_data(str(tmp_path / "rgb.npz")).tensors
    torch.testing.assert_close(images, torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 255).float())
    assert labels.dtype == torch.int64
    np.savez(tmp_path / "grey.npz", images=pixels[..., 0], labels=np.arange(5))
    assert read_data(str(tmp_path / "grey.npz")).tensors[0].shape == (5, 1, 4, 6)
    np.savez(tmp_path / "float.npz", images=-pixels.astype(np.float64), labels=np.arange(5))
    images = read_data(str(tmp_path / "float.npz")).tensors[0]
    torch.testing.assert_close(images, torch.from_numpy(-pixels.astype(np.float32)))


def test_images_are_normalised_where_asked(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.full((2, 4, 4, 3), 255, np.uint8), labels=np.arange(2))
    path = str(tmp_path / "a.npz")
    images = read_data(path, normalize="0.5,0.25,0/0.5,0.25,2").tensors[0]
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([1.0, 3.0, 0.5]))
    torch.testing.assert_close(read_data(path, normalize="0.5/0.5").tensors[0], torch.ones(2, 3, 4, 4))
    torch.testing.assert_close(read_data(path, normalize="imagenet").tensors[0][0, 0, 0, 0], torch.tensor((1 - 0.485) / 0.229))
    for text, message in {
        "half": r"--normalize is 'half'; it needs MEAN/STD or imagenet: write for instance",
        "0.5,0.5/1": r"--normalize has 2 means \[0.5, 0.5\] and 1 deviations \[1.0\] for 3 channels; one, or one for each channel is needed",
        "0/0": "deviations above 0: change the numbers",
        "nan/1": r"means \[nan\]",
        "0/nan": r"deviations \[nan\]",
        "0/inf": r"deviations \[inf\]",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_data(path, normalize=text)
    np.savez(tmp_path / "a.npz", images=np.zeros(2), labels=np.arange(2))
    with pytest.raises(ValueError, match="for 0 channels"):
        read_data(path, normalize="0/1")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.ppm", b"P6 4 6 2[5\n" + bytes(72)),  # Pillow: a ValueError about int()
        ("a.bmp", b"BM" + struct.pack("<IIIIIIHHIIIIII", 126, 0, 54, 40, 1 << 16, 1 << 16, 1, 24, 0, 72, 0, 0, 0, 0)),  # too many pixels
    ],
)
def test_an_image_that_pillow_refuses_in_another_way_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"the image .*{name} cannot be read \(.*\); an undamaged image is needed: repair or remove it"):
        read_data(str(tmp_path))


def test_an_image_folder_has_a_folder_for_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, value in {"cat": 255, "dog": 0}.items():
        (tmp_path / name).mkdir()
        image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(tmp_path / name / "1.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    images, labels = read_data(str(tmp_path)).tensors
    torch.testing.assert_close(images, torch.stack([torch.ones(3, 4, 6), torch.zeros(3, 4, 6)]))
    assert labels.tolist() == [0, 1]
    image.fromarray(np.zeros((9, 5), np.uint8)).save(tmp_path / "dog" / "2.png")
    with pytest.raises(
        ValueError, match=r"2.png has height and width \(9, 5\) and .*1.png has \(4, 6\); one size is needed: give --input-shape"
    ):
        read_data(str(tmp_path))
    assert read_data(str(tmp_path), size=(4, 4)).tensors[0].shape == (3, 3, 4, 4)
    (tmp_path / "dog" / "3.png").write_text("text")
    with pytest.raises(ValueError, match=r"the image .*3.png cannot be read .*: repair or remove it"):
        read_data(str(tmp_path), size=(4, 4))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"is an image folder; that needs Pillow, which is not installed: run pip install pillow"):
        read_data(str(tmp_path))


@pytest.mark.parametrize(
    ("pixels", "ending", "mode"), [(np.full((4, 6), 999, np.uint16), "png", "I;16"), (np.eye(4, dtype=np.float32), "tif", "F")]
)
def test_images_of_more_than_8_bits_are_refused(tmp_path: Path, pixels: np.ndarray, ending: str, mode: str) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "scans").mkdir()
    image.fromarray(pixels).save(tmp_path / "scans" / f"1.{ending}")
    with pytest.raises(ValueError, match=rf"1.{ending} has the mode {mode}, more than 8 bits a channel; 8 are needed: convert it"):
        read_data(str(tmp_path))


def test_an_image_is_cut_from_its_centre(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8] = 255
    image.fromarray(pixels).save(tmp_path / "a" / "1.png")
    torch.testing.assert_close(read_data(str(tmp_path), size=(4, 4)).tensors[0], torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nowhere", ValueError, r"the data nowhere is no file or folder that exists; it needs to be file.py:function.*: check the path"),
        ("nowhere.npz", ValueError, r"nowhere.npz does not exist; an .npz file with images and labels is needed"),
        ("{loaders}:empty", ValueError, r"empty returned a data set of 0 samples; at least one is needed"),
        ("{loaders}:unlabelled", TypeError, r"unlabelled has samples that are a Tensor; \(input, target\) is needed: return pairs"),
        (
            "{loaders}:listed",
            TypeError,
            r"listed returned a list; a data argument needs a torch Dataset or DataLoader of \(input, target\)",
        ),
        ("{loaders}:nothing", ValueError, r"has no function 'nothing'; it has pairs, loader, empty, unlabelled, listed"),
        ("{folder}", ValueError, r"has 0 folders and no image in them; a folder for each class .* is needed: check the path"),
    ],
)
def test_data_that_are_not_there(loaders: str, tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_data(text.format(loaders=loaders, folder=tmp_path))


def test_normalize_does_not_reach_a_function(loaders: str) -> None:
    with pytest.raises(ValueError, match=r"pairs is a function, which --normalize does not reach; normalise in the function"):
        read_data(f"{loaders}:pairs", normalize="imagenet")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(2)}, r"has the arrays \['x'\]; it needs images and labels: write it with numpy.savez"),
        (
            {"images": np.zeros((3, 2)), "labels": np.arange(2)},
            r"has 3 images and labels of shape \(2,\) and dtype int64; one whole number",
        ),
        ({"images": np.zeros((2, 2)), "labels": np.zeros(2)}, r"dtype float64; one whole number for"),
        ({"images": np.zeros(()), "labels": np.arange(2)}, r"has 0 images and labels of shape \(2,\)"),
        ({"images": np.zeros((0, 2)), "labels": np.arange(0)}, "at least one image"),
        (
            {"images": np.zeros((2, 3, 8, 8), np.uint8), "labels": np.arange(2)},
            r"images of shape \(2, 3, 8, 8\) and dtype uint8; uint8 \(N, H",
        ),
        (
            {"images": np.array([object()]), "labels": np.arange(1)},
            r"cannot be read \(ValueError\); an undamaged .npz file without objects",
        ),
    ],
)
def test_an_npz_of_another_layout(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        read_data(str(tmp_path / "a.npz"))


def test_example_inputs_come_from_a_shape_or_from_the_data(loaders: str) -> None:
    assert example_inputs("3,8,8").shape == (EXAMPLES, 3, 8, 8)
    torch.testing.assert_close(example_inputs("4:int64"), torch.zeros(EXAMPLES, 4, dtype=torch.int64))
    assert first_inputs(read_data(f"{loaders}:pairs")).shape == (20, 2)
    assert len(first_inputs(TensorDataset(torch.zeros(EXAMPLES + 1, 2), torch.zeros(EXAMPLES + 1)))) == EXAMPLES
    assert first_inputs(read_data(f"{loaders}:loader")).shape == (5, 2)
    assert first_inputs(None) is None
    places, scale = torch.arange(4), torch.tensor(2.0)
    batch = first_inputs([{"ids": torch.zeros(8, 4), "places": places, "scale": scale, "labels": torch.zeros(8)}], 3)
    assert batch["ids"].shape == (3, 4) and batch["places"] is places and batch["scale"] is scale


@pytest.mark.parametrize("text", ["", "3,x", "3,0", "3:whole", "3:nn"])
def test_a_shape_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"--input-shape is .*; it needs the sizes of one sample, and may have a dtype: write 3,224,224"):
        parse_shape(text)


def test_inputs_that_the_model_does_not_take() -> None:
    model = nn.Linear(3, 2)
    check_inputs(model, torch.zeros(2, 3), "here")
    with pytest.raises(
        ValueError, match=r"Linear raised RuntimeError on inputs of shape \(2, 4\) from here: mat1.*: check the data, or give"
    ):
        check_inputs(model, torch.zeros(2, 4), "here")
