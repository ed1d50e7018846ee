"""Speech: what the recipes on spoken digits share: data, features, splits."""

from functools import partial
from typing import Literal

from torch.utils.data import DataLoader

from tenfold.data import Sequences, Spectrogram, sequence_loader, spoken_digits
from tenfold.recipes.finished_runs import digest_of_files
from tenfold.recipes.options import Options
from tenfold.recipes.sequences.experiment import Experiment, Fold
from tenfold.recipes.sequences.models import Rnn, SequenceClassifier
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.training import Training

DATA = ("fsdd/fsdd_5speakers.npz", "fsdd_5speakers.npz", "free-spoken-digit-dataset/recordings")
FEATURES = Spectrogram(window=256, hop=80, n_stacked=4)  # 4 spectra of 129 bins in one step: 516 inputs
HIDDEN = 128
TRAINING = Training(epochs=30, batch_size=32, lr=5e-3, dense_lr=1e-3)


def run_speech(name: str, cell: Literal["LSTM", "GRU"], formats: tuple[str, ...], options: Options) -> Result:
    """The spoken digits with one kind of recurrent network."""
    place = options.find(DATA, is_folder=True)
    hidden = options.hidden or HIDDEN
    batch_size = options.batch_size or TRAINING.batch_size
    train, test = spoken_digits(place, FEATURES)
    experiment = Experiment(
        name=name,
        protocol="official split: takes 0-4 of every digit and speaker are for testing",
        data=f"{place.name}: {len(train)} training and {len(test)} test recordings, {train.n_features} inputs",
        rnn=Rnn(cell, train.n_features, hidden),
        head=lambda rnn: SequenceClassifier(rnn, hidden, len(train.classes)),
        folds=lambda seed: one_fold(train, test, batch_size, seed),
        formats=formats,
        training=TRAINING,
        digest=digest_of_files(place),
    )
    return experiment.run(options)


def one_fold(train: Sequences, test: Sequences, batch_size: int, seed: int) -> list[Fold]:
    """The one fold of data with an official split, in padded batches; the order of the training part follows from the seed."""
    return [partial(_loaders, train, test, batch_size, seed)]


def _loaders(train: Sequences, test: Sequences, batch_size: int, seed: int) -> tuple[DataLoader, DataLoader]:
    return sequence_loader(train, batch_size, shuffle=True, seed=seed), sequence_loader(test, batch_size)
