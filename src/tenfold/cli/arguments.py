"""The arguments that several commands share, and what they stand for."""

import fnmatch
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
from cyclopts import Group, Parameter
from torch import nn

from tenfold.budget import Budget
from tenfold.datasets import check_inputs, check_labels, example_inputs, first_inputs, parse_shape, read_data
from tenfold.finetune import FinetuneHistory, finetune
from tenfold.plan import Filter, Latency
from tenfold.precision import Precision
from tenfold.progress import Progress
from tenfold.recurrent.opened import opened_view
from tenfold.running import EXAMPLES
from tenfold.sources import read_model
from tenfold.survey import survey

SEEDS = 10**18  # torch's generators take those below 2**63

MODEL, DATA, PLANNING, FINETUNING, TRAINING, COMMON = (
    Group(name, sort_key=number) for number, name in enumerate(("Model", "Data", "Planning", "Fine-tuning", "Training", "Common"), 1)
)

Model: TypeAlias = Annotated[
    str,
    Parameter(
        help="file.py:function or package.module:function (no arguments, returns a module), or torchvision:NAME, timm:NAME, hf:NAME."
    ),
]
Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
Patterns: TypeAlias = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


@Parameter(name="*", group=COMMON)
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Flag = False
    """Print the result as JSON on stdout instead of tables."""
    seed: int = 0
    """Seed of everything random."""
    threads: int | None = None
    """Threads for computation; torch's choice where not given."""
    debug: Flag = False
    """Show the traceback of an error."""

    def apply(self) -> None:
        """Sets seed and threads.

        Raises:
            ValueError: the number of threads is below 1, or the seed is none of torch's.
        """
        if not -SEEDS <= self.seed < SEEDS:
            raise ValueError(f"--seed is {self.seed}; a whole number of at most 18 digits is needed: give one, or leave it out for 0")
        if self.threads is not None:
            if self.threads < 1:
                raise ValueError(f"--threads is {self.threads}; at least 1 is needed: leave it out for torch's choice")
            torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class Weights:
    """Where the model's weights are."""

    weights: Path | None = None
    """A safetensors file (also one that tenfold wrote) or a state_dict file; without it the model is as its function returns it."""

    def load(self, model: str, seed: int) -> nn.Module:
        """The model in eval mode."""
        return read_model(model, self.weights, seed=seed)


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class Data:
    """Data arguments: file.py:function, an .npz file, or an image folder."""

    data: str | None = None
    """Test data, for accuracies and example inputs: file.py:function (returns a Dataset or DataLoader), .npz with images and labels, or
    image folder."""
    input_shape: str | None = None
    """One sample's shape, for example inputs without data: 3,224,224 or 128:int64. Images of a folder are resized to it."""
    normalize: str | None = None
    """MEAN/STD for each channel, or imagenet, for .npz files and image folders; without it uint8 images are in 0..1."""

    def read(self, text: str | None) -> Any:
        """The data that an argument names, None where it is not given; the same text is read once."""
        if text is None:
            return None
        sizes = parse_shape(self.input_shape)[0][1:] if self.input_shape else ()
        return _read(text, self.normalize, sizes if len(sizes) == 2 else None)

    def check_normalize(self) -> None:
        """Raises ValueError where --normalize has no data to change; of commands that read --data alone."""
        if self.normalize is not None and self.data is None:
            raise ValueError(f"--normalize {self.normalize} came without --data; it changes images of data: add --data, or leave it out")

    def test(self, model: nn.Module) -> Any:
        """The data of --data, None where it is not given.

        Raises:
            ValueError: the targets do not fit the model.
        """
        if (data := self.read(self.data)) is not None:
            check_labels(model, data)
        return data

    def inputs(self, model: nn.Module, calibration: str | None = None, count: int = EXAMPLES) -> Any:
        """An example input, which the model takes: of --input-shape, else the first of the data; None where there is neither.

        Args:
            calibration: the data of --calibration, taken where --data is not given.
            count: samples, at most.

        Raises:
            ValueError: the model fails on it, or there is to be none.
        """
        if count < 1:
            raise ValueError(f"--latency-batch is {count}; a call has at least 1 sample: give the number that the model will get at once")
        text = self.data if self.data is not None else calibration
        if self.input_shape is not None and (text is None or not Path(text).expanduser().is_dir()):
            inputs, origin = example_inputs(self.input_shape, count), f"--input-shape {self.input_shape}"
        else:
            inputs, origin = first_inputs(self.read(text), count), f"the data {text}"
        if inputs is not None:
            check_inputs(model, inputs, origin)
        return inputs


Calibration: TypeAlias = Annotated[
    str | None,
    Parameter(
        group=DATA,
        help="Real inputs, in the forms of --data: errors are then measured on layers' outputs, and compress lets BatchNorm "
        "statistics and biases follow what changed.",
    ),
]


@lru_cache(maxsize=4)
def _read(text: str, normalize: str | None, size: tuple[int, ...] | None) -> Any:
    return read_data(text, normalize=normalize, size=size)


@Parameter(name="*", group=PLANNING)
@dataclass(frozen=True)
class Planning:
    """How layers are factorised."""

    budget: str | None = None
    """What to keep of the model: flops=0.5, params=0.25, bytes=0.25, or several with commas; or, for compress, accuracy_drop=0.5: the
    fewest FLOP with which at most so many points of accuracy are lost on --validation."""
    format: str = "auto"
    """auto, or one for all layers, as svd; with ranks as in cp:rank=12. `tenfold formats` lists all."""
    filter: Patterns = ()
    """Only layers whose name matches this pattern, e.g. 'layer3.*'; may be given several times."""
    skip: Patterns = ()
    """Leave layers dense whose name matches this pattern; may be given several times."""
    latency: Latency = "auto"
    """measured: what would be chosen is timed on this machine, and what runs slower than dense is not used. ignored: a layer may be
    slower although it has fewer FLOP. auto: measured for budgets of FLOP, as far as they can be kept so; the report says so."""
    latency_batch: int = EXAMPLES
    """Samples of the calls that are timed: 1 for a model that gets one image at a time, where other layers may be slower."""

    @property
    def accuracy_drop(self) -> float | None:
        """The points of accuracy of --budget, None where it has none."""
        return None if self.budget is None else Budget.parse(self.budget).accuracy_drop

    def layers(self, model: nn.Module) -> Filter:
        """The filter of `tenfold.plan`.

        Raises:
            ValueError: a pattern matches no layer.
        """
        found = survey(opened_view(model))
        for pattern in self.skip:
            if not any(fnmatch.fnmatchcase(name, pattern) for one in found for name in one.names):
                raise ValueError(f"--skip {pattern} matches no layer; the layers are {', '.join(one.name for one in found)}: correct it")
        if not self.skip:
            return self.filter or None
        return lambda _, name: _matches(name, self.filter or ("*",)) and not _matches(name, self.skip)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@Parameter(name="*", group=FINETUNING)
@dataclass(frozen=True)
class Training:
    """How the compressed model is trained."""

    epochs: int = 1
    """Passes over the training data."""
    lr: float | None = None
    """Learning rate; a safe one is chosen where not given."""
    batch_size: int = 128
    """Samples in a batch."""
    distill: bool = True
    """Learn from the original model's outputs as well as from the labels."""
    augment: Literal["none", "flip", "crop"] = "none"
    """flip: images are mirrored at random; crop: also cut out at random places."""
    precision: Precision = "float32"
    """Of products; auto: bfloat16 where the machine computes with it, which is faster there, else float32."""
    teacher_weight: float | None = None
    """The original model's share of the loss, 0 to 1, 0.9 where not given; the labels have the rest."""
    feature_weight: float = 0.0
    """Part of the original model's lessons that are on layers, not on outputs, 0 to 1."""
    sensitivity_weight: float = 0.0
    """Penalty that keeps factors from cancelling each other; 0.01 is gentle."""
    bound_lr: bool = False
    """Divide the learning rate of each layer by what its factors magnify a step."""
    rebuild: bool = False
    """Multiply with weights rebuilt from factors: faster for small convolutions."""
    channels_last: bool = False
    """Lay images out with channels last: faster convolutions on a CPU."""

    def check(self, has_teacher: bool) -> None:
        """Raises ValueError where a share of the loss is given to a teacher that there is none of."""
        if self.teacher_weight is not None and not (self.distill and has_teacher):
            raise ValueError(
                f"--teacher-weight is {self.teacher_weight:g} without a teacher; a model to learn from is needed: give --teacher in "
                "tenfold finetune and no --no-distill, or leave the weight out"
            )

    def run(
        self, small: nn.Module, data: Any, teacher: nn.Module | None, checkpoint: Path, seed: int, progress: Progress
    ) -> FinetuneHistory:
        """Trains a model in place, from the checkpoint where there is one."""
        return finetune(small, data, checkpoint=checkpoint, progress=progress, **self.options(teacher, seed))

    def options(self, teacher: nn.Module | None, seed: int) -> dict[str, Any]:
        """The arguments of `tenfold.finetune`."""
        return {
            "epochs": self.epochs,
            "teacher": teacher if self.distill else None,
            "lr": self.lr,
            "batch_size": self.batch_size,
            "augment": None if self.augment == "none" else self.augment,
            "precision": self.precision,
            "feature_weight": self.feature_weight,
            "sensitivity_weight": self.sensitivity_weight,
            "bound_lr": self.bound_lr,
            "rebuild": self.rebuild,
            "channels_last": self.channels_last,
            "seed": seed,
            **({} if self.teacher_weight is None else {"teacher_weight": self.teacher_weight}),
        }
