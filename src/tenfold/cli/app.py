"""The app: its commands, and what becomes of results and errors."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from cyclopts import App, CycloptsError
from rich.console import Console

import tenfold
from tenfold.cli import compress, demo, export, finetune, formats, inspect, plan, report, reproduce, train
from tenfold.cli.console import Outcome, show_error, warnings_as_lines

COMMANDS = {
    "inspect": inspect.inspect,
    "plan": plan.plan,
    "compress": compress.compress,
    "finetune": finetune.finetune,
    "export": export.export,
    "report": report.report,
    "demo": demo.demo,
    "formats": formats.formats,
    "train": train.train,
    "reproduce": reproduce.reproduce,
}
YES = ("yes", "y", "1", "true", "t")  # what cyclopts takes for true
HELP = """Neural networks many times smaller by tensor decomposition.

Begin with `tenfold demo`, which needs no files. Every command has an example: `tenfold compress --help`.

Exit codes: 0 done, 1 failed, 2 wrong usage or input."""


def make_app() -> App:
    """The app with all commands."""
    app = App(name="tenfold", help=HELP, version=tenfold.__version__, help_format="markdown", suppress_keyboard_interrupt=False)
    for name, function in COMMANDS.items():
        app.command(function, name=name, sort_key=list(COMMANDS).index(name))
    app.register_install_completion_command(help="Install tab completion for your shell.")
    return app


def run(arguments: Sequence[str]) -> int:
    """The exit code, after running a command. Its result goes to stdout; whatever else is printed goes to stderr."""
    stdout = sys.stdout
    warnings_as_lines()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            outcome = make_app()(arguments, console=Console(file=stdout), exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2  # cyclopts has said what is wrong
    except KeyboardInterrupt:
        show_error("interrupted; the same command starts again, and fine-tuning goes on from its last checkpoint")
        return 130
    except Exception as error:
        if _is_given("--debug", arguments):
            traceback.print_exc()
        return _fail(error)
    return _show(outcome, stdout, as_json=_is_given("--json", arguments)) if isinstance(outcome, Outcome) else 0


def _show(outcome: Outcome, stdout: TextIO, *, as_json: bool) -> int:
    """The exit code, after writing a result; what stdout has no character for is written as an escape."""
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(errors="backslashreplace")
    try:
        outcome.print(stdout, as_json=as_json)
        stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # for what Python flushes at its end
        return 1
    except OSError as error:
        show_error(
            f"the result cannot be written to stdout ({error.strerror or error}); a place with enough room is needed: write it elsewhere, "
            "what the command wrote to --out is whole"
        )
        return 1
    return 0


def _is_given(flag: str, arguments: Sequence[str]) -> bool:
    """Whether a flag is among the arguments, alone or as --flag=true."""
    return any(one == flag or one.lower() in (f"{flag}={word}" for word in YES) for one in arguments)


def _fail(error: Exception) -> int:
    """Shows an error: 2 where this package says what is wrong with the input, 1 for all others."""
    is_input = isinstance(error, ValueError | TypeError | ImportError)
    if (is_input or isinstance(error, OSError | RuntimeError)) and _raised_here(error):
        show_error(str(error))
        return 2 if is_input else 1
    show_error(f"{type(error).__name__}: {error}; add --debug for the traceback")
    return 1


def _raised_here(error: Exception) -> bool:
    """Whether the statement that raised is one of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(tenfold.__file__).parent)
