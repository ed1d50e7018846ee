"""The command line as a process."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import tenfold


class Cli:
    """`python -m tenfold` in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(Path(tenfold.__file__).parents[1]), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A running process."""
        command = [sys.executable, "-m", "tenfold", *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __call__(self, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
        """A finished process; `limit` is the size in bytes of the largest file that it may write."""
        before = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
        command = [sys.executable, "-m", "tenfold", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300, preexec_fn=before, check=False
        )
