"""ucf11-lstm: LSTMs on UCF11 (YouTube Action), frames of 160 x 120 x 3 flattened to 57,600 inputs, 11 classes.

Source: Yang, Krompass & Tresp 2017, arXiv 1707.01786 (TT-RNN) and Ye et al. 2018, arXiv 1712.05134 (BT-RNN), each with its published
script; in the same line Pan et al. 2019 (TR), Yin et al. 2021 (HT), Wang et al. 2020, arXiv 2008.09342 (Kronecker CP).
Protocol: there are two, whose accuracies must never be compared:
  tt-rnn  all frames of a clip, at most 1,492; 5-fold cross-validation, shuffled with the script's seed. A batch can need 5.5 GB.
  bt-rnn  6 random frames a clip, in order; one split, 80 % for training. The default: far fewer frames.
Both: pixel - 128, one LSTM of 256, Adam 1e-4, batch 16, dropout 0.25. Deviations here: dropout before the head only; a warm-up and a
cosine, gradients clipped at norm 1; start values of `models.Rnn`; no penalty on the head; inputs divided by 64, because a state of
57,600 numbers of size 100 saturates every gate; 100 epochs instead of 1,001 and 500.
Command: tenfold train ucf11-lstm --data UCF11_updated_mpg --protocol bt-rnn --out ucf11
Expected, as a later paper quotes (WACV 2021, README of oshindutta/VIB-based-LSTM-compression-for-Action-Recognition, without naming the
protocol): dense 69.7 %, TT 79.6, BT 85.3, TR 86.9, HT 87.9. Kronecker CP's own numbers are not known to us. Not confirmed: the videos
were not at hand.
"""

import dataclasses

from tenfold.data import UCF11_ALL_FRAMES, UCF11_SIX_FRAMES, Protocol
from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.training import Training
from tenfold.recipes.sequences.video import VideoExperiment

DATA = ("UCF11_updated_mpg", "action_youtube_naudio", "ucf11", "UCF11")
TAKES = (*RECURRENT, "protocol")
SCALE = 64.0
PROTOCOLS: dict[str, Protocol] = {
    "bt-rnn": dataclasses.replace(UCF11_SIX_FRAMES, scale=SCALE),
    "tt-rnn": dataclasses.replace(UCF11_ALL_FRAMES, scale=SCALE),
}
TRAINING = Training(epochs=100, batch_size=16, lr=1e-3, dense_lr=1e-4)


def run(options: Options) -> Result:
    """UCF11 by one of the protocols.

    Raises:
        ValueError: the protocol is not known.
    """
    name = options.protocol or "bt-rnn"
    if (protocol := PROTOCOLS.get(name)) is None:
        raise ValueError(
            f"there is no protocol {name!r} for UCF11; one of {', '.join(PROTOCOLS)} is needed: they are never mixed, choose one"
        )
    experiment = VideoExperiment(
        name="ucf11-lstm",
        protocol=f"{name}: {protocol.name}",
        open=lambda root, cache: protocol.open(root, cache=cache, n_threads=2, progress=options.progress),
        splits=lambda clips, seed: protocol.splits(clips, seed=protocol.seed + seed),
        training=TRAINING,
    )
    return experiment.run(options.find(DATA, is_folder=True), options)
