"""frappe: which app is used in which context, by a factorisation machine, the ranks of its table found by training.

Source: Baltrunas et al. 2015, arXiv 1505.03014 (the data); ranks by tenfold.bayes (Hawkins and Zhang 2020, arXiv 2010.08689).
Protocol: the rows of one file are split 8 : 1 : 1 at random by a fixed seed; settings are chosen on the second part, the third is tested
once. So numbers of papers that train on the three published files are others.
Command: tenfold train frappe --data FOLDER --out frappe
Expected: a table of at least 10 times fewer values, with an AUC within 1 % of the dense one's; its log loss
is higher by more than that so far. No published number is confirmed by it.
"""

from dataclasses import replace

from tenfold.data.frappe import read_frappe
from tenfold.recipes.options import Options
from tenfold.recipes.recommenders.experiment import FmExperiment
from tenfold.recipes.recommenders.training import FmTraining
from tenfold.recipes.shown import Table

DATA = ("frappe/validation.npz", "validation.npz", "frappe/frappe.validation.libfm", "frappe.validation.libfm")
TAKES = ("formats", "epochs", "batch_size")


def run(options: Options) -> Table:
    """The table of all networks."""
    place = options.find(DATA)
    rows = read_frappe(place)
    common = FmTraining(epochs=15, batch_size=1024)
    return FmExperiment(
        name="frappe",
        task="clicks",
        data=f"Frappe, {len(rows):,} rows of ten fields.",
        rows=rows,
        dim=32,
        formats=("svd:rank=12",),
        grid=tuple(replace(common, lr=lr, penalty=penalty) for lr in (3e-3, 5e-3) for penalty in (0.003, 0.01)),
        found_grid=tuple(replace(common, lr=lr, temperature=temperature) for lr in (5e-3, 1e-2) for temperature in (0.4, 0.5)),
    ).run(options)
