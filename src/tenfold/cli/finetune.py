"""tenfold finetune: a compressed model in, the same model trained further out."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import tenfold
from tenfold.cli.arguments import MODEL, Common, Data, Model, Training
from tenfold.cli.console import Outcome, Steps
from tenfold.cli.output import check_ending, check_space, writable_file
from tenfold.evaluate import evaluate
from tenfold.sizes import n_bytes
from tenfold.sources import is_tenfold_file, read_model


def finetune(
    model: Model,
    /,
    *,
    weights: Annotated[Path, Parameter(help="The compressed model, a file of tenfold.", group=MODEL)],
    train: Annotated[str, Parameter(help="Training data, in the forms of --data.")],
    out: Annotated[Path, Parameter(help="The file to write, .safetensors.")],
    teacher: Annotated[Path | None, Parameter(help="Weights of the dense model, whose outputs are learned as well.", group=MODEL)] = None,
    data: Data = Data(),
    training: Training = Training(),
    common: Common = Common(),
) -> Outcome:
    r"""Train a compressed model further, from data and from its dense original.

    A checkpoint stands beside --out: after an interruption the same command goes on from there.

    **Example**

        tenfold finetune networks.py:resnet20 --weights small/model.safetensors \
          --teacher resnet20.safetensors --train loaders.py:train --epochs 5 \
          --out better.safetensors
    """
    common.apply()
    training.check(has_teacher=teacher is not None)
    with writable_file(out):
        if not is_tenfold_file(weights):
            raise ValueError(
                f"--weights {weights} is no file that tenfold wrote; a compressed model is needed: make one with tenfold compress"
            )
        check_ending(out)
        small = read_model(model, weights, seed=common.seed)
        check_space(out.parent, n_bytes(small))
        dense = read_model(model, teacher, seed=common.seed) if teacher is not None and training.distill else None
        learning, test = data.read(train), data.test(small)
        checkpoint = out.with_name(out.name + ".ckpt")
        with Steps() as steps:
            before = evaluate(small, test, progress=steps.named("before")) if test is not None else None
            history = training.run(small, learning, dense, checkpoint, common.seed, steps.named(""))
            after = evaluate(small, test, progress=steps.named("after")) if test is not None else None
        tenfold.save(small, out)
        checkpoint.unlink(missing_ok=True)
    result = {
        "model": type(small).__name__,
        "epochs": training.epochs,
        "losses": list(history.epoch_losses),
        "accuracy": {"before": before and before.accuracy, "after": after and after.accuracy},
        "loss": {"before": before and before.loss, "after": after and after.loss},
        "out": str(out),
    }
    lines = [str(history)]
    if before is not None and after is not None:
        lines += [f"before: {before}", f"after:  {after}"]
    return Outcome(result, (*lines, f"written to {out}"))
