"""tenfold report: a dense model and its compressed version, side by side."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import tenfold
from tenfold.cli.arguments import MODEL, Common, Data, Model, Weights
from tenfold.cli.compress import read_plan
from tenfold.cli.console import Outcome, Steps
from tenfold.cli.output import writable_folder
from tenfold.cli.result import result_data, result_tables
from tenfold.sources import is_tenfold_file, read_model


def report(
    model: Model,
    /,
    *,
    compressed: Annotated[Path, Parameter(help="The compressed model, a file of tenfold.", group=MODEL)],
    out: Annotated[Path, Parameter(help="Folder for report.html and report.json.")],
    plan: Annotated[Path | None, Parameter(help="The plan it was made from: adds formats, reasons and predicted errors.")] = None,
    weights: Weights = Weights(),
    data: Data = Data(),
    common: Common = Common(),
) -> Outcome:
    r"""Compare a dense model with its compressed version, layer by layer.

    **Example**

        tenfold report networks.py:resnet20 --weights resnet20.safetensors \
          --compressed small/model.safetensors --data loaders.py:test --out comparison
    """
    common.apply()
    with writable_folder(out):
        if not is_tenfold_file(compressed):
            raise ValueError(
                f"--compressed {compressed} is no file that tenfold wrote; a compressed model is needed: make one with tenfold compress"
            )
        given = None if plan is None else read_plan(plan)
        network = weights.load(model, common.seed)
        small = read_model(model, compressed, seed=common.seed)
        inputs, test = data.inputs(network), data.test(network)
        with Steps() as steps:
            made = tenfold.report(
                network,
                small,
                out,
                plan=given,
                data=test,
                inputs=None if test is not None else inputs,
                command=f"tenfold {shlex.join(sys.argv[1:])}",
                seed=common.seed,
                progress=steps,
            )
    files = {name: out / name for name in ("report.html", "report.json")}
    return Outcome(result_data(made, files), (*result_tables(made), f"written to {out}: {', '.join(files)}"))
