"""Data sets: what the command line's data arguments stand for, and example inputs for a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from tenfold.batches import batches
from tenfold.data.pillow import image_module
from tenfold.evaluate import evaluate
from tenfold.messages import one_line
from tenfold.running import EXAMPLES, call, eval_mode, first_samples
from tenfold.sources import call_function, read_function

DATA_FORMS = "file.py:function, package.module:function, an .npz file with images and labels, or a folder with one folder of images a class"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
NORMALIZATIONS = {"imagenet": "0.485,0.456,0.406/0.229,0.224,0.225"}


def read_data(text: str, *, normalize: str | None = None, size: Sequence[int] | None = None) -> Any:
    """The Dataset or DataLoader of (input, target) that a data argument names.

    A function is called without arguments. An .npz file holds `labels` (whole numbers) and `images`: uint8 (N, H, W, C) or (N, H, W)
    become float32 (N, C, H, W) in 0..1, floating-point images are taken as they are. In a folder every subfolder is a class, in
    alphabetical order, and its images become (3, H, W) in 0..1.

    Args:
        normalize: "MEAN/STD" with one number for each channel, or "imagenet"; only for .npz files and folders.
        size: (height, width) that the images of a folder are resized to, shorter side first, then the centre is cut out.

    Raises:
        ValueError: the text names nothing, or what it names is empty or has another layout.
        TypeError: the function returns something else.
        ImportError: Pillow is missing and a folder was given.
    """
    path = Path(text).expanduser()
    if path.suffix == ".npz":
        images, labels = _from_npz(path)
    elif path.is_dir():
        images, labels = _from_folder(path, size)
    elif normalize is not None:
        raise ValueError(
            f"the data {text} is a function, which --normalize does not reach; normalise in the function, or leave --normalize out"
        )
    else:
        return _from_function(text)
    return TensorDataset(_normalized(images, normalize), labels)


def _from_function(text: str) -> Any:
    if ":" not in text:
        raise ValueError(f"the data {text} is no file or folder that exists; it needs to be {DATA_FORMS}: check the path")
    data = call_function(read_function(text, "a data argument", DATA_FORMS), text)
    if not isinstance(data, Dataset | DataLoader):
        raise TypeError(f"{text} returned a {type(data).__name__}; a data argument needs a torch Dataset or DataLoader of (input, target)")
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        _check_sample(data, text)
    return data


def _check_sample(data: Any, text: str) -> None:
    if len(data) == 0:
        raise ValueError(f"{text} returned a data set of 0 samples; at least one is needed: check the files that it reads")
    sample = data[0]
    if not isinstance(sample, Mapping) and not (isinstance(sample, tuple | list) and len(sample) >= 2):
        raise TypeError(f"{text} has samples that are a {type(sample).__name__}; (input, target) is needed: return pairs")


def _from_npz(path: Path) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise ValueError(f"the data {path} does not exist; an .npz file with images and labels is needed: check the path")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file)
            arrays = {name: file[name] for name in ("images", "labels") if name in names}
    except Exception as error:  # zipfile, numpy and zlib each raise their own
        raise ValueError(
            f"the data {path} cannot be read ({type(error).__name__}); an undamaged .npz file without objects is needed: save it again"
        ) from error
    if len(arrays) < 2:
        raise ValueError(
            f"the data {path} has the arrays {names}; it needs images and labels: write it with numpy.savez(FILE, images=.., labels=..)"
        )
    images, labels = arrays["images"], arrays["labels"]
    n_images = len(images) if images.ndim else 0
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or len(labels) != n_images or not n_images:
        raise ValueError(
            f"the data {path} has {n_images} images and labels of shape {labels.shape} and dtype {labels.dtype}; one whole number for "
            "each of at least one image is needed: save labels as a 1-D integer array"
        )
    return _channels_first(images, f"the data {path}"), torch.from_numpy(labels.astype(np.int64))


def _channels_first(images: np.ndarray, name: str) -> Tensor:
    if np.issubdtype(images.dtype, np.floating):
        return torch.from_numpy(images.astype(np.float32))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3, 4)):
        raise ValueError(
            f"{name} has images of shape {images.shape} and dtype {images.dtype}; uint8 (N, H, W, C) or (N, H, W), or floating-point "
            "values as the model takes them are needed: transpose or convert them"
        )
    pixels = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return pixels.permute(0, 3, 1, 2).float().div_(255).contiguous()


def _from_folder(path: Path, size: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    library = image_module(f"the data {path} is an image folder")
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    files = [
        (file, number)
        for number, folder in enumerate(classes)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMAGE_ENDINGS
    ]
    if not files:
        raise ValueError(
            f"the data {path} has {len(classes)} folders and no image in them; a folder for each class "
            f"with {', '.join(IMAGE_ENDINGS[:3])} ... files is needed: check the path"
        )
    arrays: list[np.ndarray] = []
    for file, _ in files:
        try:
            with library.open(file) as opened:
                mode, image = opened.mode, opened.convert("RGB")
        except Exception as error:  # Pillow's errors for damaged files are of many kinds
            raise ValueError(f"the image {file} cannot be read ({error}); an undamaged image is needed: repair or remove it") from error
        _check_depth(mode, file)
        arrays.append(np.asarray(_cut(image, size)))
        if arrays[-1].shape != arrays[0].shape:
            raise ValueError(
                f"the image {file} has height and width {arrays[-1].shape[:2]} and {files[0][0]} has {arrays[0].shape[:2]}; one size "
                "is needed: give --input-shape 3,HEIGHT,WIDTH to resize them"
            )
    return _channels_first(np.stack(arrays), f"the data {path}"), torch.tensor([number for _, number in files])


def _check_depth(mode: str, file: Path) -> None:
    """Raises ValueError where an image has more than 8 bits a channel: Pillow would make white of all that is above 255."""
    if mode[0] in "IF":
        raise ValueError(
            f"the image {file} has the mode {mode}, more than 8 bits a channel; 8 are needed: convert it to 8 bits, or give an .npz "
            "file of floating-point images"
        )


def _cut(image: Any, size: Sequence[int] | None) -> Any:
    """The image with its shorter side resized to fit and the centre cut out."""
    if size is None:
        return image
    height, width = size
    scale = max(height / image.height, width / image.width)
    resized = image.resize((max(width, round(image.width * scale)), max(height, round(image.height * scale))))
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    return resized.crop((left, top, left + width, top + height))


def _normalized(images: Tensor, normalize: str | None) -> Tensor:
    if normalize is None:
        return images
    try:
        mean, std = (torch.tensor([float(v) for v in part.split(",")]) for part in NORMALIZATIONS.get(normalize, normalize).split("/"))
    except ValueError:
        raise ValueError(
            f"--normalize is {normalize!r}; it needs MEAN/STD or imagenet: write for instance 0.5,0.5,0.5/0.25,0.25,0.25"
        ) from None
    n_channels = images.shape[1] if images.dim() > 1 else 0
    is_usable = bool(mean.isfinite().all() and std.isfinite().all() and (std > 0).all())
    if not n_channels or not {len(mean), len(std)} <= {1, n_channels} or not is_usable:
        raise ValueError(
            f"--normalize has {len(mean)} means {mean.tolist()} and {len(std)} deviations {std.tolist()} for {n_channels} channels; "
            "one, or one for each channel is needed, finite numbers, deviations above 0: change the numbers"
        )
    shape = (1, -1, *[1] * (images.dim() - 2))
    return (images - mean.view(shape)) / std.view(shape)


# -- example inputs ---------------------------------------------------------------------------------------------------


def parse_shape(text: str) -> tuple[tuple[int, ...], torch.dtype]:
    """The sizes and the dtype of one sample from ``"3,224,224"`` or ``"128:int64"``.

    >>> parse_shape("3,32,32")
    ((3, 32, 32), torch.float32)
    """
    sizes, _, kind = text.partition(":")
    dtype = getattr(torch, kind or "float32", None)
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or not isinstance(dtype, torch.dtype):
        raise ValueError(f"--input-shape is {text!r}; it needs the sizes of one sample, and may have a dtype: write 3,224,224 or 128:int64")
    return shape, dtype


def example_inputs(shape: str, count: int = EXAMPLES) -> Tensor:
    """`count` inputs of a shape: normally distributed, or zeros for whole numbers."""
    sizes, dtype = parse_shape(shape)
    if not dtype.is_floating_point:
        return torch.zeros(count, *sizes, dtype=dtype)
    return torch.randn(count, *sizes, generator=torch.Generator().manual_seed(0)).to(dtype)


def first_inputs(data: Any, count: int = EXAMPLES) -> Any:
    """The inputs of the first samples, at most `count`; None where there are no data."""
    if data is None:
        return None
    inputs, _ = next(iter(batches(data, count)))
    return first_samples(inputs, count)


def check_inputs(model: nn.Module, inputs: Any, origin: str) -> None:
    """Raises ValueError where the model cannot be run on the inputs."""
    try:
        with eval_mode(model), torch.no_grad():
            call(model, inputs)
    except Exception as error:
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        message = one_line(error)
        raise ValueError(
            f"{type(model).__name__} raised {type(error).__name__} on inputs of shape {shape} from {origin}: {message}; inputs "
            "are needed that it takes: check the data, or give --input-shape"
        ) from error


def check_labels(model: nn.Module, data: Any) -> None:
    """Raises ValueError where the first few samples have no targets, or targets that do not fit the model's outputs."""
    inputs, targets = next(iter(batches(data, EXAMPLES)))
    evaluate(model, [(inputs, targets)])
