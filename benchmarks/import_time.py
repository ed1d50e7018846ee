"""Seconds that `import tenfold` takes beyond torch's own, as medians of five fresh processes each.

Command: `python benchmarks/import_time.py`. Expected: below 0.3 s.
"""

import statistics
import subprocess
import sys

from race import report

CODE = "import time, torch; start = time.perf_counter(); import tenfold; print(time.perf_counter() - start)"


def main() -> None:
    """Prints one row."""
    seconds = [float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    report("import_time", [{"median s": statistics.median(seconds), "min s": min(seconds)}])


if __name__ == "__main__":
    main()
