"""tenfold demo: the whole way on data that come with scikit-learn."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import tenfold
from tenfold.cli.arguments import Common, Training
from tenfold.cli.compress import Job
from tenfold.cli.console import Outcome, Steps
from tenfold.cli.export import To, write_export
from tenfold.cli.output import writable_folder
from tenfold.demo import digits_network, digits_test, digits_train
from tenfold.files import write_safetensors

BUDGET = "params=0.25"
DENSE_EPOCHS = 8
THREADS = 1  # more gain nothing on 8 x 8 images, and cost ten times as much where other programs want the cores too
EXPORTS: dict[str, To] = {"dense.safetensors": "dense", "model.pt2": "torch", "model.onnx": "onnx"}


def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder for all that is made.")] = Path("tenfold-demo"),
    common: Common = Common(),
) -> Outcome:
    """Train a small network, compress it to a quarter, fine-tune, export and report; needs no files.

    The network sees the handwritten digits that come with scikit-learn. Takes less than a minute; the same seed gives the same result.

    **Example**

        tenfold demo
    """
    dataclasses.replace(common, threads=THREADS if common.threads is None else common.threads).apply()
    with writable_folder(out):
        start = time.monotonic()
        train, test = digits_train(), digits_test()
        inputs = test.tensors[0][:16]
        with Steps() as steps:
            network = digits_network()
            tenfold.finetune(
                network, train, epochs=DENSE_EPOCHS, batch_size=64, seed=common.seed, progress=steps.named("train the dense network")
            )
            write_safetensors(out / "original.safetensors", network.eval().state_dict(), {"format": "pt"})
            job = Job(network, out, test, train, inputs, common.seed, steps)
            made = job.run(job.plan("auto", BUDGET, None), train, Training(epochs=5, batch_size=64), "tenfold demo")
            small = tenfold.load(out / "model.safetensors", digits_network)
            refused: dict[str, str] = {}
            for number, (name, to) in enumerate(EXPORTS.items()):
                steps.named("")("export", number, len(EXPORTS))
                try:
                    write_export(small, to, inputs, out / name)
                except (ImportError, RuntimeError) as error:  # packages that are absent, or too new for this torch: the rest is good
                    refused[name] = str(error)
            steps("export", len(EXPORTS), len(EXPORTS))
    seconds = round(time.monotonic() - start, 1)
    files = {**made.data["files"], **{name: str(out / name) for name in ("original.safetensors", *EXPORTS) if name not in refused}}
    lines = (
        *(f"There is no {name}: {reason}" for name, reason in refused.items()),
        f"The compressed network, its exports and the report are in {out} ({seconds} s). Look at {out / 'report.html'}, then for instance:",
        f"  tenfold inspect tenfold.demo:digits_network --weights {out / 'model.safetensors'} --input-shape 1,8,8",
    )
    data = {**made.data, "files": files, "not_written": refused, "seconds": seconds}
    return dataclasses.replace(made, data=data, shown=(*made.shown[:-1], *lines))
