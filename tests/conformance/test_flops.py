"""Conformance, item 8: predicted FLOP are those that torch.utils.flop_counter finds on the run, for every format in every layer."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conformance.cases import LayerCase, layer_cases
from conformance.checks import for_all
from conformance.subjects import LAYERS, SUBJECTS, Subject
from tenfold.layers.base import FactorizedLayer

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
EVERYWHERE = pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)


def flops_of(run: Any, *inputs: Any) -> int:
    """FLOP of matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        run(*inputs)
    return counter.get_total_flops()


def check_flops(case: LayerCase) -> None:
    layer = case.layer()
    x, *rest = case.inputs
    n_batched = len(getattr(layer, "kernel_size", ())) + 1 if not hasattr(layer, "num_embeddings") else 0
    if x.dim() <= n_batched:
        x = x[None]
    if not x.numel():
        return
    output = case.dense(x, *rest)
    load = case.kind.workload(case.dense, x.shape, output.shape)
    batch = len(x) if x.dim() else 1
    assert flops_of(case.dense, x, *rest) == load.dense_flops * batch
    if load.is_lookup:
        plan = layer.factorized.plan_rows()
        expected = plan.flops * x.numel() + plan.weight_flops
        assert flops_of(layer, x, *rest) == expected
        assert layer.plan() == plan
        return
    plan = load.plan(layer.factorized.network, batch, is_cached=False)
    assert flops_of(layer, x) == plan.flops * load.n_rows * batch + plan.weight_flops
    plan = load.plan(layer.factorized.network, batch, is_cached=True)
    layer.eval()
    with torch.no_grad():
        assert flops_of(layer, x) == plan.flops * load.n_rows * batch + plan.weight_flops
        assert flops_of(layer, x) == plan.flops * load.n_rows * batch, "contractions of factors alone are kept in eval"


@EVERY
@EVERYWHERE
def test_predicted_flops_are_counted_ones(subject: Subject, kind: type[FactorizedLayer]) -> None:
    for_all(layer_cases(subject, kind), check_flops)


@EVERY
def test_flops_of_dense_are_predicted(subject: Subject) -> None:
    case_of = layer_cases(subject, LAYERS[0])

    def check(case: LayerCase) -> None:
        weight = case.layer().factorized
        assert flops_of(weight.dense) == weight.plan_dense().flops

    for_all(case_of, check)
