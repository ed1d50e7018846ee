"""ytc-lstm: LSTMs on YouTube Celebrities Face, frames of 160 x 120 x 3 flattened to 57,600 inputs, 47 classes.

Source: Yang, Krompass & Tresp 2017, arXiv 1707.01786, and its published script; also among the data of Wang et al. 2020, arXiv 2008.09342.
Protocol: all frames, at most 85; 5-fold cross-validation over clips, shuffled with the script's seed; one LSTM of 256, Adam 1e-3, batch 16,
101 epochs, dropout 0.25. Deviations here: those of `ucf11-lstm`; the dense network of the script has 225 hidden units, here 256 as all.
Command: tenfold train ytc-lstm --data ytceleb --out ytc
Expected: no number that we could confirm in a source.
"""

import dataclasses

from tenfold.data import YTC_ALL_FRAMES
from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.training import Training
from tenfold.recipes.sequences.video import VideoExperiment

DATA = ("ytceleb", "ytcelebrity", "youtube_celebrities")
TAKES = RECURRENT
PROTOCOL = dataclasses.replace(YTC_ALL_FRAMES, scale=64.0)
TRAINING = Training(epochs=101, batch_size=16, lr=1e-3, dense_lr=1e-4)


def run(options: Options) -> Result:
    """YouTube Celebrities Face."""
    experiment = VideoExperiment(
        name="ytc-lstm",
        protocol=PROTOCOL.name,
        open=lambda root, cache: PROTOCOL.open(root, cache=cache, n_threads=2, progress=options.progress),
        splits=lambda clips, seed: PROTOCOL.splits(clips, seed=PROTOCOL.seed + seed),
        training=TRAINING,
    )
    return experiment.run(options.find(DATA, is_folder=True), options)
