"""The checks of a format and of a layer, as functions: the suite runs them on all subjects, and asserts that a broken format fails them."""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from conformance.cases import LayerCase, WeightCase
from conformance.subjects import Subject, bounds, merged, planted, random_tensor, reference_dense, reference_numel, tails
from tenfold.fold import Axis, Fold
from tenfold.solvers.als import als
from tenfold.solvers.solution import Solution, relative_errors

N_STARTS = 400
DIRECT_ERROR = 1e-10  # of a quasi-optimal solver at full rank
SEEDS = (0, 1)


def for_all(cases: st.SearchStrategy[Any], check: Callable[[Any], None], *, shrink: bool = True) -> None:
    """Runs a check on cases that hypothesis draws; where they are always the same ones, every strategy has its own."""

    @given(cases)
    def run(case: Any) -> None:
        check(case)

    if settings().derandomize:
        run = seed(zlib.crc32(repr(cases).encode()))(run)
    if not shrink:
        run = settings(phases=[Phase.generate], report_multiple_bugs=False)(run)
    run()


# -- 1, 3, 4: a weight ------------------------------------------------------------------------------------------------


def check_dense(case: WeightCase) -> None:
    """1: dense() is what the paper's formula gives."""
    weight = case.subject.weight(case.fold, case.rank)
    assert_close(weight.dense().detach(), reference_dense(case.subject, weight), rtol=1e-11, atol=1e-11)


def check_numel(case: WeightCase) -> None:
    """3: the number of parameters is that of the tensors, and that of the paper's formula."""
    weight = case.subject.weight(case.fold, case.rank)
    stored = sum(parameter.numel() for parameter in weight.parameters())
    assert weight.network.numel == stored
    assert reference_numel(case.subject, case.fold, weight.network) == stored


def check_start(subject: Subject, std: float = 0.3) -> None:
    """4: entries of dense() have the standard deviation that is asked for, within 4 standard errors over independent starts.

    A right format fails by chance once in 16,000 runs; the starts are always the same ones, so it does so never or always.
    """
    fold = merged(Fold((Axis("o", 24, (4, 6)), Axis("i", 30, (6, 5)))), subject.format)
    weight = subject.weight(fold, 3)
    squares = torch.empty(N_STARTS, dtype=torch.float64)
    for number in range(N_STARTS):
        weight.init_normal_(std, generator=torch.Generator().manual_seed(number))
        squares[number] = weight.dense().detach().square().mean()
    standard_error = float(squares.std() / math.sqrt(N_STARTS))
    assert abs(float(squares.mean()) - std**2) < 4 * standard_error, f"{squares.mean().sqrt():.4f} instead of {std}"


# -- 2: verbs ---------------------------------------------------------------------------------------------------------


def check_layer(case: LayerCase) -> None:
    """2: outputs and all gradients are those of the dense layer with the same weight, in training and in eval."""
    layer = case.layer()
    dense: Any = layer.to_dense()
    ours, theirs = _leaves(case.inputs), _leaves(case.inputs)
    got, wanted = layer(*ours), dense(*theirs)
    assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    flow = torch.randn_like(wanted)
    got.backward(flow)
    wanted.backward(flow)
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, Tensor) and mine.requires_grad:
            assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-9)
    if layer.bias is not None:
        assert_close(layer.bias.grad, dense.bias.grad, rtol=1e-9, atol=1e-9)
    factors = list(layer.factorized.factors)
    through_weight = torch.autograd.grad(layer.weight, factors, dense.weight.grad)
    for factor, gradient in zip(factors, through_weight, strict=True):
        assert_close(factor.grad, gradient, rtol=1e-9, atol=1e-9)
    layer.eval()
    for _ in range(2):  # the second run uses what the first has kept
        with torch.no_grad():
            assert_close(layer(*case.inputs), wanted.detach(), rtol=1e-10, atol=1e-10)


def _leaves(inputs: Sequence[Any]) -> list[Any]:
    return [x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs]


# -- 5: solvers -------------------------------------------------------------------------------------------------------


def check_solver(subject: Subject, fold: Fold) -> None:
    """5: what the paper promises of a quasi-optimal solver, or what an iterative one must do; the loss never rises."""
    fold = merged(fold, subject.format)
    if cuts := bounds(subject, fold):
        _check_bounds(subject, fold, cuts)
    else:
        _check_recovery(subject, fold)


def _check_bounds(subject: Subject, fold: Fold, cuts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
    tensor = random_tensor(fold)
    before = math.inf
    for fraction in (0.3, 0.6, 1.0):
        format = subject.ranked(fraction)
        network = format.network(fold)
        solution = format.solve(tensor, network)
        error = float(solution.errors[0])
        assert_close(solution.errors, relative_errors(tensor, network, solution.factors), rtol=1e-9, atol=1e-12)
        cut_off = tails(fold, tensor, cuts, list(network.ranks.values()))
        assert error**2 <= sum(cut_off) * (1 + 1e-9) + DIRECT_ERROR**2, f"{error} is above the bound {math.sqrt(sum(cut_off))}"
        assert error**2 >= max(cut_off) * (1 - 1e-9) - DIRECT_ERROR**2, f"{error} is below what any fit can reach"
        assert error <= before + 1e-9, "a larger rank gave a larger error"
        _check_history(solution)
        before = error
    if network == format.widest(fold):  # an option may size a rank index below what it would need
        assert before <= DIRECT_ERROR, f"full rank leaves an error of {before}"


def _check_recovery(subject: Subject, fold: Fold) -> None:
    for number in SEEDS:
        torch.manual_seed(number)
        network, tensor = planted(subject, fold, 2)
        format = subject.ranked(2)
        solution = format.solve(tensor, network, sweeps=200, seed=number)
        assert_close(solution.errors, relative_errors(tensor, network, solution.factors), rtol=1e-9, atol=1e-12)
        assert float(solution.errors[0]) <= subject.reference.PLANTED_ERROR
        _check_history(solution)


def check_generic_solver(subject: Subject, fold: Fold) -> None:
    """5: alternating least squares, which knows no format, finds planted factors of every format, and its loss never rises."""
    fold = merged(fold, subject.format)
    torch.manual_seed(0)
    network, tensor = planted(subject, fold, 2)
    best = math.inf
    for number in SEEDS:
        if best > 1e-6:  # one of several starts is enough
            solution = als(tensor, network, sweeps=500, seed=number, tolerance=1e-12)
            _check_history(solution)
            best = float(solution.errors[0])
    assert best <= 1e-6


def _check_history(solution: Solution) -> None:
    """The loss never rises, and ends at the error that was measured."""
    assert bool((solution.history.diff(dim=0) <= 1e-12).all()), "the loss rose"
    assert_close(solution.history[-1], solution.errors)


# -- 6: truncation ----------------------------------------------------------------------------------------------------


def check_truncation(case: WeightCase) -> None:
    """6: a rank slice set to zero adds nothing: the weight without it is the same."""
    weight = case.subject.weight(case.fold, case.rank)
    for rank, size in weight.network.ranks.items():
        if size < 2:
            continue
        dead = size // 2
        for k, axis in weight.network.carriers(rank):
            with torch.no_grad():
                weight.factors[k].select(axis, dead).zero_()
        smaller = weight.truncated(rank, [n for n in range(size) if n != dead])
        assert smaller.network.ranks == {**weight.network.ranks, rank: size - 1}
        assert smaller.network.numel < weight.network.numel
        assert_close(smaller.dense(), weight.dense(), rtol=1e-12, atol=1e-12)


def check_found_rank(subject: Subject, fold: Fold) -> None:
    """6: a quasi-optimal solver that may use more ranks than were planted leaves all others empty."""
    fold = merged(fold, subject.format)
    network, tensor = planted(subject, fold, 2)
    format = subject.ranked(1.0)
    wide = format.network(fold)
    factors = [factor[0] for factor in format.solve(tensor, wide).factors]
    weight = subject.weight_type(wide, fold, factors)
    for rank, size in network.ranks.items():
        adds = torch.stack([weight.truncated(rank, [n]).dense().norm() for n in range(wide.ranks[rank])])
        assert int((adds > 1e-9 * adds.max()).sum()) == size


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
