"""tenfold inspect: what a model holds."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from torch import nn
from torch.nn.parameter import is_lazy

from tenfold.cli.arguments import Common, Data, Model, Weights
from tenfold.cli.console import Outcome, count, table
from tenfold.diagnosis import Diagnosis, diagnose
from tenfold.flops import count_module_flops
from tenfold.layers.base import FactorizedLayer
from tenfold.recurrent.opened import opened_view
from tenfold.running import batch_size, call, probing
from tenfold.sizes import n_bytes, n_parameters, n_values
from tenfold.survey import Found, survey
from tenfold.weight import FactorizedWeight
from tenfold.wrappers import clean_name


def inspect(
    model: Model,
    /,
    *,
    weights: Weights = Weights(),
    data: Data = Data(),
    common: Common = Common(),
) -> Outcome:
    """Show every layer with a weight, and whether it can be factorised.

    FLOP are counted where --data or --input-shape is given. Of a compressed model the statement and the ranks of each layer are shown, and
    how stable its factors are: a layer whose terms cancel each other is flagged, with what to do about it.

    **Example**

        tenfold inspect networks.py:resnet20 --input-shape 3,32,32
    """
    common.apply()
    data.check_normalize()
    network = weights.load(model, common.seed)
    inputs = data.inputs(network)
    view = opened_view(network)
    found = survey(view)
    flops = _flops_by_name(view, found, inputs) if inputs is not None else {}
    layers = [_layer(one, flops) for one in found]
    is_factorized = any(isinstance(module, FactorizedWeight) for module in network.modules())
    diagnoses = diagnose(network) if is_factorized else []
    result = {
        "model": type(network).__name__,
        "parameters": n_parameters(network),
        "size_bytes": n_bytes(network),
        "flops": flops.get(""),
        "layers": layers,
        "diagnosis": [{"name": one.name, **one.as_json()} for one in diagnoses],
    }
    rows = [
        (one["name"], one["type"], "x".join(map(str, one["shape"])), f"{one['parameters']:,}", count(one["flops"]), _says(one))
        for one in layers
    ]
    total = f"{result['model']}: {result['parameters']:,} parameters, {result['size_bytes']:,} bytes"
    total += f", {count(result['flops'])} FLOP a sample" if flops else "; for FLOP give --data or --input-shape"
    columns = ("layer", "type", "shape", "parameters", "FLOP", "can be factorised")
    shown = [table(columns, rows, numbers=("parameters", "FLOP")), total]
    return Outcome(result, [*shown, *([_stability(diagnoses)] if diagnoses else [])])


def _stability(diagnoses: Sequence[Diagnosis]) -> RenderableType:
    """How stable the factors of each layer are, as a table."""
    columns = ("layer", "sensitivity", "normalised", "intensity ratio", "congruence", "condition", "stable step", "state")
    rows = []
    for one in diagnoses:
        known = [value for value in one.condition_numbers if value is not None]
        values = (one.sensitivity, one.normalised_sensitivity, one.intensity_ratio, one.worst_congruence)
        cells = [f"{value:.3g}" for value in (*values, max(known, default=math.nan), one.stable_step)]
        rows.append((one.name, *cells, f"flagged: {one.advice}" if one.is_flagged else "healthy"))
    return table(columns, rows, title="Stability of the factors", numbers=columns[1:-1])


def _layer(one: Found, flops: dict[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": one.name or type(one.module).__name__,
        "type": type(one.module).__name__,
        "shape": list(one.shape),
        "parameters": _n_values(one),
        "flops": flops.get(one.name),
        "can_be_factorised": one.layer is not None,
        "reason": one.reason,
    }
    if isinstance(one.module, FactorizedLayer):
        network = one.module.factorized.network
        row |= {"statement": network.statement, "ranks": network.ranks}
    return row


def _says(one: dict[str, Any]) -> str:
    if "statement" in one:
        return f"is: {one['statement']}  " + ", ".join(f"{name}={size}" for name, size in one["ranks"].items())
    return "yes" if one["can_be_factorised"] else f"no: {one['reason']}"


def _n_values(one: Found) -> int:
    """The values of the weight that can be factorised, or of all weights of a layer that cannot."""
    if one.layer is not None or isinstance(one.module, FactorizedLayer):
        return one.n_values
    own = [p for p in one.module.parameters(recurse=False) if is_lazy(p) or p.dim() >= 2]
    return sum(map(n_values, own)) or one.n_values


def _flops_by_name(model: nn.Module, layers: Sequence[Found], inputs: Any) -> dict[str, int]:
    """FLOP for one sample of every layer that the inputs reach, by name; "" is the whole model."""
    reached: set[str] = set()
    # inside recurrent layers only maps with hooks run as modules, which the counter can tell apart
    handles = [one.module.register_forward_pre_hook(lambda *_, name=one.name: reached.add(name)) for one in layers]
    try:
        with probing(model):
            found = count_module_flops(lambda: call(model, inputs))
    finally:
        for handle in handles:
            handle.remove()
    samples = max(1, batch_size(inputs))
    flops = {clean_name(name.partition(".")[2]): value // samples for name, value in found.items()}
    return {name: flops.get(name, 0) for name in reached} | {"": found["Global"] // samples}
