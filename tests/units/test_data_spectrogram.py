"""Spectrograms against the discrete Fourier transform written out, and their shapes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tenfold.data import Spectrogram


def in_loops(waveform: np.ndarray, settings: Spectrogram) -> np.ndarray:
    """log(max(|DFT|, floor)) of Hann-windowed frames, (frames, bins), from the formula."""
    n_frames = settings.n_stacked * settings.n_steps(len(waveform))
    padded = np.concatenate([waveform, np.zeros(n_frames * settings.hop + settings.window)])
    time = np.arange(settings.window)
    hann = 0.5 - 0.5 * np.cos(2 * math.pi * time / settings.window)
    rows = []
    for frame in range(n_frames):
        part = padded[frame * settings.hop : frame * settings.hop + settings.window] * hann
        spectrum = [abs(np.sum(part * np.exp(-2j * math.pi * k * time / settings.window))) for k in range(settings.window // 2 + 1)]
        rows.append(np.log(np.maximum(spectrum, settings.floor)))
    return np.stack(rows)


def test_it_is_the_logarithm_of_the_magnitude_of_the_transform() -> None:
    settings = Spectrogram(window=32, hop=12, n_stacked=2)
    waveform = np.random.default_rng(0).standard_normal(150) * 0.3
    wanted = torch.from_numpy(in_loops(waveform, settings)).float().reshape(-1, settings.n_inputs)
    torch.testing.assert_close(settings(waveform), wanted, rtol=1e-4, atol=1e-4)  # float32 transforms; smallest magnitude 1e-3


def test_int16_is_divided_by_its_range() -> None:
    waveform = (np.random.default_rng(0).standard_normal(900) * 3000).astype(np.int16)
    torch.testing.assert_close(Spectrogram()(waveform), Spectrogram()(torch.from_numpy(waveform / 32768)))


def test_a_tone_is_loudest_in_its_bin() -> None:
    time = torch.arange(4000) / 8000
    spectra = Spectrogram(n_stacked=1)(torch.sin(2 * math.pi * 1000 * time))
    assert (spectra[:40].argmax(1) == 1000 * 256 // 8000).all()
    torch.testing.assert_close(spectra[10].max().exp(), torch.tensor(64.0), rtol=1e-3, atol=0)  # full scale is window / 4
    mel = Spectrogram(n_stacked=1, n_mels=20)
    heights = mel.filters()[:, 32]
    assert (mel(torch.sin(2 * math.pi * 1000 * time))[:40].argmax(1) == heights.argmax()).all()


def test_mel_filters_are_triangles_that_meet_at_their_middles() -> None:
    filters = Spectrogram(n_mels=16, window=512).filters()
    assert filters.shape == (16, 257)
    assert (filters >= 0).all()
    assert filters.max() <= 1
    inside = filters.sum(0)[filters[0].argmax() + 1 : filters[-1].argmax()]
    torch.testing.assert_close(inside, torch.ones_like(inside))
    settings = Spectrogram(n_mels=16, window=512, n_stacked=1)
    waveform = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    power = Spectrogram(window=512, n_stacked=1)(waveform).mul(2).exp()
    torch.testing.assert_close(settings(waveform), (power @ filters.T).log() / 2, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 900), st.sampled_from([(32, 12, 3), (16, 16, 1), (20, 31, 2)]))
def test_no_sample_is_lost_and_no_step_is_only_padding(n_samples: int, sizes: tuple[int, int, int]) -> None:
    window, hop, n_stacked = sizes
    settings = Spectrogram(window=window, hop=hop, n_stacked=n_stacked)
    steps = settings(torch.ones(n_samples))
    assert steps.shape == (settings.n_steps(n_samples), settings.n_inputs)
    covered = (n_stacked * len(steps) - 1) * hop + window
    assert covered >= n_samples
    assert len(steps) == 1 or (n_stacked * (len(steps) - 1) - 1) * hop + window < n_samples


def test_silence_is_finite_and_a_step_may_have_516_inputs() -> None:
    assert Spectrogram().n_inputs == 516
    torch.testing.assert_close(Spectrogram()(torch.zeros(100)), torch.full((1, 516), math.log(1e-3)))
    torch.testing.assert_close(Spectrogram(n_mels=10)(torch.zeros(100)), torch.full((1, 40), math.log(1e-3)))


def test_settings_and_waveforms_out_of_range_raise() -> None:
    with pytest.raises(
        ValueError, match=r"hop=0, .* has hop out of range; a window of at least 2 samples, a floor above 0 and at least 1 of all others"
    ):
        Spectrogram(hop=0)
    with pytest.raises(ValueError, match=r"has floor out of range; .*: change it"):
        Spectrogram(floor=0)
    with pytest.raises(
        ValueError, match=r"n_mels is 100, of which \d+ filters hold none of the 17 bins; .*: take fewer filters or a longer window"
    ):
        Spectrogram(window=32, n_mels=100)
    with pytest.raises(ValueError, match=r"n_mels is 0, .* at least 1 filter"):
        Spectrogram(n_mels=0)
    for waveform, given_ in {torch.zeros(0): r"\(0,\)", torch.zeros(2, 9): r"\(2, 9\)", torch.zeros(9, dtype=torch.int32): "int32"}.items():
        with pytest.raises(ValueError, match=rf"the waveform has shape .*{given_}.*; one channel of int16, or .* is needed: convert it"):
            Spectrogram()(waveform)
