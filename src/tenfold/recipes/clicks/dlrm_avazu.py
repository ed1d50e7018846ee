"""dlrm-avazu: DLRM on click data in Avazu's format, the ranks of its largest tables found by training.

Source: as the recipe dlrm; the data of Avazu's challenge (Kaggle 2014).
Protocol: as the recipe dlrm; the hour gives the two numbers of the bottom MLP and the day of the week as a category, the id is left out.
Command: tenfold train dlrm-avazu --data avazu/train.csv.gz --out avazu
Expected: not confirmed on the whole data. On a sample of 8,087 rows AUC 0.698 dense, 0.693 ranks found, 0.695 hashed, 0.680 without the
tables.
"""

from tenfold.data.avazu import AVAZU, read_avazu
from tenfold.recipes.clicks.dlrm import FORMAT, LARGE, LARGE_BYTES, SMALL, chosen, one_format
from tenfold.recipes.clicks.experiment import ClickExperiment
from tenfold.recipes.options import Options
from tenfold.recipes.shown import Table

DATA = ("avazu/train.csv.gz", "avazu/train.gz", "avazu/train", "train.gz", "train.csv.gz")
TAKES = ("formats", "epochs", "batch_size", "hidden", "lr", "dense_lr", "temperature")


def run(options: Options) -> Table:
    """DLRM and its controls on Avazu's data."""
    files = read_avazu(options.find(DATA))
    training = LARGE if files.paths[0].stat().st_size >= LARGE_BYTES else SMALL
    experiment = ClickExperiment(
        "dlrm-avazu", files, len(AVAZU.inputs), one_format(options, FORMAT), chosen(training, options), options.hidden
    )
    return experiment.run(options)
