"""A small DLRM on planted clicks whose ranks are found, for the tests of resuming; run as a script it kills itself at a step."""

import os
import signal
import sys
from pathlib import Path

import torch

import tenfold
from tenfold.data.ctr_synthetic import PlantedClicks, SyntheticClicks
from tenfold.recipes.clicks.model import DLRM, TableSpec
from tenfold.recipes.clicks.training import ClickRun, ClickTraining, train_clicks

MODES = (5, 6, 7)
PLANTED = PlantedClicks((210, 210, 5), {0: MODES, 1: MODES}, effect=1.5)


def run(path: Path | None, kill_at: int | None = None) -> tuple[DLRM, ClickRun]:
    torch.manual_seed(0)
    tables = (TableSpec(210, tenfold.TTM(rank=4), MODES, (2, 2, 2)), TableSpec(210), TableSpec(5))
    net = DLRM(tables, 13, dim=8, bottom=(16,), top=(16,))

    def watch(_: str, done: int, total: int) -> None:
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    found = train_clicks(
        net,
        SyntheticClicks(PLANTED, 64, (0, 1280)),
        ClickTraining(64, epochs=2),
        1280,
        has_prior=True,
        checkpoint=path,
        save_every=1,
        progress=watch,
    )
    return net, found


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
