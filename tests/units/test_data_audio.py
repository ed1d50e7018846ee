"""Audio: wave files and the spoken digits, with their official split."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.data import Spectrogram, UnreadableFile, read_fsdd, read_wave, read_wave_folder, spoken_digits

DATA = Path(os.environ.get("TENFOLD_DATA", Path(__file__).parents[3] / "shared" / "data"))
FSDD = DATA / "fsdd" / "fsdd_5speakers.npz"


def write_wave(path: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def tone(n: int) -> np.ndarray:
    return (5000 * np.sin(np.arange(n) / 3)).astype(np.int16)


def digits(n: int = 12) -> dict[str, np.ndarray]:
    """Arrays as in the packed data set: two digits of one speaker, takes 0, 1, 2 ..."""
    lengths = 500 + 100 * np.arange(n)
    return {
        "audio": tone(int(lengths.sum())),
        "offsets": np.cumsum([0, *lengths]),
        "digit": np.arange(n, dtype=np.int8) % 2,
        "speaker": np.array(["jo"] * n),
        "take": np.arange(n, dtype=np.int16) // 2 * 2,
    }


def test_wave_files_are_read_whole(tmp_path: Path) -> None:
    samples = tone(333)
    np.testing.assert_array_equal(read_wave(write_wave(tmp_path / "a.wav", samples), sample_rate=8000), samples)


def test_wave_files_that_do_not_fit_raise(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the sample rate of the file .*a\.wav is 16000 Hz; 8000 Hz is needed: resample, or give sample_rate=16000"
    ):
        read_wave(write_wave(tmp_path / "a.wav", tone(9), rate=16000), sample_rate=8000)
    for name, file in {
        "it has 2 channels of 16 bits": write_wave(tmp_path / "b.wav", tone(10), channels=2),
        "it has 1 channels of 8 bits": write_wave(tmp_path / "c.wav", tone(10), width=1),
        "it holds 0 of 0 samples": write_wave(tmp_path / "d.wav", tone(0)),
    }.items():
        with pytest.raises(
            UnreadableFile, match=rf"cannot be read \({name}\); a whole PCM wave file of int16 with one channel is needed: repair"
        ):
            read_wave(file, sample_rate=8000)
    cut = write_wave(tmp_path / "e.wav", tone(100))
    cut.write_bytes(cut.read_bytes()[:-61])
    with pytest.raises(UnreadableFile, match=r"e\.wav cannot be read \(it holds 69 of 100 samples\)"):
        read_wave(cut, sample_rate=8000)
    (tmp_path / "f.wav").write_text("no sound")
    with pytest.raises(UnreadableFile, match=r"f\.wav cannot be read \(file does not start with RIFF id\)"):
        read_wave(tmp_path / "f.wav", sample_rate=8000)
    (tmp_path / "g.wav").write_bytes(b"")
    with pytest.raises(UnreadableFile, match=r"g\.wav cannot be read \(EOFError\)"):
        read_wave(tmp_path / "g.wav", sample_rate=8000)
    whole = write_wave(tmp_path / "h.wav", tone(100)).read_bytes()
    (tmp_path / "h.wav").write_bytes(whole[:17] + b"\x7f" + whole[18:])  # a byte of the length of the first chunk
    with pytest.raises(UnreadableFile, match=r"h\.wav cannot be read \(\w+"):
        read_wave(tmp_path / "h.wav", sample_rate=8000)


def test_folders_have_names_of_fsdd_or_a_folder_for_each_class(tmp_path: Path) -> None:
    for name in ("7_jackson_3", "0_de_boer_12"):
        write_wave(tmp_path / "flat" / f"{name}.wav", tone(400))
    flat = read_wave_folder(tmp_path / "flat", sample_rate=8000)
    assert (flat.classes, flat.labels.tolist(), flat.speakers, flat.takes) == (("0", "7"), [0, 1], ("de_boer", "jackson"), (12, 3))
    for name in ("yes/b", "no/a", "no/c"):
        write_wave(tmp_path / "folders" / f"{name}.wav", tone(400))
    folders = read_wave_folder(tmp_path / "folders", sample_rate=8000)
    assert (folders.classes, sorted(folders.labels.tolist()), folders.speakers, folders.takes) == (("no", "yes"), [0, 0, 1], (), ())


def test_unreadable_wave_files_are_listed_and_another_rate_raises(tmp_path: Path) -> None:
    write_wave(tmp_path / "1_jo_0.wav", tone(400))
    write_wave(tmp_path / "name.wav", tone(400))
    (tmp_path / "2_jo_0.wav").write_text("no sound")
    with pytest.warns(
        UserWarning, match=r"2 of 3 files in .* were skipped: 2_jo_0\.wav \(file does not .*\), name\.wav \(its name has no class\); repair"
    ):
        recordings = read_wave_folder(tmp_path, sample_rate=8000)
    assert len(recordings) == 1
    assert [path.name for path, _ in recordings.skipped] == ["2_jo_0.wav", "name.wav"]
    with pytest.raises(UnreadableFile, match=r"2_jo_0\.wav cannot be read"):
        read_wave_folder(tmp_path, sample_rate=8000, strict=True)
    with pytest.raises(ValueError, match=r"1_jo_0\.wav is 8000 Hz; 16000 Hz is needed"):
        read_wave_folder(tmp_path, sample_rate=16000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty has 0 readable wave files of 0, skipped: none; at least one, named CLASS_SPEAKER_TAKE\.wav or in"
    ):
        read_wave_folder(tmp_path / "empty", sample_rate=8000)
    with pytest.raises(ValueError, match=r"the folder .*nowhere does not exist; a folder of wave files is needed: check the path"):
        read_wave_folder(tmp_path / "nowhere", sample_rate=8000)


def test_packed_digits_and_their_official_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **digits())
    recordings = read_fsdd(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.concatenate(recordings.waveforms), digits()["audio"])
    split = recordings.official_split()
    assert (split.test, split.train) == ((0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11))
    raw, _ = spoken_digits(tmp_path / "a.npz", is_standardized=False)
    train, test = spoken_digits(tmp_path / "a.npz")
    mean, std = raw.moments()
    torch.testing.assert_close(train.inputs[2], ((raw.inputs[2] - mean) / std).float())
    torch.testing.assert_close(test.inputs[0], ((Spectrogram()(recordings.waveforms[0]) - mean) / std).float())
    assert (train.groups[0], train.classes, test.targets.tolist()) == ("jo", tuple("0123456789"), [0, 1, 0, 1, 0, 1])


def test_a_folder_of_digits_is_the_same_as_the_packed_file(tmp_path: Path) -> None:
    arrays = digits()
    np.savez(tmp_path / "a.npz", **arrays)
    for k in range(12):
        samples = arrays["audio"][arrays["offsets"][k] : arrays["offsets"][k + 1]]
        write_wave(tmp_path / "wave" / f"{arrays['digit'][k]}_jo_{arrays['take'][k]}.wav", samples)
    one, _ = spoken_digits(tmp_path / "a.npz")
    other, _ = spoken_digits(tmp_path / "wave")
    for target in (0, 1):
        ours, theirs = (sorted(len(x) for x, y in data if y == target) for data in (one, other))  # pyright: ignore[reportGeneralTypeIssues]
        assert ours == theirs


def test_digits_that_do_not_fit_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, audio=tone(9))
    with pytest.raises(
        ValueError, match=r"a\.npz has the arrays \['audio'\]; it needs audio, offsets, digit, speaker, take: write it with numpy\.savez"
    ):
        read_fsdd(path)
    np.savez(path, **{**digits(), "take": np.arange(5)})
    with pytest.raises(
        ValueError, match=r"has 13 offsets, 12 digits, 12 speakers, 5 takes and audio of int16; int16 audio, ascending offsets"
    ):
        read_fsdd(path)
    np.savez(path, **{**digits(), "digit": digits()["digit"] + 0.5})
    with pytest.raises(ValueError, match=r"a\.npz has the digit 0\.5; whole numbers are needed: check that it is this data set"):
        read_fsdd(path)
    np.savez(path, **{**digits(), "take": np.array(["first"] * 12)})
    with pytest.raises(ValueError, match=r"a\.npz has the take first; whole numbers are needed"):
        read_fsdd(path)
    np.savez(path, **{**digits(), "digit": digits()["digit"][:, None]})
    with pytest.raises(ValueError, match=r"has digit of shape \(12, 1\); one axis is needed for each array: flatten them"):
        read_fsdd(path)
    np.savez(path, **digits())
    recordings = read_fsdd(path)
    with pytest.raises(
        ValueError, match=r"the sample rate of the recordings is 8000 Hz; 16000 Hz is needed: resample, or give sample_rate=8000"
    ):
        recordings.sequences(Spectrogram(sample_rate=16000))
    np.savez(path, **{**digits(), "take": np.full(12, 7)})
    with pytest.raises(
        ValueError, match=r"0 recordings have takes below 5 and 12 have others; the official split needs both: give all takes"
    ):
        read_fsdd(path).official_split()


@pytest.mark.skipif(not FSDD.is_file(), reason="needs the spoken digits: a folder named by $TENFOLD_DATA, or ../shared/data")
def test_spoken_digits() -> None:
    train, test = spoken_digits(FSDD)
    assert (len(train), len(test), train.n_features) == (2250, 250, 516)
    assert torch.bincount(test.targets).tolist() == [25] * 10
    assert torch.bincount(train.targets).tolist() == [225] * 10
    assert len(set(train.groups)) == 5
    mean, std = train.moments()
    torch.testing.assert_close(mean, torch.zeros(516, dtype=torch.float64), rtol=0, atol=1e-5)  # sums of 25,000 float32 values
    torch.testing.assert_close(std, torch.ones(516, dtype=torch.float64), rtol=0, atol=1e-5)
