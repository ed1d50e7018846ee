"""Every recipe trains on small data of its kind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from video_cases import write_video

import tenfold.recipes
from recipe_data import FRAME, write_clips, write_digits, write_series, write_text
from tenfold.recipes.finished_runs import digest_of_files
from tenfold.recipes.sequences.clips_lstm import MirrorAndShift
from tenfold.recipes.sequences.results import Result

KCP_VIDEO = "kcp:rank=1,in=8x10x10x9x8,out=8x4x2x8x2"


def train(name: str, data: Path, **choices: object) -> Result:
    return tenfold.recipes.train(name, data=data, seeds=1, epochs=1, turns=2, **choices)  # type: ignore[arg-type]


def test_clips(tmp_path: Path) -> None:
    result = train("clips-lstm", write_clips(tmp_path), folds=1)
    assert [row.format.partition(":")[0] for row in result.rows] == ["dense", "kcp", "ttm", "bt", "tr", "ht"]
    counts = [row.map_parameters for row in result.rows[1:]]
    assert all(row.map_ratio > 1_000 for row in result.rows[1:])
    assert max(counts) < 1.1 * min(counts), "formats are compared at similar parameter counts"
    assert {run.n_test for run in result.runs} == {2}


def test_clips_of_another_size_get_modes_of_their_own(tmp_path: Path) -> None:
    frames = np.random.RandomState(0).randint(0, 256, (10, 3, 8, 12, 3)).astype(np.uint8)
    np.savez(tmp_path / "other.npz", frames=frames, labels=np.arange(10) % 2)
    result = train("clips-lstm", tmp_path / "other.npz", folds=1, format="kcp:rank=2", hidden=16)
    assert "10 clips" in result.settings["data"]
    assert len(result.rows) == 2


def test_runs_on_other_data_of_the_same_name_and_size_are_other_runs(tmp_path: Path) -> None:
    frames = np.random.RandomState(0).randint(0, 256, (10, 3, 8, 12, 3)).astype(np.uint8)
    labels = np.arange(10) % 2
    options = {"folds": 1, "format": "kcp:rank=2", "hidden": 16, "has_dense_twin": False, "out": tmp_path / "out"}
    for given in (labels, labels, labels[::-1]):
        np.savez(tmp_path / "clips.npz", frames=frames, labels=given)
        train("clips-lstm", tmp_path / "clips.npz", **options)
    assert len(list((tmp_path / "out" / "runs").glob("*seed0-fold0*.json"))) == 2


def test_a_folder_of_data_is_told_apart_by_the_bytes_of_its_files(tmp_path: Path) -> None:
    place = tmp_path / "folder" / "a.wav"
    place.parent.mkdir()
    digests = []
    for data in (b"one", b"two", b"one"):
        place.write_bytes(data)
        digests.append(digest_of_files(tmp_path / "folder"))
    assert digests[0] == digests[2] != digests[1]
    assert digest_of_files(place) == digests[0]


@pytest.mark.parametrize(("name", "n_gates"), [("speech-lstm", 4), ("speech-gru", 3)])
def test_speech(tmp_path: Path, name: str, n_gates: int) -> None:
    result = train(name, write_digits(tmp_path))
    assert [row.format.partition(":")[0] for row in result.rows] == ["dense", "kcp", "ttm", "bt", "tr", "ht"]
    assert result.rows[0].map_parameters == n_gates * 128 * 516
    assert all(row.map_ratio > 1_000 for row in result.rows[1:])
    counts = [row.map_parameters for row in result.rows[1:]]
    assert max(counts) < 1.15 * min(counts)
    assert {run.n_test for run in result.runs} == {15}


def test_series(tmp_path: Path) -> None:
    place = write_series(tmp_path)
    result = train("series-lstm", place, recurrent_format="kcp:rank=8")
    assert {run.n_test for run in result.runs} == {16}
    assert all(row.recurrent_parameters < result.rows[0].recurrent_parameters / 8 for row in result.rows[1:])
    place.with_name("tiny_TEST.ts.gz").unlink()
    with pytest.raises(ValueError, match="the training data are tiny_TRAIN.ts.gz, without a test file tiny_TEST.ts.gz beside it"):
        train("series-lstm", place)


def test_characters(tmp_path: Path) -> None:
    result = train("charlm-lstm", write_text(tmp_path), format=["kcp:rank=2,in=8x16,out=16x32"], dense_lr=1e-2)
    assert result.metric == "bits per character"
    dense, kcp = result.rows
    assert (dense.map_parameters, kcp.map_parameters) == (2 * 128 * 512, 2 * 2 * (8 * 16 + 16 * 32))
    assert 0 < dense.score < 6


@pytest.mark.parametrize(
    ("name", "protocol", "words"),
    [
        ("ucf11-lstm", None, "bt-rnn: UCF11, 6 random frames, 80/20"),
        ("ucf11-lstm", "tt-rnn", "tt-rnn: UCF11, all frames, 5-fold"),
        ("ucf50-lstm", None, "6 frames evenly spread, 5 folds over groups (not a published protocol)"),
        ("ytc-lstm", None, "YouTube Celebrities, all frames, 5-fold"),
    ],
)
def test_videos(tmp_path: Path, name: str, protocol: str | None, words: str) -> None:
    root = tmp_path / "videos"
    for label in ("biking", "diving"):
        for clip in range(1, 6):
            place = {
                "ucf11-lstm": root / label / f"v_{label}_0{clip}" / f"v_{label}_0{clip}_01.mpg",
                "ucf50-lstm": root / label / f"v_{label}_g0{clip}_c01.avi",
                "ytc-lstm": root / f"000{clip}_0{clip}_{label}_doe.avi",
            }[name]
            write_video(place, 8, (48, 64))
    choices = {"protocol": protocol, "folds": 1, "format": KCP_VIDEO, "has_dense_twin": False, "out": tmp_path / "out"}
    result = train(name, root, **choices)
    assert result.protocol == words
    assert (result.rows[0].map_parameters, round(result.rows[0].map_ratio)) == (212, 278_219)
    assert result.settings["data"].startswith("videos: 10 clips of 2 classes")
    assert list((tmp_path / "out" / "frames").iterdir()), "frames are decoded once and kept"


def test_an_unknown_protocol(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no protocol 'six' for UCF11; one of bt-rnn, tt-rnn is needed: they are never mixed"):
        train("ucf11-lstm", tmp_path, protocol="six")


def test_clips_are_mirrored_and_shifted_with_their_border() -> None:
    height, width, channels = FRAME
    clips = torch.rand(8, 2, height * width * channels)
    augment = MirrorAndShift(height, width, most=3)
    changed = augment(clips, torch.Generator().manual_seed(0))
    assert changed.shape == clips.shape
    assert not torch.equal(changed, clips)
    same = augment(clips, torch.Generator().manual_seed(0))
    assert torch.equal(changed, same)
    before, after = (one.unflatten(2, FRAME) for one in (clips, changed))
    for one, other in zip(before, after, strict=True):
        found = [
            (down, right, mirrored)
            for down in range(-3, 4)
            for right in range(-3, 4)
            for mirrored in (False, True)
            if torch.equal(_inner(other.flip(2) if mirrored else other), _inner(one.roll((down, right), (1, 2))))
        ]
        assert len(found) == 1
    kept = MirrorAndShift(height, width, most=0)(clips, torch.Generator().manual_seed(0)).unflatten(2, FRAME)
    assert all(torch.equal(one, other) or torch.equal(one, other.flip(2)) for one, other in zip(before, kept, strict=True))


def _inner(clip: torch.Tensor) -> torch.Tensor:
    """The part of a clip (steps, height, width, channels) that no shift of up to 3 pixels brings in from outside."""
    return clip[:, 3:-3, 3:-3]
