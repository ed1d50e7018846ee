"""Small data sets in the forms that recipes read."""

import gzip
from pathlib import Path

import numpy as np

FRAME = (60, 80, 3)


def write_clips(folder: Path, n_clips: int = 10, n_frames: int = 4) -> Path:
    """Clips where the recipe looks for them: those of class 1 flicker."""
    random = np.random.RandomState(0)
    labels = np.arange(n_clips) % 2
    frames = np.repeat(random.randint(60, 200, (n_clips, 1, *FRAME)), n_frames, axis=1)
    frames[labels == 1, ::2] += 40
    place = folder / "fight_video" / "clips250_16x60x80.npz"
    place.parent.mkdir(parents=True)
    np.savez(place, frames=frames.astype(np.uint8), labels=labels)
    return place


def write_digits(folder: Path) -> Path:
    """Recordings of three digits by one speaker, ten takes each: tones of different heights."""
    random = np.random.RandomState(0)
    waves, digits, takes = [], [], []
    for digit in range(3):
        for take in range(10):
            time = np.arange(1200 + 100 * take) / 8000
            waves.append((8000 * np.sin(2 * np.pi * 400 * (digit + 1) * time) + random.randn(len(time)) * 100).astype(np.int16))
            digits.append(digit)
            takes.append(take)
    place = folder / "fsdd" / "fsdd_5speakers.npz"
    place.parent.mkdir(parents=True)
    offsets = np.cumsum([0, *map(len, waves)])
    speakers = np.array(["ada"] * len(waves))
    np.savez(place, audio=np.concatenate(waves), offsets=offsets, digit=np.array(digits), speaker=speakers, take=np.array(takes))
    return place


def write_series(folder: Path) -> Path:
    """Two files of series with 12 channels and two classes that differ in their mean."""
    random = np.random.RandomState(0)
    for part in ("TRAIN", "TEST"):
        lines = ["@problemName tiny", "@dimensions 12", "@classLabel true low high", "@data"]
        for number in range(16):
            values = random.randn(12, 5 + number % 3) + (2 if number % 2 else -2)
            lines.append(":".join([*(",".join(f"{one:.3f}" for one in channel) for channel in values), "high" if number % 2 else "low"]))
        (folder / f"tiny_{part}.ts.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder / "tiny_TRAIN.ts.gz"


def write_text(folder: Path) -> Path:
    """A text that repeats itself."""
    place = folder / "text.txt"
    place.write_text("the quick brown fox jumps over the lazy dog. " * 120)
    return place
