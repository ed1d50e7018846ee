"""Feature rows: what is refused; movielens and frappe have the rest."""

import pytest
import torch

from tenfold.data.feature_rows import FeatureRows, FieldGroup, joined

GROUPS = (FieldGroup("a", 0, 2, 0, 5),)


def _rows() -> FeatureRows:
    return FeatureRows(torch.tensor([[0, 4], [1, 2]]), torch.tensor([1.0, 0.0]), 5, ("a", "b"), GROUPS)


def test_joined() -> None:
    both = joined(_rows(), _rows().take(torch.tensor([1])))
    assert both.ids.tolist() == [[0, 4], [1, 2], [1, 2]] and both.targets.tolist() == [1, 0, 0] and both.groups == GROUPS


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match=r"ids of shape \(2, 2\) were given with targets of shape \(2,\) and 1 fields; \(rows, fields\) and"
    ):
        FeatureRows(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2), 5, ("a",), GROUPS)
    with pytest.raises(
        ValueError, match="the features run from 0 to 4, but there are 4; numbers from 0 to 3 are needed: renumber them, or"
    ):
        FeatureRows(_rows().ids, _rows().targets, 4, ("a", "b"), GROUPS)
    with pytest.raises(
        ValueError, match=r"the parts are \(0.5, 0.6\); ratios above 0 that sum to 1 are needed: give for instance \(0.8, 0.1"
    ):
        _rows().split((0.5, 0.6))
    with pytest.raises(ValueError, match=r"2 rows cannot be split into \(0.8, 0.1, 0.1\); each part needs at least one: give more rows"):
        _rows().split()
