"""Latency of tenfold.nn.Linear in eval against torch.nn.Linear, eager and under torch.compile, in float32.

Shapes: (57600 -> 1024 with four modes, TT-matrix rank 4; 1024 -> 4096 at a quarter of the weights).
Ratios are dense / factorised of medians and of minima: above 1 is faster than dense. Command:
`python benchmarks/linear_latency.py --json benchmarks/results/linear.json`, about a minute on two cores.
"""

import torch
from torch import nn

import tenfold
from race import race, report

BATCHES = (1, 16, 256)


def layers() -> dict[str, tuple[nn.Module, nn.Module]]:
    """Dense and factorised layers by name."""
    wide = {"in_modes": (8, 20, 20, 18), "out_modes": (16, 4, 4, 4)}
    return {
        "57600->1024 TTM 4": (nn.Linear(57600, 1024), tenfold.nn.Linear(57600, 1024, format=tenfold.TTM(4), **wide)),
        "57600->1024 CP 50": (nn.Linear(57600, 1024), tenfold.nn.Linear(57600, 1024, format=tenfold.CP(50), **wide)),
        "1024->4096 SVD 204": (nn.Linear(1024, 4096), tenfold.nn.Linear(1024, 4096, format=tenfold.SVD(204))),
        "1024->4096 TTM 8": (nn.Linear(1024, 4096), tenfold.nn.Linear(1024, 4096, format=tenfold.TTM(8))),
        "64->64 SVD 16": (nn.Linear(64, 64), tenfold.nn.Linear(64, 64, format=tenfold.SVD(16))),
    }


def main() -> None:
    """Prints one row for each layer and batch size."""
    rows = []
    for name, (dense, small) in layers().items():
        for batch in BATCHES:
            x = torch.randn(batch, dense.in_features)
            compiled = torch.compile(small.eval())
            with torch.no_grad():
                times = race({"dense": lambda: dense(x), "eager": lambda: small(x), "compiled": lambda: compiled(x)})  # noqa: B023
            row = {"layer": name, "batch": batch, "dense ms": times["dense"][0]}
            for case in ("eager", "compiled"):
                (median, least), (dense_median, dense_least) = times[case], times["dense"]
                row |= {f"{case} ms": median, f"{case} x": dense_median / median, f"{case} x min": dense_least / least}
            plan = small.plan(batch)
            rows.append(row | {"steps": len(plan.steps), "is dense": plan.is_dense})
    report("linear_latency", rows)


if __name__ == "__main__":
    main()
