"""speech-lstm: an LSTM on spoken digits, four log spectra in a step (516 inputs).

Source: Free Spoken Digit Dataset (Jackson et al. 2018), 2,500 recordings of five speakers at 8 kHz. Speech is among the data of the
journal version of Kronecker CP (Wang et al. 2020, arXiv 2008.09342), but these are other data: nothing here repeats its numbers.
Protocol: the official split, takes 0-4 of every digit and speaker for testing (250 recordings); log magnitudes of 256 samples every 80,
four of them in a step, standardised by the training part; one LSTM layer of 128, a head on the state after the last step. All networks
alike: Adam, warm-up and cosine, gradients clipped at norm 1, the same steps. The factorised input maps (KCP, TTM, BT, TR, HT) have 184
to 204 parameters instead of 264,192.
Command: tenfold train speech-lstm --data fsdd/fsdd_5speakers.npz --out speech
Expected (measured, three seeds, table in docs/formats.md): dense 99.2 %, KCP 97.9 +- 0.8, TTM 98.5 +- 0.6, BT 98.3 +- 0.9, TR 96.5 +- 1.9,
HT 98.0 +- 0.7 %. No published number exists for these data and this network.
"""

from tenfold.recipes.options import RECURRENT, Options
from tenfold.recipes.sequences.results import Result
from tenfold.recipes.sequences.speech import DATA as DATA
from tenfold.recipes.sequences.speech import run_speech

TAKES = RECURRENT
MODES = "in=3x5x5x7,out=8x4x4x4"  # 525 inputs, of which 516 are used; 4 gates x 128
FORMATS = tuple(
    f"{text},{MODES}" for text in ("kcp:rank=2", "ttm:rank=2x2x1", "bt:rank=2,blocks=1", "tr:rank=3x2x2x2x2x2x2x2", "ht:rank=2")
)


def run(options: Options) -> Result:
    """The spoken digits with an LSTM."""
    return run_speech(
        "speech-lstm", "LSTM", FORMATS if options.hidden is None else tuple(text.partition(",in=")[0] for text in FORMATS), options
    )
