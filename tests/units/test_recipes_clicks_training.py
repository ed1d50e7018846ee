"""Training on click data: streams that end too soon."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from resumable_clicks import PLANTED

from tenfold.data.ctr_synthetic import SyntheticClicks
from tenfold.recipes.clicks.model import DLRM, TableSpec
from tenfold.recipes.clicks.training import ClickTraining, train_clicks


class Once(SyntheticClicks):
    """A stream that can be read once, as an iterator can."""

    n_passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.n_passes += 1
        assert self.n_passes < 10, "passes go on for ever"
        return super().__iter__() if self.n_passes == 1 else iter(())


def test_a_stream_that_cannot_be_read_again_is_refused() -> None:
    torch.manual_seed(0)
    model = DLRM([TableSpec(210), TableSpec(210), TableSpec(5)], 13, dim=8, bottom=(16,), top=(16,))
    with pytest.raises(ValueError, match=r"the data gave no batch after 4 of 8 steps; a stream that can be read again is needed: give one"):
        train_clicks(model, Once(PLANTED, 64, (0, 256)), ClickTraining(64, epochs=2), 256)
