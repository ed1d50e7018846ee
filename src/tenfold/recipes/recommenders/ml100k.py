"""ml100k: MovieLens-100k ratings by a factorisation machine, the ranks of its table found by training.

Source: Harper and Konstan 2015, doi:10.1145/2827872 (the data); ranks by tenfold.bayes (Hawkins and Zhang 2020, arXiv 2010.08689).
Protocol: the ratings are split 8 : 1 : 1 at random by a fixed seed; settings are chosen on the second part, the third is tested once. With
the fields user and item the machine is matrix factorisation with biases. AUC is that of ratings of at least 4, with the same predictions.
Command: tenfold train ml100k --data FOLDER --out ml100k
Expected: a table of at least 10 times fewer values, with RMSE and AUC within 1 % of the dense one's.
No published number is confirmed by it.
"""

from dataclasses import replace

from tenfold.data.movielens import read_ratings
from tenfold.recipes.options import Options
from tenfold.recipes.recommenders.experiment import FmExperiment
from tenfold.recipes.recommenders.training import FmTraining
from tenfold.recipes.shown import Table

DATA = ("ml100k/train90000.npz", "train90000.npz", "ml-100k/u.data", "u.data")
TAKES = ("formats", "epochs", "batch_size")
N_USERS, N_ITEMS = 943, 1682


def run(options: Options) -> Table:
    """The table of all networks."""
    place = options.find(DATA)
    rows = read_ratings(place, n_users=N_USERS, n_items=N_ITEMS)
    common = FmTraining(epochs=15, batch_size=1024)
    return FmExperiment(
        name="ml100k",
        task="ratings",
        data=f"MovieLens-100k, {len(rows):,} ratings.",
        rows=rows,
        dim=32,
        formats=("svd:rank=12",),
        grid=tuple(replace(common, lr=lr, penalty=penalty) for lr in (2e-3, 4e-3) for penalty in (0.03, 0.06)),
        found_grid=tuple(replace(common, lr=lr, temperature=temperature) for lr in (5e-3, 1e-2) for temperature in (1.2, 1.5)),
    ).run(options)
