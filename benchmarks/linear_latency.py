"""Latency of tenfold.nn.Linear against torch.nn.Linear in eval, eager and under torch.compile, and of a training step, in float32.

Shapes: (57600 -> 1024 as in an LSTM on video, every format at its published rank; 1024 -> 4096 at a quarter of the weights). A training
step is forward and backward with gradients of the weight only, as for a first layer. Ratios are dense / factorised of medians and of
minima: above 1 is faster than dense; `MAC` are multiply-adds a row of the plan. Command:
`python benchmarks/linear_latency.py --json benchmarks/results/linear.json`, about four minutes on two cores.
"""

from typing import Any

import torch
from torch import nn

import tenfold
from race import race, report, training_step

BATCHES = (1, 16, 96)
COMPILED = 16  # the batch size at which generated code is timed too
FOUR = {"in_modes": (8, 20, 20, 18), "out_modes": (16, 4, 4, 4)}
FIVE = {"in_modes": (8, 10, 10, 9, 8), "out_modes": (16, 4, 2, 4, 2)}
RING = {"in_modes": (4, 2, 5, 8, 6, 5, 3, 2), "out_modes": (16, 4, 2, 4, 2)}


def layers() -> dict[str, tuple[nn.Linear, nn.Module]]:
    """Dense and factorised layers by name."""
    wide, narrow = nn.Linear(57600, 1024), nn.Linear(1024, 4096)
    first = {
        "TTM 4": (tenfold.TTM(4), FOUR),
        "CP 50": (tenfold.CP(50), FOUR),
        "KCP 1": (tenfold.KCP(1), FIVE),
        "KCP 4": (tenfold.KCP(4), FIVE),
        "TR 5": (tenfold.TR(5), RING),
        "HT 4, inner 5": (tenfold.HT(4, inner_rank=5), FIVE),
        "BT 4, 2 blocks": (tenfold.BT(4, blocks=2), FOUR),
    }
    found: dict[str, tuple[nn.Linear, nn.Module]] = {
        f"57600->1024 {name}": (wide, tenfold.nn.Linear(57600, 1024, format=format, **modes)) for name, (format, modes) in first.items()
    }
    for format in (tenfold.SVD(204), tenfold.TTM(8)):
        found[f"1024->4096 {type(format).__name__} {format.rank}"] = (narrow, tenfold.nn.Linear(1024, 4096, format=format))
    found["64->64 SVD 16"] = (nn.Linear(64, 64), tenfold.nn.Linear(64, 64, format=tenfold.SVD(16)))
    return found


def row(name: str, dense: nn.Linear, small: Any, batch: int) -> dict[str, Any]:
    """Times of one layer at one batch size."""
    x = torch.randn(batch, dense.in_features)
    small.eval()
    cases = {"dense": lambda: dense(x), "eager": lambda: small(x)}
    if batch == COMPILED:
        compiled = torch.compile(small)
        cases["compiled"] = lambda: compiled(x)
    with torch.no_grad():
        times = race(cases)
    plan = small.plan(batch)
    found = {"layer": name, "batch": batch, "dense ms": times["dense"][0], "MAC": plan.flops // 2, "steps": len(plan.steps)}
    times |= race({"train dense": training_step(dense, x), "train": training_step(small.train(), x)}, 10)
    for case, twin in (("eager", "dense"), ("compiled", "dense"), ("train", "train dense")):
        if case in times:
            (median, least), (dense_median, dense_least) = times[case], times[twin]
            found |= {f"{case} ms": median, f"{case} x": dense_median / median, f"{case} x min": dense_least / least}
    return found | {"is dense": plan.is_dense}


def main() -> None:
    """Prints one row for each layer and batch size."""
    rows = []
    for name, (dense, small) in layers().items():
        for batch in BATCHES:
            rows.append(row(name, dense, small, batch))
    report("linear_latency", rows)


if __name__ == "__main__":
    main()
