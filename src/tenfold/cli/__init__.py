"""The command line: the library's steps as commands, in the same order. cyclopts and rich are imported only when it runs."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `tenfold`. Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    try:
        from tenfold.cli.app import run
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("cyclopts", "rich"):
            raise
        sys.stderr.write(
            f"error: the package {package} is not installed; the tenfold command line needs cyclopts and rich: "
            'run pip install "tenfold[cli]"\n'
        )
        sys.exit(2)
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))
