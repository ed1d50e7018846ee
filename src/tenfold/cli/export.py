"""tenfold export: a compressed model as a file for other programs."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter
from torch import nn

import tenfold
from tenfold.cli.arguments import MODEL, Common, Data, Model
from tenfold.cli.console import Outcome, Steps
from tenfold.cli.output import check_ending, check_space, writable_file
from tenfold.files import write_safetensors
from tenfold.sizes import n_bytes
from tenfold.sources import read_model

To: TypeAlias = Literal["dense", "torch", "onnx"]
ENDINGS: dict[To, str] = {"dense": ".safetensors", "torch": ".pt2", "onnx": ".onnx"}


def export(
    model: Model,
    /,
    *,
    weights: Annotated[Path, Parameter(help="The compressed model, a file of tenfold.", group=MODEL)],
    to: Annotated[
        To,
        Parameter(
            help="dense: a state_dict of the original class (.safetensors); torch: a torch.export program (.pt2); onnx: ONNX (.onnx)."
        ),
    ],
    out: Annotated[Path, Parameter(help="The file to write.")],
    data: Data = Data(),
    common: Common = Common(),
) -> Outcome:
    r"""Write a compressed model for other programs: dense, torch.export or ONNX.

    torch and onnx need an example input, --input-shape or --data, on which what is written is compared with the model. The batch size stays
    free.

    **Example**

        tenfold export networks.py:resnet20 --weights small/model.safetensors \
          --to onnx --input-shape 3,32,32 --out small.onnx
    """
    common.apply()
    data.check_normalize()
    with writable_file(out):
        check_ending(out, ENDINGS[to])
        small = read_model(model, weights, seed=common.seed)
        check_space(out.parent, n_bytes(small))
        inputs = data.inputs(small)
        if to != "dense" and inputs is None:
            raise ValueError(
                f"--to {to} runs the model once, but no input is known; an example is needed: give --input-shape 3,224,224 or --data"
            )
        with Steps() as steps:
            steps(f"export to {to}", 0, 1)
            write_export(small, to, inputs, out)
            steps(f"export to {to}", 1, 1)
    result = {"model": type(small).__name__, "to": to, "out": str(out), "size_bytes": out.stat().st_size}
    return Outcome(result, (f"written to {out}: {result['size_bytes']:,} bytes",))


def write_export(model: nn.Module, to: To, inputs: Any, path: Path) -> None:
    """Writes one file."""
    if to == "dense":
        write_safetensors(path, tenfold.to_dense(model).state_dict(), {"format": "pt"})
    elif to == "onnx":
        tenfold.export.to_onnx(model, inputs, path)
    else:
        tenfold.export.export_torch(model, inputs, path)
