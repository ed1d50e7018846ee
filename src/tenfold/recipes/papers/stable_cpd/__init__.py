"""Stable CP of pretrained convolutions (arXiv 2008.05441): accuracy against FLOP, and what correction is worth in fine-tuning.

Command: `tenfold reproduce stable-cpd --data DATA --out OUT`, hours on two cores; `--only resnet20 --only accuracy` and `--budgets 0.5`
narrow it, finished cells are kept. DATA holds networks.py with `load`, loaders.py with data sets of (input, target), and weights/.

The paper's networks and ImageNet are not needed, so its rows are not repeated but shown beside ours: `published`. What can be confirmed on
any network is its claim: corrected factors stand fine-tuning that uncorrected ones do not.

    networks.py    the pretrained networks and their images
    methods.py     CP, CP-EPC, TKD-CPD-EPC, Tucker-2, SVD and auto
    plain.py       CP as the field does it, the baseline
    accuracy.py    accuracy against FLOP, weight and output metric, before and after fine-tuning
    stability.py   the same fine-tuning of plain and corrected CP
    published.py   the paper's rows, confirmed or not
    picture.py     accuracy against FLOP as SVG
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from tenfold.files import write_text
from tenfold.recipes.papers.stable_cpd import accuracy, published, stability
from tenfold.recipes.papers.stable_cpd.networks import NETWORKS, case
from tenfold.recipes.papers.stable_cpd.picture import picture
from tenfold.recipes.reproduction import Request, Table, markdown_file

EXPERIMENTS = ("accuracy", "stability")
PARTS = (*EXPERIMENTS, *(network.name for network in NETWORKS))
QUICK_NOTE = "--quick: these accuracies say that everything works, nothing more"


@dataclass(frozen=True)
class StableCpdReproduction:
    """What was found.

    cells: of accuracy against FLOP, by network. missing: for each network without files, what was looked for.
    """

    cells: dict[str, tuple[accuracy.Cell, ...]]
    trials: tuple[stability.Trial, ...]
    missing: tuple[tuple[str, str], ...]
    efforts: tuple[accuracy.Effort, stability.Effort]
    is_quick: bool

    def data(self) -> dict[str, Any]:
        return {
            "paper": "stable-cpd",
            "accuracy": {name: [dataclasses.asdict(cell) for cell in cells] for name, cells in self.cells.items()},
            "stability": [{**dataclasses.asdict(one), "is_stable": one.is_stable} for one in self.trials],
            "efforts": dict(zip(EXPERIMENTS, map(dataclasses.asdict, self.efforts), strict=True)),
            "published": [dict(zip(published.COLUMNS, row, strict=True)) for row in published.ROWS],
            "missing": dict(self.missing),
        }

    def markdown(self) -> str:
        return markdown_file("Stable CP of pretrained convolutions (arXiv 2008.05441)", self.tables(), self.notes())

    def tables(self) -> list[Table]:
        found = [accuracy.table(cells, self.efforts[0]) for cells in self.cells.values()]
        if self.trials:
            found.append(stability.table(self.trials, self.efforts[1]))
        return [*found, published.table()]

    def notes(self) -> list[str]:
        said = [f"{name}: not run, its files are not there ({wanted})." for name, wanted in self.missing]
        return [*said, *([QUICK_NOTE] if self.is_quick and (self.cells or self.trials) else [])]


def reproduce(request: Request) -> StableCpdReproduction:
    """Accuracy against FLOP and the stability of fine-tuning, on the networks whose files are there; the paper's rows in any case.

    quick: one network, one budget, few images and steps.

    Raises:
        ValueError: a part is asked for that there is none of, or files are there but cannot be read.
    """
    chosen = request.chosen(PARTS)
    names = [one for one in chosen if one not in EXPERIMENTS] or [network.name for network in NETWORKS]
    experiments = [one for one in chosen if one in EXPERIMENTS] or list(EXPERIMENTS)
    efforts = (accuracy.QUICK, stability.QUICK) if request.is_quick else (accuracy.Effort(), stability.Effort())
    budgets = request.budgets or ((0.5,) if request.is_quick else ())
    efforts = (dataclasses.replace(efforts[0], budgets=budgets), efforts[1])
    if request.is_quick:
        request = dataclasses.replace(request, seeds=request.seeds[:1])
    cells: dict[str, tuple[accuracy.Cell, ...]] = {}
    trials: list[stability.Trial] = []
    missing = []
    for network in (one for one in NETWORKS if one.name in names):
        files = None if request.data is None else [request.data / "networks.py", request.data / "loaders.py", network.place(request.data)]
        if request.data is None or not all(file.exists() for file in files or ()):
            missing.append((network.name, f"networks.py, loaders.py and weights/{network.weights}.safetensors"))
            continue
        if request.is_quick and (cells or trials):
            continue
        if "accuracy" in experiments:
            mine = case(network, request.data, n_train=efforts[0].n_train, n_test=efforts[0].n_test)
            cells[network.name] = tuple(accuracy.cells(mine, request, efforts[0]))
            if request.out is not None:
                write_text(request.out / f"{network.name}.svg", picture(cells[network.name]))
        if "stability" in experiments and (network.name in stability.NETWORKS or network.name in request.only):
            mine = case(network, request.data, n_train=efforts[1].n_train, n_test=efforts[1].n_test)
            trials += stability.trials(mine, request, efforts[1])
    return StableCpdReproduction(cells, tuple(trials), tuple(missing), efforts, request.is_quick)
