"""Sampling: which frames are kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data import AllFrames, Evenly, RandomSorted, Sampling


@given(st.sampled_from([Evenly, RandomSorted, AllFrames]), st.integers(1, 40), st.integers(1, 200))
def test_positions_ascend_and_no_frame_comes_twice(kind: type[Sampling], n: int, n_frames: int) -> None:
    positions = kind(n).positions(n_frames, "a/b.avi")  # pyright: ignore[reportCallIssue]
    assert len(positions) == min(n, n_frames)
    assert positions.min() >= 0
    assert positions.max() < n_frames
    assert (np.diff(positions) > 0).all()


def test_even_positions_are_in_the_middle_of_equal_parts() -> None:
    assert Evenly(4).positions(8, "").tolist() == [1, 3, 5, 7]
    assert Evenly(1).positions(9, "").tolist() == [4]
    assert Evenly(3).positions(2, "").tolist() == [0, 1]


def test_random_positions_follow_from_seed_and_name_and_cover_a_clip_evenly() -> None:
    """Each of 20 frames is drawn 6 / 20 of 2,000 times; 60 off is 4 standard deviations (20 frames: false alarm in 1 of 1,000 seeds)."""
    draw = RandomSorted(6, seed=3)
    assert draw.positions(100, "a").tolist() == draw.positions(100, "a").tolist()
    assert draw.positions(100, "a").tolist() != draw.positions(100, "b").tolist()
    assert draw.positions(100, "a").tolist() != RandomSorted(6, seed=4).positions(100, "a").tolist()
    counts = np.bincount(np.concatenate([draw.positions(20, str(k)) for k in range(2000)]), minlength=20)
    assert np.abs(counts - 600).max() < 4 * np.sqrt(2000 * 0.3 * 0.7)


def test_all_frames_have_a_maximum_or_none() -> None:
    assert AllFrames().positions(5, "").tolist() == [0, 1, 2, 3, 4]
    assert AllFrames(2).positions(5, "").tolist() == [0, 1]


def test_counts_below_one_raise() -> None:
    for kind in (Evenly, RandomSorted):
        with pytest.raises(ValueError, match=r"n is 0; at least 1 frame is needed: give for instance n=6"):
            kind(0)
    with pytest.raises(ValueError, match=r"maximum is -1; at least 1 frame is needed: give for instance maximum=6"):
        AllFrames(-1)
