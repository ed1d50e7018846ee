"""Video: what the recipes on folders of videos share: decoding once, splits, loaders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tenfold.data import Split, VideoFolder, sequence_loader
from tenfold.recipes.finished_runs import digest_of
from tenfold.recipes.options import Options
from tenfold.recipes.sequences.experiment import Experiment
from tenfold.recipes.sequences.models import Rnn, SequenceClassifier
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.training import Training

HIDDEN = 256
DROPOUT = 0.25
PUBLISHED_SHAPES = (
    "kcp:rank=4,in=8x10x10x9x8,out=16x4x2x4x2",
    "ttm:rank=4,in=8x20x20x18,out=16x4x4x4",
    "bt:rank=4,blocks=2,in=8x20x20x18,out=16x4x4x4",
    "tr:rank=5x5x5x5x5x10x5x5x5x5x5x5x5,in=4x2x5x8x6x5x3x2,out=16x4x2x4x2",
    "ht:rank=4,inner_rank=5,in=8x10x10x9x8,out=16x4x2x4x2",
)
"""Input maps of an LSTM of 256 on 57,600 inputs, of which all but KCP's are those of published experiments; see papers/kcp_counts.py."""


@dataclass(frozen=True)
class VideoExperiment:
    """A folder of videos, read and split in one way.

    protocol: in words.
    open: the data set, from its folder and the folder for decoded frames.
    splits: of the data set, from a seed.
    """

    name: str
    protocol: str
    open: Callable[[Path, Path | None], VideoFolder]
    splits: Callable[[VideoFolder, int], Sequence[Split]]
    training: Training

    def run(self, data: Path, options: Options) -> Result:
        """The videos with LSTMs of all formats; frames are decoded once and kept in the folder for results."""
        cache = None if options.out is None else options.out / "frames"
        clips = self.open(data, cache)
        hidden = options.hidden or HIDDEN
        height, width = clips.size
        batch_size = options.batch_size or self.training.batch_size
        frames = f"{int(clips.lengths.sum())} frames {height}x{width}"
        is_usual = (height * width * 3, hidden) == (57_600, HIDDEN)
        experiment = Experiment(
            name=self.name,
            protocol=self.protocol,
            data=f"{data.name}: {len(clips)} clips of {len(clips.classes)} classes, {frames}, {len(clips.skipped)} files skipped",
            rnn=Rnn("LSTM", height * width * 3, hidden),
            head=lambda rnn: SequenceClassifier(rnn, hidden, len(clips.classes), DROPOUT),
            folds=lambda seed: [partial(_loaders, clips, split, batch_size, seed) for split in self.splits(clips, seed)],
            formats=PUBLISHED_SHAPES if is_usual else tuple(text.partition(",in=")[0] for text in PUBLISHED_SHAPES),
            training=self.training,
            digest=digest_of(clips.labels, clips.lengths, torch.tensor([one.path.stat().st_size for one in clips.files])),
        )
        return experiment.run(options)


def _loaders(clips: VideoFolder, split: Split, batch_size: int, seed: int) -> tuple[DataLoader, DataLoader]:
    train, test = split.of(clips)
    return sequence_loader(train, batch_size, shuffle=True, seed=seed), sequence_loader(test, batch_size)
