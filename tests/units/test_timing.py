"""Timing: which of two is faster, and when that is not known."""

import time
from collections.abc import Callable

import pytest
import torch

from tenfold.timing import Race, race


def test_race_knows_which_is_slower(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: now[0])

    def lasting(seconds: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += seconds

        return run

    one = race(lasting(1e-3), lasting(3e-5), 4, torch.device("cpu"), 0.02)
    assert one.verdict == "faster" and one.batch == 4 and one.n_runs == 16  # 0.02 s of turns that last 1 ms + 7 x 0.03 ms
    assert (one.dense_ms, one.small_ms) == (pytest.approx(1.0), pytest.approx(0.03))
    assert one.speedup == pytest.approx(1 / 0.03) and one.noise == pytest.approx(1.0)
    assert race(lasting(1e-3), lasting(2e-3), 1, torch.device("cpu"), 0.02).verdict == "slower"
    assert race(lasting(1e-3), lasting(1.01e-3), 1, torch.device("cpu"), 0.02).verdict == "same"


def test_time_that_other_programs_have_is_not_counted():
    """Tests run with one thread; sleeping is like waiting for a busy core."""
    work, device = torch.randn(64, 64), torch.device("cpu")

    def held_up() -> None:
        time.sleep(2e-3)
        work @ work

    one = race(held_up, lambda: work @ work, 1, device, 0.02)
    assert one.dense_ms < 1 and one.n_runs >= 7


@pytest.mark.parametrize(
    ("speedup", "low", "high", "small_min", "verdict"),
    [
        (0.5, 0.4, 0.6, 1.8, "slower"),
        (2.0, 1.5, 2.5, 0.5, "faster"),
        (1.02, 1.01, 1.03, 0.9, "same"),
        (0.5, 0.4, 1.1, 1.8, "same"),
        (0.5, 0.4, 0.6, 0.8, "same"),
    ],
)
def test_verdict_needs_quartiles_and_minima_to_agree(speedup, low, high, small_min, verdict):
    assert Race(1, 20, 1.0, 0.9, 1 / speedup, small_min, speedup, low, high).verdict == verdict
