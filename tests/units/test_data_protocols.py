"""Protocols: the published ways to use video data sets, which refuse each other's data."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from video_cases import write_video

from tenfold.data import PROTOCOLS, UCF11_ALL_FRAMES, UCF11_SIX_FRAMES, YTC_ALL_FRAMES, AllFrames, RandomSorted

SMALL = (12, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten clips of two classes in UCF11's layout, with 8 frames."""
    for label in ("biking", "diving"):
        for clip in range(5):
            write_video(tmp_path / label / f"v_{label}_0{clip}" / f"v_{label}_0{clip}_01.mpg", 8)
    return tmp_path


def test_all_frames_are_five_folds_in_the_order_of_the_script(folder: Path) -> None:
    protocol = dataclasses.replace(UCF11_ALL_FRAMES, size=SMALL)
    data = protocol.open(folder)
    assert data.lengths.tolist() == [8] * 10
    assert (data[0][0] * 1 + 128).min() >= 0, "pixels - 128, not divided"
    assert float(data[0][0].abs().max()) > 20
    np.random.seed(11111986)
    order = np.random.choice(range(10), 10, False)
    wanted = [tuple(sorted(part.tolist())) for part in np.array_split(order, 5)]
    assert [split.test for split in protocol.splits(data)] == wanted
    assert [split.test for split in protocol.splits(data, seed=1)] != wanted


def test_six_frames_are_one_split(folder: Path, tmp_path: Path) -> None:
    protocol = dataclasses.replace(UCF11_SIX_FRAMES, size=SMALL)
    data = protocol.open(folder, cache=tmp_path / "cache", strict=True)
    assert data.lengths.tolist() == [6] * 10
    (split,) = protocol.splits(data)
    assert (len(split.train), len(split.test)) == (8, 2)


def test_protocols_are_not_mixed(folder: Path) -> None:
    protocol = dataclasses.replace(UCF11_ALL_FRAMES, size=SMALL)
    data = protocol.open(folder)
    with pytest.raises(
        ValueError, match=r"has sampling, .* \(AllFrames\(maximum=1492\), .*; the protocol UCF11, 6 random frames, 80/20 has \(RandomSorted"
    ):
        dataclasses.replace(UCF11_SIX_FRAMES, size=SMALL).splits(data)
    with pytest.raises(ValueError, match=r"protocols are not mixed: read the folder with its open\(\), or split with k_fold or holdout"):
        UCF11_ALL_FRAMES.splits(data)


def test_settings_are_the_published_ones() -> None:
    assert [(p.sampling, p.n_folds, p.test_ratio) for p in (UCF11_ALL_FRAMES, UCF11_SIX_FRAMES, YTC_ALL_FRAMES)] == [
        (AllFrames(1492), 5, 0.2),
        (RandomSorted(6), None, 0.2),
        (AllFrames(85), 5, 0.2),
    ]
    for protocol in PROTOCOLS:
        assert (protocol.size, protocol.center, protocol.scale) == ((120, 160), 128, 1)
        assert protocol.size[0] * protocol.size[1] * 3 == 57_600
    assert len({protocol.name for protocol in PROTOCOLS}) == len(PROTOCOLS)
