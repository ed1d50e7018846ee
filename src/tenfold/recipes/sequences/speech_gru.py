"""speech-gru: a GRU on spoken digits, four log spectra in a step (516 inputs).

Source: as `speech-lstm`.
Protocol: the same, with one GRU layer of 128 instead of the LSTM. The factorised input maps have 172 to 192 parameters instead of
198,144.
Command: tenfold train speech-gru --data fsdd/fsdd_5speakers.npz --out speech
Expected: not confirmed.
"""

from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.speech import DATA as DATA
from tenfold.recipes.sequences.speech import run_speech

TAKES = RECURRENT
MODES = "in=3x5x5x7,out=6x4x4x4"  # 525 inputs, of which 516 are used; 3 gates x 128
FORMATS = tuple(
    f"{text},{MODES}" for text in ("kcp:rank=2", "ttm:rank=2x2x1", "bt:rank=2,blocks=1", "tr:rank=3x2x2x2x2x2x2x2", "ht:rank=2")
)


def run(options: Options) -> Result:
    """The spoken digits with a GRU."""
    return run_speech(
        "speech-gru", "GRU", FORMATS if options.hidden is None else tuple(text.partition(",in=")[0] for text in FORMATS), options
    )
