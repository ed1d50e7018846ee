"""clips-lstm: an LSTM on short surveillance clips, fight or no fight, frames flattened to 14,400 inputs.

Source: the experiment is that of the tensor-train and Kronecker CP recurrent networks (Yang, Krompass & Tresp 2017, arXiv 1707.01786;
Wang et al. 2020, arXiv 2008.09342) on data that are free to use: fight-detection-surv-dataset (Akti et al. 2019), 250 clips of 16 frames.
Protocol: every seed shuffles the clips into 5 folds with equal shares of both classes; the score of a seed is over all 250 clips, each
tested once. Inputs are the absolute differences of successive frames, 15 steps, divided by 16, which makes their root mean square about
1: on the pixels themselves neither these networks nor simple classifiers get far beyond chance. Clips are mirrored and shifted by up to
4 pixels at random while training. One LSTM layer of 128, a head on its last state. All networks alike: Adam, warm-up and cosine,
gradients clipped at norm 1, the same steps; KCP, TTM, BT, TR and HT with nearly the same number of parameters in the input map, 4,300
to 4,800 times fewer than dense.
Command: tenfold train clips-lstm --data fight_video/clips250_16x60x80.npz --out clips
Expected: no published number exists for this protocol. Measured with --folds 2 --epochs 15 (three seeds, table in docs/formats.md): dense
71.7 +- 1.5 %, KCP 76.0 +- 1.7, TTM 74.3 +- 1.2, BT 72.3 +- 4.7, TR 74.0 +- 1.7, HT 76.7 +- 2.3 %. All five folds are not confirmed.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from tenfold.data import Clips, Split, k_fold, read_clips
from tenfold.data.sequences import Sample
from tenfold.recipes.finished_runs import digest_of_files
from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.experiment import Experiment, Fold
from tenfold.recipes.sequences.models import Rnn, SequenceClassifier
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.training import Training

DATA = ("fight_video/clips250_16x60x80.npz", "clips250_16x60x80.npz")
TAKES = RECURRENT
N_FOLDS = 5
HIDDEN = 128
DROPOUT = 0.25
MOTION_SCALE = 16.0  # grey levels
MODES = "in=60x4x60,out=8x16x4"  # rows, quarters of a row, 20 columns with 3 colours; 4 gates x 128
FORMATS = (
    f"kcp:rank=2,{MODES}",
    f"ttm:rank=2,{MODES}",
    "bt:rank=1x2x4x4,blocks=2,in=60x20x4x3,out=8x4x4x4",
    f"tr:rank=3x3x3x4x3x3,{MODES}",
    f"ht:rank=2,{MODES}",
)
OTHER_SIZES = ("kcp:rank=8", "ttm:rank=4", "bt:rank=3", "tr:rank=5", "ht:rank=6")
TRAINING = Training(epochs=30, batch_size=16, lr=2e-3, dense_lr=3e-4)


def run(options: Options) -> Result:
    """The clips with the recipe's networks, or those of the options."""
    place = options.find(DATA)
    clips = read_clips(place)
    height, width = clips.size
    motion = Motion(clips)
    n_inputs = motion[0][0].shape[1]
    hidden = options.hidden or HIDDEN
    is_usual = (n_inputs, hidden) == (14_400, HIDDEN)
    experiment = Experiment(
        name="clips-lstm",
        protocol=f"{N_FOLDS}-fold cross-validation over clips, shuffled by the seed, classes in equal shares",
        data=f"{place.name}: {len(clips)} clips of {len(clips.frames(0))} frames {height}x{width}, differences of frames",
        rnn=Rnn("LSTM", n_inputs, hidden),
        head=lambda rnn: SequenceClassifier(rnn, hidden, int(clips.labels.max()) + 1, DROPOUT),
        folds=partial(_folds, motion, clips.labels),
        formats=FORMATS if is_usual else OTHER_SIZES,
        training=TRAINING,
        augment=MirrorAndShift(height, width),
        digest=digest_of_files(place),
    )
    return experiment.run(options)


def _folds(motion: "Motion", labels: Tensor, seed: int) -> list[Fold]:
    return [partial(_parts, motion, split) for split in k_fold(len(motion), N_FOLDS, seed=seed, labels=labels)]


def _parts(motion: "Motion", split: Split) -> tuple[Subset[Sample], Subset[Sample]]:
    return split.of(motion)


class Motion(Dataset[Sample]):
    """What moves in clips: (absolute differences of successive frames / 16 (steps - 1, inputs), class)."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> Sample:
        frames, label = self.clips[position]
        return frames.diff(dim=0).abs().mul_(self.clips.scale / MOTION_SCALE), label


@dataclass(frozen=True)
class MirrorAndShift:
    """Flattened frames (batch, steps, height * width * channels), each clip mirrored at random and shifted; what comes in is the border."""

    height: int
    width: int
    most: int = 4

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """The changed clips."""
        clips = inputs.unflatten(2, (self.height, self.width, -1))
        shifts = torch.randint(-self.most, self.most + 1, (len(clips), 2), generator=generator)
        is_mirrored = torch.rand(len(clips), generator=generator) < 0.5
        changed = []
        for clip, (down, right), mirrored in zip(clips, shifts.tolist(), is_mirrored.tolist(), strict=True):
            rows = (torch.arange(self.height) - down).clamp(0, self.height - 1)
            columns = (torch.arange(self.width) - right).clamp(0, self.width - 1)
            changed.append(clip[:, rows][:, :, columns.flip(0) if mirrored else columns])
        return torch.stack(changed).flatten(2)
