"""Time to the error of tensorly's parafac on large synthetic kernels, by `cp_als`: 9x64x64 R=50, 9x256x256 R=250, 9x512x512 R=400.

Kernels: 9 smooth spatial slices times random channel mixers with a power-law spectrum, plus 5 % noise. tensorly runs 100, 30 and 10
sweeps (random start, float32, which is its faster dtype); ours with the fewest sweeps of a ladder that reach its error, whole calls.
Command: `python benchmarks/cp_als_vs_tensorly.py --json benchmarks/results/cp_als.json`, about a minute on two cores.
"""

import time
import warnings

import tensorly
import torch
from tensorly.decomposition import parafac
from torch import Tensor

from als_vs_tensorly import best_of, to_error
from race import report
from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als


def kernel(size: int, seed: int = 0) -> Tensor:
    """A synthetic (9, size, size) kernel."""
    generator = torch.Generator().manual_seed(seed)
    slices = torch.randn(9, 9, generator=generator) / torch.arange(1, 10)
    mixers = torch.randn(9, size, size, generator=generator)
    decay = torch.diag(torch.arange(1, size + 1, dtype=torch.float32) ** -0.7)
    tensor = torch.einsum("pq,qij->pij", slices, mixers @ decay @ torch.randn(9, size, size, generator=generator) / size)
    return tensor + 0.05 * tensor.norm() / tensor.numel() ** 0.5 * torch.randn(tensor.shape, generator=generator)


def main() -> None:
    """Prints one row for each size."""
    warnings.simplefilter("ignore")
    tensorly.set_backend("pytorch")
    rows = []
    for size, rank, n_theirs in ((64, 50, 100), (256, 250, 30), (512, 400, 10)):
        tensor = kernel(size)
        start = time.perf_counter()
        cp = parafac(tensor, rank, n_iter_max=n_theirs, init="random", random_state=0, tol=0)
        theirs = (time.perf_counter() - start) * 1e3
        error = float((tensorly.cp_to_tensor(cp) - tensor).norm() / tensor.norm())
        if size < 512:
            theirs = min(theirs, best_of(lambda: parafac(tensor, rank, n_iter_max=n_theirs, init="random", random_state=0, tol=0), 2))  # noqa: B023
        network = Network.parse("k r, o r, r i -> k o i", {"o": size, "k": 9, "i": size, "r": rank})
        sweeps, found, ms = to_error(lambda n: cp_als(tensor[None], network, sweeps=n, ridge=1e-7), error)  # noqa: B023
        rows.append({"shape": f"9x{size}x{size}", "rank": rank, "tensorly sweeps": n_theirs, "error": error, "tensorly ms": theirs,
                     "cp_als sweeps": sweeps, "cp_als error": found, "cp_als ms": ms, "ratio": theirs / ms})  # fmt: skip
    report("cp_als_vs_tensorly", rows)


if __name__ == "__main__":
    main()
