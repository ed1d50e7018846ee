"""Imports tenfold from an environment that holds the wheel and its hard dependencies, and measures what the import costs."""

import importlib.metadata
import subprocess
import sys

LIMIT_S = 0.3  # beyond torch's own import
RUNS = 5
OPTIONAL = ("cyclopts", "matplotlib", "onnx", "onnxruntime", "onnxscript", "rich", "sklearn")
MEASURE = "import time, torch; start = time.perf_counter(); import tenfold; print(time.perf_counter() - start)"
USE = """
import torch, tenfold
layer = tenfold.nn.Linear(64, 48, format=tenfold.TTM(rank=4))
assert layer(torch.zeros(2, 64)).shape == (2, 48)
small = tenfold.compress(torch.nn.Sequential(torch.nn.Linear(32, 32)), tenfold.SVD(rank=4))
assert sum(p.numel() for p in small[0].factorized.parameters()) == 256
"""


def main() -> None:
    """Fails with a message where an optional package is there, the wheel does not work alone, or its import takes too long."""
    installed = {dist.metadata["Name"].lower().replace("-", "_") for dist in importlib.metadata.distributions()}
    if found := sorted(installed & {"scikit_learn", *OPTIONAL}):
        sys.exit(f"the wheel alone brings {found}; they belong in extras: see pyproject.toml")
    subprocess.run([sys.executable, "-c", USE], check=True)
    times = [float(subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True).stdout) for _ in range(RUNS)]
    print(f"import tenfold takes {min(times):.3f} s beyond torch's own (best of {RUNS}; limit {LIMIT_S} s)")
    if min(times) >= LIMIT_S:
        sys.exit(f"import tenfold takes {min(times):.3f} s beyond torch's own; the limit is {LIMIT_S} s: see python -X importtime")


if __name__ == "__main__":
    main()
