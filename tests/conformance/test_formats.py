"""Conformance of formats, items 1, 3, 4, 5 and 6: every format of the folder with every choice of its options."""

import pytest

from conformance.cases import weights
from conformance.checks import (
    check_dense,
    check_found_rank,
    check_generic_solver,
    check_numel,
    check_solver,
    check_start,
    check_truncation,
    for_all,
)
from conformance.subjects import SUBJECTS, Subject, bounds, merged
from tenfold.fold import Axis, Fold

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
MATRIX = Fold((Axis("o", 12, (3, 4)), Axis("i", 10, (5, 2))))
KERNEL = Fold((Axis("o", 6, (6,)), Axis("i", 5, (5,)), Axis("k", 3, (3,)), Axis("k", 3, (3,))))
TRANSPOSED = Fold((Axis("i", 6, (2, 3)), Axis("o", 4, (2, 2)), Axis("k", 3, (3,))))
NAMED = {"matrix": MATRIX, "kernel": KERNEL, "transposed": TRANSPOSED}
FOLDS = pytest.mark.parametrize("fold", list(NAMED.values()), ids=list(NAMED))
# where the solver is iterative, what it leaves in spare ranks depends on the machine's rounding
BOUNDED = [
    pytest.param(subject, fold, id=f"{name}-{subject}")
    for name, fold in NAMED.items()
    for subject in SUBJECTS
    if bounds(subject, merged(fold, subject.format)) is not None
]


@EVERY
def test_dense_is_the_papers_formula(subject: Subject) -> None:
    for_all(weights(subject, max_modes=2), check_dense)


@EVERY
def test_numel_is_the_papers_formula(subject: Subject) -> None:
    for_all(weights(subject), check_numel)


@EVERY
def test_start_has_the_requested_deviation(subject: Subject) -> None:
    check_start(subject)


@EVERY
@FOLDS
def test_solver_keeps_its_promise(subject: Subject, fold: Fold) -> None:
    check_solver(subject, fold)


@EVERY
@FOLDS
def test_generic_solver_recovers_planted_factors(subject: Subject, fold: Fold) -> None:
    check_generic_solver(subject, fold)


@EVERY
def test_zero_slices_may_be_removed(subject: Subject) -> None:
    for_all(weights(subject), check_truncation)


@pytest.mark.parametrize(("subject", "fold"), BOUNDED)
def test_found_rank_is_the_planted_one(subject: Subject, fold: Fold) -> None:
    check_found_rank(subject, fold)
