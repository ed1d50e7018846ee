"""Time to the error of tensorly's parafac on the 3x3 kernels of the pretrained ResNet-20, by `als` and by `cp_als`.

Goal: generic ALS in no more time, CP-ALS in at most a third. Kernels are folded to
out x 9 x in, at the rank that halves the dense FLOP. tensorly: 100 sweeps, its SVD start, no early stop, the same dtype for its
data (float64) and in float32. Ours: one kernel at a time, whole calls, with the fewest sweeps of a ladder that reach tensorly's
error (measured on the explicit residual). Command: `python benchmarks/als_vs_tensorly.py --json benchmarks/results/als.json`,
about two minutes on two cores. Expected: time ratios (tensorly / ours) above 1 for `als` and above 3 for `cp_als`.
"""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import tensorly
from safetensors.torch import load_file
from tensorly.decomposition import parafac
from torch import Tensor

from race import report
from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.solution import Solution

LADDER = (5, 8, 10, 13, 16, 20, 25, 30, 40, 60, 80, 100, 150, 200, 300)
DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).resolve().parents[2] / "shared/data"))


def kernels() -> list[tuple[str, Tensor]]:
    """One kernel of every shape, as (out, 9, in)."""
    found = {}
    for name, weight in load_file(DATA / "weights/cifar10_resnet20_jpegtuned.safetensors").items():
        if weight.dim() == 4 and weight.shape[1] > 3:
            found.setdefault(tuple(weight.shape), (name, weight.double().flatten(2).movedim(1, 2).contiguous()))
    return list(found.values())


def best_of(run: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of some runs, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def theirs(tensor: Tensor, rank: int) -> float:
    """Relative error of tensorly after 100 sweeps."""
    cp = parafac(tensor, rank, n_iter_max=100, init="svd", random_state=0, tol=0)
    return float((tensorly.cp_to_tensor(cp) - tensor).norm() / tensor.norm())


def to_error(solve: Callable[[int], Solution], error: float) -> tuple[int, float, float]:
    """The fewest sweeps of the ladder that reach an error, the error, and milliseconds; the last step where none does."""
    for sweeps in LADDER:
        found = float(solve(sweeps).errors[0])
        if found <= error:
            break
    return sweeps, found, best_of(lambda: solve(sweeps))


def main() -> None:
    """Prints one row for each kernel shape."""
    warnings.simplefilter("ignore")
    tensorly.set_backend("pytorch")
    rows = []
    for name, tensor in kernels():
        out, taps, inp = tensor.shape
        rank = out * taps * inp // 2 // (out + taps + inp)
        network = Network.parse("o r, r k, r i -> o k i", {"o": out, "k": taps, "i": inp, "r": rank})
        error = theirs(tensor, rank)
        single = tensor.float()
        t64, t32 = best_of(lambda: theirs(tensor, rank), 3), best_of(lambda: theirs(single, rank), 3)  # noqa: B023 - run at once
        row = {"kernel": name, "shape": f"{out}x{taps}x{inp}", "rank": rank, "error tensorly": error, "ms f64": t64, "ms f32": t32}
        for label, solver in (("als", als), ("cp_als", cp_als)):
            sweeps, found, ms = to_error(lambda n, solver=solver: solver(tensor[None], network, sweeps=n, ridge=1e-7), error)  # noqa: B023
            row |= {f"{label} sweeps": sweeps, f"{label} error": found, f"{label} ms": ms, f"{label} ratio": min(t64, t32) / ms}
        rows.append(row)
    report("als_vs_tensorly", rows)


if __name__ == "__main__":
    main()
