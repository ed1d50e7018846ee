"""series-lstm: an LSTM on time series of the UEA archive in .ts files.

Source: Japanese Vowels (Kudo et al. 1999), 12 channels, 9 speakers; any other pair of NAME_TRAIN.ts and NAME_TEST.ts, also gzipped, by
--data. Inputs are narrow here, so an input map has little to give; the wide one is the recurrent map: --recurrent-format.
Protocol: the archive's own training and test files; standardised by the training part; one LSTM layer of 128, a head on the state after
the last step. All networks alike: Adam, warm-up and cosine, gradients clipped at norm 1, the same steps.
Command: tenfold train series-lstm --data uea/JapaneseVowels_TRAIN.ts.gz --recurrent-format kcp:rank=8 --out series
Expected: not confirmed.
"""

from tenfold.data import read_series
from tenfold.recipes.finished_runs import digest_of_files
from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.experiment import Experiment
from tenfold.recipes.sequences.models import Rnn, SequenceClassifier
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.speech import one_fold
from tenfold.recipes.sequences.training import Training

DATA = ("uea/JapaneseVowels_TRAIN.ts.gz", "JapaneseVowels_TRAIN.ts.gz", "JapaneseVowels_TRAIN.ts")
TAKES = RECURRENT
HIDDEN = 128
FORMATS = ("kcp:rank=2,in=3x4,out=16x32", "ttm:rank=2,in=3x4,out=16x32")
TRAINING = Training(epochs=50, batch_size=16, lr=3e-3, dense_lr=1e-3)


def run(options: Options) -> Result:
    """The series with LSTMs.

    Raises:
        ValueError: the file's name has no TRAIN, or there is no file of the same name with TEST.
    """
    place = options.find(DATA)
    other = place.with_name(place.name.replace("_TRAIN", "_TEST"))
    if other == place or not other.exists():
        raise ValueError(
            f"the training data are {place.name}, without a test file {other.name} beside it; NAME_TRAIN.ts and NAME_TEST.ts in one folder "
            "are needed: rename them"
        )
    train = read_series(place)
    moments = train.moments()
    train, test = train.standardized(*moments), read_series(other, classes=train.classes).standardized(*moments)
    hidden = options.hidden or HIDDEN
    batch_size = options.batch_size or TRAINING.batch_size
    experiment = Experiment(
        name="series-lstm",
        protocol=f"{place.name} for training, {other.name} for testing",
        data=f"{place.name}: {len(train)} and {len(test)} series of {train.n_features} channels",
        rnn=Rnn("LSTM", train.n_features, hidden),
        head=lambda rnn: SequenceClassifier(rnn, hidden, len(train.classes)),
        folds=lambda seed: one_fold(train, test, batch_size, seed),
        formats=FORMATS if (train.n_features, hidden) == (12, HIDDEN) else ("kcp:rank=2", "ttm:rank=2"),
        training=TRAINING,
        digest=digest_of_files(place, other),
    )
    return experiment.run(options)
