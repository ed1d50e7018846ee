"""Conformance, item 8: predicted FLOP are those that torch.utils.flop_counter finds on the run, for every format in every layer."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conformance.cases import LayerCase, in_turn, layer_cases
from conformance.checks import for_all
from conformance.subjects import LAYERS, SUBJECTS, Subject
from tenfold.layers.base import FactorizedLayer

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
IN_TURN = pytest.mark.parametrize(
    ("subject", "kind"), [pytest.param(*one, id=f"{one[0]}-{one[1].__name__}") for one in in_turn(verbs=True)]
)


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
    terms = layer.factorized.network.terms
    if load.is_lookup:
        plans = [layer.factorized.plan_rows(number) for number in range(len(terms))]
        expected = sum(plan.flops * x.numel() + plan.weight_flops for plan in plans)
        assert flops_of(layer, x, *rest) == expected
        assert layer.plan() == plans[0]
        return
    n_rows = load.n_rows * batch
    plans = [load.plan(term, batch, is_cached=False) for term in terms]
    assert flops_of(layer, x) == sum(plan.flops * n_rows + plan.weight_flops for plan in plans)
    plans = [load.plan(term, batch, is_cached=True) for term in terms]
    layer.eval()
    with torch.no_grad():
        assert flops_of(layer, x) == sum(plan.flops * n_rows + plan.weight_flops for plan in plans)
        assert flops_of(layer, x) == sum(plan.flops * n_rows for plan in plans), "contractions of factors alone are kept in eval"


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@IN_TURN
def test_predicted_flops_are_counted_ones(subject: Subject, kind: type[FactorizedLayer]) -> None:
    for_all(layer_cases(subject, kind), check_flops)


@EVERY
def test_flops_of_dense_are_predicted(subject: Subject) -> None:
    case_of = layer_cases(subject, LAYERS[0])

    def check(case: LayerCase) -> None:
        weight = case.layer().factorized
        assert flops_of(weight.dense) == sum(weight.plan_dense(number).flops for number in range(len(weight.network.terms)))

    for_all(case_of, check)
