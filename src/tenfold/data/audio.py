"""Audio: recordings of speech from PCM wave files or an .npz file -> sequences of spectra with a class each."""

import itertools
import os
import re
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tenfold.data.npz import ascends, read_npz, whole_numbers
from tenfold.data.sequences import Sequences
from tenfold.data.skipped import Skipped, UnreadableFile, first_few, warn_of
from tenfold.data.spectrogram import Spectrogram
from tenfold.data.splits import Split

FSDD_RATE = 8000  # Hz
FSDD_TEST_TAKES = 5  # takes 0-4 of every digit and speaker are the official test set
NEEDED = "a whole PCM wave file of int16 with one channel"


@dataclass(frozen=True, eq=False)
class Recordings:
    """Waveforms with a class each.

    waveforms: int16 or floating-point (samples), of different lengths.
    sample_rate: in Hz, of all.
    labels: number of the class of each.
    classes: names of the classes, in the order of their numbers.
    speakers, takes: of each recording; may be empty.
    skipped: files that could not be read.
    """

    waveforms: tuple[np.ndarray, ...]
    sample_rate: int
    labels: Tensor
    classes: tuple[str, ...]
    speakers: tuple[str, ...] = ()
    takes: tuple[int, ...] = ()
    skipped: tuple[Skipped, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.waveforms)

    def sequences(self, spectrogram: Spectrogram) -> Sequences:
        """The spectra of all recordings; groups are the speakers.

        Raises:
            ValueError: the sample rates differ.
        """
        if spectrogram.sample_rate != self.sample_rate:
            raise ValueError(_wrong_rate("the recordings", self.sample_rate, spectrogram.sample_rate))
        return Sequences(tuple(spectrogram(one) for one in self.waveforms), self.labels, self.classes, self.speakers)

    def official_split(self) -> Split:
        """The official split of FSDD: takes 0-4 are for testing.

        Raises:
            ValueError: the takes are not known, or all are on one side.
        """
        test = tuple(k for k, take in enumerate(self.takes) if take < FSDD_TEST_TAKES)
        train = tuple(k for k, take in enumerate(self.takes) if take >= FSDD_TEST_TAKES)
        if not test or not train:
            raise ValueError(
                f"{len(test)} recordings have takes below {FSDD_TEST_TAKES} and {len(train)} have others; the official split needs both: "
                "give all takes, or split with holdout"
            )
        return Split(train, test)


def spoken_digits(
    path: str | os.PathLike[str], spectrogram: Spectrogram | None = None, *, is_standardized: bool = True
) -> tuple[Sequences, Sequences]:
    """Training and test sequences of the Free Spoken Digit Dataset by its official split, standardised by the training part's moments.

    Args:
        path: the data set's folder of wave files, or an .npz file, see `read_fsdd`.

    Raises:
        ValueError: see `read_fsdd` and `read_wave_folder`.
    """
    chosen = Spectrogram() if spectrogram is None else spectrogram
    place = Path(path)
    recordings = read_wave_folder(place, sample_rate=chosen.sample_rate) if place.is_dir() else read_fsdd(place)
    sequences = recordings.sequences(chosen)
    split = recordings.official_split()
    train, test = sequences.subset(split.train), sequences.subset(split.test)
    if not is_standardized:
        return train, test
    moments = train.moments()
    return train.standardized(*moments), test.standardized(*moments)


def read_fsdd(path: str | os.PathLike[str]) -> Recordings:
    """The recordings of an .npz file of the Free Spoken Digit Dataset (Jackson et al., 8 kHz).

    It holds `audio` (int16, all one after another), `offsets` (where each begins, and the end), `digit`, `speaker` and `take`.

    Raises:
        ValueError: the file is missing or damaged, or has other arrays.
    """
    place = Path(path)
    arrays = read_npz(place)
    names = ("audio", "offsets", "digit", "speaker", "take")
    if not set(names) <= set(arrays):
        raise ValueError(f"{place} has the arrays {sorted(arrays)}; it needs {', '.join(names)}: write it with numpy.savez")
    if flat := [f"{name} of shape {arrays[name].shape}" for name in names if arrays[name].ndim != 1]:
        raise ValueError(f"{place} has {', '.join(flat)}; one axis is needed for each array: flatten them and write it again")
    audio, offsets = arrays["audio"], arrays["offsets"]
    digits, takes = (whole_numbers(place, name, arrays[name]) for name in ("digit", "take"))
    counts = {len(offsets) - 1, *(len(arrays[name]) for name in names[2:])}
    if len(counts) != 1 or not ascends(offsets, len(audio)) or audio.dtype != np.int16 or digits.min() < 0 or digits.max() > 9:
        given = ", ".join(f"{len(arrays[name])} {name}s" for name in names[2:])
        raise ValueError(
            f"{place} has {len(offsets)} offsets, {given} and audio of {audio.dtype}; int16 audio, ascending offsets, one more than "
            "recordings, and a digit 0-9, a speaker and a take for each are needed: write it again"
        )
    return Recordings(
        waveforms=tuple(audio[start:end] for start, end in itertools.pairwise(offsets)),
        sample_rate=FSDD_RATE,
        labels=torch.from_numpy(digits),
        classes=tuple("0123456789"),
        speakers=tuple(str(speaker) for speaker in arrays["speaker"]),
        takes=tuple(takes.tolist()),
    )


def read_wave_folder(root: str | os.PathLike[str], *, sample_rate: int, strict: bool = False) -> Recordings:
    """The recordings of a folder: CLASS_SPEAKER_TAKE.wav as in FSDD, or a folder of wave files for each class.

    Files that cannot be read are left out with a warning and listed in `skipped`; one of another sample rate is an error.

    Args:
        strict: raises for the first file that cannot be read.

    Raises:
        ValueError: the folder is missing or has no readable wave file, or a file has another sample rate.
        UnreadableFile: a ValueError: a file cannot be read and `strict` is set.
    """
    place = Path(root)
    if not place.is_dir():
        raise ValueError(f"the folder {place} does not exist; a folder of wave files is needed: check the path")
    files = sorted(path for path in place.glob("*.wav"))
    files += sorted(path for folder in place.iterdir() if folder.is_dir() for path in folder.glob("*.wav"))
    found: list[tuple[_Name, np.ndarray]] = []
    skipped: list[Skipped] = []
    for path in files:
        try:
            found.append((_Name.of(path, place), read_wave(path, sample_rate=sample_rate)))
        except UnreadableFile as error:
            if strict:
                raise
            skipped.append(Skipped(error.path, error.reason))
    if not found:
        raise ValueError(
            f"the folder {place} has 0 readable wave files of {len(files)}, skipped: {first_few(skipped) or 'none'}; at least one, named "
            "CLASS_SPEAKER_TAKE.wav or in a folder of its class, is needed: check the path"
        )
    warn_of(skipped, len(files), place, stacklevel=2)
    return _recordings(found, sample_rate, skipped)


def _recordings(found: "Sequence[tuple[_Name, np.ndarray]]", sample_rate: int, skipped: Sequence[Skipped]) -> Recordings:
    classes = tuple(sorted({name.label for name, _ in found}))
    is_named = all(name.take is not None for name, _ in found)
    return Recordings(
        waveforms=tuple(waveform for _, waveform in found),
        sample_rate=sample_rate,
        labels=torch.tensor([classes.index(name.label) for name, _ in found]),
        classes=classes,
        speakers=tuple(name.speaker for name, _ in found) if is_named else (),
        takes=tuple(name.take or 0 for name, _ in found) if is_named else (),
        skipped=tuple(skipped),
    )


@dataclass(frozen=True)
class _Name:
    """What a file's place says."""

    label: str
    speaker: str = ""
    take: int | None = None

    @staticmethod
    def of(path: Path, root: Path) -> "_Name":
        if path.parent != root:
            return _Name(path.parent.name)
        parts = re.fullmatch(r"([^_]+)_(.+)_(\d+)", path.stem)
        if parts is None:
            raise UnreadableFile(path, "its name has no class", "the name CLASS_SPEAKER_TAKE.wav, or a folder of its class,")
        return _Name(parts[1], parts[2], int(parts[3]))


def read_wave(path: str | os.PathLike[str], *, sample_rate: int) -> np.ndarray:
    """The samples of a PCM wave file with one channel of int16.

    Raises:
        UnreadableFile: a ValueError: it is no such file, or is empty or cut off.
        ValueError: it has another sample rate.
    """
    place = Path(path)
    try:
        with wave.open(str(place), "rb") as file:
            shape = (file.getnchannels(), file.getsampwidth())
            rate, n_promised = file.getframerate(), file.getnframes()
            data = file.readframes(n_promised)
    except (wave.Error, EOFError, OSError, RuntimeError) as error:  # the last where a chunk is longer than the file, in some Pythons
        raise UnreadableFile(place, str(error) or type(error).__name__, NEEDED) from error
    if shape != (1, 2):
        raise UnreadableFile(place, f"it has {shape[0]} channels of {8 * shape[1]} bits", NEEDED)
    if rate != sample_rate:
        raise ValueError(_wrong_rate(f"the file {place}", rate, sample_rate))
    samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)
    if not len(samples) or len(samples) < n_promised:
        raise UnreadableFile(place, f"it holds {len(samples)} of {n_promised} samples", NEEDED)
    return samples


def _wrong_rate(what: str, given: int, needed: int) -> str:
    return f"the sample rate of {what} is {given} Hz; {needed} Hz is needed: resample, or give sample_rate={given} everywhere"
