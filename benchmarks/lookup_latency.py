"""Latency of tenfold.nn.Embedding against torch.nn.Embedding, in eval and in a training step, float32.

A table of 100,000 x 64 in five formats; 1 to 16,384 ids, drawn evenly. A training step is forward and backward of the lookup, with
gradients of all parameters; that of the dense table is as large as the table. Ratios are dense / factorised of medians: above 1 is faster
than dense. Command: `python benchmarks/lookup_latency.py --json benchmarks/results/lookup.json`, two minutes.
"""

from typing import Any

import torch
from torch import nn

import tenfold
from race import race, report, training_step

ROWS, WIDTH = 100_000, 64
FORMATS: dict[str, dict[str, Any]] = {
    "SVD 16": {"format": tenfold.SVD(16)},
    "CP 16": {"format": tenfold.CP(16)},
    "TT 16": {"format": tenfold.TT(16)},
    "TTM 16": {"format": tenfold.TTM(16)},
    "TTM 16, 3 cores": {"format": tenfold.TTM(16), "in_modes": (40, 50, 50), "out_modes": (4, 4, 4)},
}


def main() -> None:
    """Prints one row for each format and number of ids."""
    rows = []
    for name, options in FORMATS.items():
        dense, small = nn.Embedding(ROWS, WIDTH), tenfold.nn.Embedding(ROWS, WIDTH, **options)
        for n_ids in (1, 64, 512, 4096, 16384):
            ids = torch.randint(0, ROWS, (n_ids,), generator=torch.Generator().manual_seed(0))
            small.eval()
            with torch.no_grad():
                times = race({"dense": lambda: dense(ids), "small": lambda: small(ids)}, 7)  # noqa: B023 - run at once
            times |= race({"train dense": training_step(dense, ids), "train": training_step(small.train(), ids)}, 7)
            row = {"table": name, "ids": n_ids, "dense ms": times["dense"][0], "ms": times["small"][0]}
            row |= {"x": times["dense"][0] / times["small"][0], "train dense ms": times["train dense"][0], "train ms": times["train"][0]}
            rows.append(row | {"train x": times["train dense"][0] / times["train"][0]})
    report("lookup_latency", rows)


if __name__ == "__main__":
    main()
