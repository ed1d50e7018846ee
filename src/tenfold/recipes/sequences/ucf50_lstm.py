"""ucf50-lstm: LSTMs on UCF50, frames of 160 x 120 x 3 flattened to 57,600 inputs, 50 classes.

Source: UCF50 is among the data of Wang et al. 2020, arXiv 2008.09342; its settings there are not known to us.
Protocol: our own: 6 frames a clip, evenly spread; 5 folds over groups, so that no clip is tested whose source was trained on (data: Reddy &
Shah 2012). One LSTM of 256; trained as `ucf11-lstm`.
Command: tenfold train ucf50-lstm --data UCF50 --out ucf50
Expected: no published number exists for this protocol; not confirmed.
"""

from pathlib import Path

from tenfold.data import Evenly, VideoFolder, k_fold, ucf50
from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.training import Training
from tenfold.recipes.sequences.video import VideoExperiment

DATA = ("UCF50", "ucf50")
TAKES = RECURRENT
N_FRAMES = 6
N_FOLDS = 5
TRAINING = Training(epochs=100, batch_size=16, lr=1e-3, dense_lr=1e-4)


def run(options: Options) -> Result:
    """UCF50, split by groups."""

    def read(root: Path, cache: Path | None) -> VideoFolder:
        return VideoFolder(root, ucf50, sampling=Evenly(N_FRAMES), cache=cache, n_threads=2, progress=options.progress)

    experiment = VideoExperiment(
        name="ucf50-lstm",
        protocol=f"{N_FRAMES} frames evenly spread, {N_FOLDS} folds over groups (not a published protocol)",
        open=read,
        splits=lambda clips, seed: k_fold(len(clips), N_FOLDS, seed=seed, groups=clips.groups),
        training=TRAINING,
    )
    return experiment.run(options.find(DATA, is_folder=True), options)
