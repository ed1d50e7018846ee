"""charlm-lstm: a character language model, two LSTM layers of 128.

Source: the model is that of ml5's charRNN (embedding, two LSTM layers of 128, softmax); the text tiny Shakespeare (Karpathy 2015), or
any other text file by --data.
Protocol: the text cut into 90 % for training, 5 % that is left out, and the last 5 % for testing, in windows of 100 characters without a
state carried between them; scores are bits for each character. All networks alike: Adam, warm-up and cosine, gradients clipped at norm
1, the same steps. The two input maps have 6.4 times fewer parameters than dense at equal counts; --recurrent-format for the recurrent ones.
Command: tenfold train charlm-lstm --data chartext/tinyshakespeare.txt.gz --out charlm
Expected: not confirmed.
"""

from functools import partial
from typing import Any

from torch import Tensor

from tenfold.data import Vocabulary, cut_text, read_text, windows
from tenfold.recipes.finished_runs import digest_of_files
from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.experiment import Experiment
from tenfold.recipes.sequences.models import CharacterModel, Rnn
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.training import Training

DATA = ("chartext/tinyshakespeare.txt.gz", "tinyshakespeare.txt.gz", "tinyshakespeare.txt")
TAKES = RECURRENT
HIDDEN = 128
LENGTH = 100
PARTS = (0.9, 0.05, 0.05)
MODES = "in=8x16,out=16x32"
FORMATS = (f"kcp:rank=16,{MODES}", f"ttm:rank=16,{MODES}", "svd:rank=16")
TRAINING = Training(epochs=10, batch_size=64, lr=5e-3, dense_lr=2e-3)


def run(options: Options) -> Result:
    """A text with character models."""
    place = options.find(DATA)
    text = read_text(place)
    vocabulary = Vocabulary.of(text)
    train, _, test = cut_text(vocabulary.encode(text), PARTS)
    hidden = options.hidden or HIDDEN
    experiment = Experiment(
        name="charlm-lstm",
        protocol=f"first {PARTS[0]:.0%} of the text for training, last {PARTS[2]:.0%} for testing, windows of {LENGTH} characters",
        data=f"{place.name}: {len(text)} characters of {len(vocabulary)} kinds",
        rnn=Rnn("LSTM", hidden, hidden, n_layers=2),
        head=lambda rnn: CharacterModel(rnn, hidden, hidden, len(vocabulary)),
        folds=lambda seed: [partial(_parts, train, test)],
        formats=FORMATS if hidden == HIDDEN else ("kcp:rank=16", "ttm:rank=8", "svd:rank=16"),
        training=TRAINING,
        metric="bits per character",
        digest=digest_of_files(place),
    )
    return experiment.run(options)


def _parts(train: Tensor, test: Tensor) -> tuple[Any, Any]:
    return windows(train, LENGTH), windows(test, LENGTH)
