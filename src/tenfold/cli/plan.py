"""tenfold plan: which layers get which format and ranks."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

import tenfold
from tenfold.cli.arguments import Calibration, Common, Data, Model, Planning, Weights
from tenfold.cli.console import Outcome, Steps, change, share, table
from tenfold.cli.output import writable_file
from tenfold.formats import format_text
from tenfold.plan import LayerPlan, Plan
from tenfold.plan_data import error_text, speedup_text


def plan(
    model: Model,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Write the plan to this file, to be edited and given to compress --plan.")] = None,
    weights: Weights = Weights(),
    data: Data = Data(),
    calibration: Calibration = None,
    planning: Planning = Planning(),
    common: Common = Common(),
) -> Outcome:
    r"""Choose a format and ranks for every layer, under a budget.

    Layers stay dense where nothing gains; each has a row with the reason. Nothing is compressed yet.

    **Example**

        tenfold plan networks.py:resnet20 --weights resnet20.safetensors \
          --input-shape 3,32,32 --budget flops=0.5 --out plan.toml
    """
    common.apply()
    with contextlib.nullcontext() if out is None else writable_file(out):
        network = weights.load(model, common.seed)
        with Steps() as steps:
            made = tenfold.plan(
                network,
                planning.format,
                budget=planning.budget,
                inputs=data.inputs(network, calibration, planning.latency_batch),
                filter=planning.layers(network),
                calibration=data.read(calibration),
                latency=planning.latency,
                seed=common.seed,
                progress=steps,
            )
        if out is not None:
            made.save(out)
    result = {**plan_data(made), "out": None if out is None else str(out)}
    written = (f"written to {out}; edit it if you like, then: tenfold compress ... --plan {out}",) if out else ()
    return Outcome(result, (*plan_tables(made), *written))


def plan_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    return {
        "model": plan.model,
        "budget": plan.budget.parts if plan.budget else None,
        "metric": plan.metric,
        "seed": plan.seed,
        "parameters": {"before": plan.params_before, "after": plan.params_after},
        "flops": None if plan.flops_before is None else {"before": plan.flops_before, "after": plan.flops_after},
        "layers": [
            {
                "name": one.name,
                "type": one.kind,
                "shape": list(one.shape),
                "use": _use(one),
                "reason": one.reason,
                "parameters": {"before": one.params_before, "after": one.params_after},
                "flops": None if one.flops_before is None else {"before": one.flops_before, "after": one.flops_after},
                "error": one.error,
                "metric": None if one.error is None else one.metric or plan.metric,
                "speedup": {"predicted": one.predicted_speedup, "measured": one.measured_speedup},
            }
            for one in plan.layers
        ],
        "notes": list(plan.notes),
    }


def plan_tables(plan: Plan) -> tuple[RenderableType, ...]:
    """The plan for a person."""
    rows = [
        (
            one.name or one.kind,
            "x".join(map(str, one.shape)),
            _use(one) if one.format else f"dense: {one.reason}",
            change(one.params_before, one.params_after),
            change(one.flops_before, one.flops_after),
            error_text(one, 3),
            speedup_text(one),
        )
        for one in plan.layers
    ]
    columns = ("layer", "shape", "becomes", "parameters", "FLOP", "error", "speed-up")
    total = f"{plan.model}: {plan.params_before:,} -> {plan.params_after:,} parameters ({share(plan.params_after, plan.params_before)})"
    if plan.flops_before is not None:
        total += f", {change(plan.flops_before, plan.flops_after)} FLOP a sample ({share(plan.flops_after, plan.flops_before)})"
    return (
        table(columns, rows, numbers=("parameters", "FLOP", "error", "speed-up")),
        f"{total}; errors are relative, of the {plan.metric}s",
        *plan.notes,
    )


def _use(one: LayerPlan) -> str:
    return format_text(one.format, one.in_modes, one.out_modes) if one.format else "dense"
