"""Planted ranks: a student of larger ranks ends with those of its teacher, in every format; `planted_ranks.py` runs more seeds."""

import pytest
from planted_ranks import CASES, Case, train, variational


@pytest.mark.parametrize("case", CASES, ids=lambda one: one.name)
def test_ranks_of_the_teacher_are_found(case: Case) -> None:
    """One seed; the weight is within 5 % of the teacher's, from 2,000 examples with a signal of 1 and noise of 0.1."""
    result = train(case, case.student, 1, attach=variational(), steps=300, extra=100)
    assert result.ranks == dict(case.layer(case.teacher).factorized.network.ranks)
    assert result.error < 0.05
    assert result.decision.layers[0].numel_after < result.decision.layers[0].numel_before


def test_points_are_enough_for_a_chain() -> None:
    case = next(one for one in CASES if one.name == "TTM")
    result = train(case, case.student, 2, attach=variational(10.0, "map"), steps=300, extra=100)
    assert result.ranks == dict(case.layer(case.teacher).factorized.network.ranks) and result.error < 0.05
