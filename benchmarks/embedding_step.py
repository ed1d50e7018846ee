"""One training step of a TT-matrix embedding bag: 1e7 x 64, rank 16, 4096 bags of 10 ids, float32, torch operations alone.

A step is forward, backward from the mean square of the bags, and a plain SGD update. tenfold's EmbeddingBag against tensorly-torch's
FactorizedEmbedding ("blocktt", the same cores; its rows are summed over the bag, for which it has no operation; `pip install
tensorly-torch`), in turns within one run; ratios are theirs / ours of medians and of minima of CPU time, above 1 is faster. Ids are
uniform, which is the worst case for what ids share, or follow Zipf's law with exponent 1.05, as ids of clicks do; U/B is different ids
for each id, P/B different prefixes. Memory is the peak above what was there before the step, gradients among it: "tensor MB" of
storages alive, "process MB" of resident memory (Linux only). torch.nn.EmbeddingBag is measured with a hundredth of the rows: its whole
table and as large a gradient would take 5 GB.
Command: `python benchmarks/embedding_step.py --json benchmarks/results/embedding_step.json`, half a minute on one thread.
Goals: at least 4x faster than tensorly-torch, at most 120 MB.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import tenfold
from race import report
from rnn_step import process_peak
from tenfold.recipes.measure import peak_bytes

ROWS, DIM, RANK, BAGS, LENGTH = 10_000_000, 64, 16, 4096, 10
IN_MODES, OUT_MODES = (200, 200, 250), (4, 4, 4)
EXPONENT = 1.05
ROUNDS = 9
MEGABYTE = 1e6


def some_ids(kind: str, n_rows: int) -> Tensor:
    """(bags, length): uniform ids, or ids whose frequencies fall as Zipf's law says, the most frequent first."""
    generator = torch.Generator().manual_seed(0)
    if kind == "uniform":
        return torch.randint(0, n_rows, (BAGS, LENGTH), generator=generator)
    shares = torch.arange(1, n_rows + 1, dtype=torch.float64).pow(-EXPONENT).cumsum(0)
    points = torch.rand(BAGS, LENGTH, generator=generator, dtype=torch.float64) * shares[-1]
    return torch.searchsorted(shares, points).clamp_max(n_rows - 1)


def step_of(layer: nn.Module, call: Callable[[], Tensor]) -> Callable[[], None]:
    """A function that does one training step."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)

    def step() -> None:
        call().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def tensorly_torch() -> nn.Module | None:
    """tensorly-torch's layer; None, with a printed reason, where it is not installed."""
    try:
        from tltorch import FactorizedEmbedding
    except ImportError as error:
        print(f"tensorly-torch is left out: {error}; install it with pip install tensorly-torch")
        return None
    modes = {"tensorized_num_embeddings": IN_MODES, "tensorized_embedding_dim": OUT_MODES}
    return FactorizedEmbedding(ROWS, DIM, auto_tensorize=False, **modes, factorization="blocktt", rank=(1, RANK, RANK, 1))


def race(steps: dict[str, Callable[[], None]]) -> dict[str, tuple[float, float]]:
    """(median, minimum) milliseconds of CPU time of each step, in turns; other programs disturb it less than they do time on the wall."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if number >= 2:
                times[name].append((time.process_time() - start) * 1e3)
    return {name: (sorted(found)[len(found) // 2], min(found)) for name, found in times.items()}


def main() -> None:
    """Prints one row for each layer and kind of ids."""
    torch.manual_seed(0)
    table: Any = {"format": tenfold.TTM(rank=RANK), "in_modes": IN_MODES, "out_modes": OUT_MODES}
    ours = tenfold.nn.EmbeddingBag(ROWS, DIM, mode="sum", **table)
    theirs = tensorly_torch()
    rows = []
    for kind in ("uniform", "zipf"):
        ids = some_ids(kind, ROWS)
        steps = {"tenfold": step_of(ours, lambda ids=ids: ours(ids))}
        layers: dict[str, nn.Module] = {"tenfold": ours}
        if theirs is not None:
            layers["tensorly-torch"] = theirs
            steps["tensorly-torch"] = step_of(theirs, lambda ids=ids: theirs(ids).sum(1))
        layers["torch, 1e5 rows"] = dense = nn.EmbeddingBag(ROWS // 100, DIM, mode="sum")
        fewer = some_ids(kind, ROWS // 100)
        steps["torch, 1e5 rows"] = step_of(dense, lambda ids=fewer, dense=dense: dense(ids))
        memory = {name: (peak_bytes(step) / MEGABYTE, process_peak(step)) for name, step in steps.items()}
        times = race(steps)
        reuse = ours.reuse(ids)
        for name, layer in layers.items():
            row: dict[str, Any] = {"ids": kind, "U/B": reuse.unique_ratio, "P/B": reuse.prefix_ratio, "layer": name}
            row |= {"parameters": sum(p.numel() for p in layer.parameters()), "ms": times[name][0], "ms min": times[name][1]}
            if name == "tenfold" and theirs is not None:
                other = times["tensorly-torch"]
                row |= {"x tensorly": other[0] / times[name][0], "x tensorly min": other[1] / times[name][1]}
            tensors, process = memory[name]
            rows.append(row | {"tensor MB": tensors} | ({} if process is None else {"process MB": process}))
    report("embedding_step", rows)


if __name__ == "__main__":
    main()
