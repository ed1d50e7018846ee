"""Spectrogram: a waveform -> a sequence of spectra on a logarithmic scale, several of them in one step of a sequence model."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

INT16 = 32768.0  # an int16 waveform is divided by this: samples then lie in -1..1


@dataclass(frozen=True)
class Spectrogram:
    """Settings, and the map from a waveform to (steps, n_inputs) float32.

    The waveform is cut into frames of `window` samples, `hop` samples apart, each times a periodic Hann window; zeros follow the
    waveform until the last step is full, so that no sample is lost. A frame becomes log(max(|DFT|, floor)) of its window / 2 + 1 bins, or
    with `n_mels` log(max(F |DFT|^2, floor^2)) / 2 with triangular filters F of height 1, evenly spread over 0..sample_rate / 2 on the mel
    scale 2595 log10(1 + f / 700). `n_stacked` frames follow each other in one step.

    With window=256 and n_stacked=4 a step has 4 * 129 = 516 inputs. Nothing is standardised here: see `Sequences.standardized`.

    sample_rate: in Hz; a waveform of another rate is refused.
    window, hop: in samples.
    n_mels: number of filters, or None for all bins.
    floor: smallest magnitude; full scale is near window / 4.

    Raises:
        ValueError: a setting is out of range, or there are so many filters that some hold no bin.

    >>> Spectrogram()(torch.zeros(3600)).shape
    torch.Size([11, 516])
    """

    sample_rate: int = 8000
    window: int = 256
    hop: int = 80
    n_stacked: int = 4
    n_mels: int | None = None
    floor: float = 1e-3

    def __post_init__(self) -> None:
        counts = {"sample_rate": self.sample_rate, "window": self.window - 1, "hop": self.hop, "n_stacked": self.n_stacked}
        bad = [name for name, count in counts.items() if count < 1]
        if bad or not 0 < self.floor < math.inf:
            raise ValueError(
                f"{self} has {', '.join(bad) or 'floor'} out of range; a window of at least 2 samples, a floor above 0 and at least 1 of "
                "all others are needed: change it"
            )
        if self.n_mels is not None:
            n_empty = int((self.filters().sum(1) == 0).sum()) if self.n_mels >= 1 else 0
            if self.n_mels < 1 or n_empty:
                raise ValueError(
                    f"n_mels is {self.n_mels}, of which {n_empty} filters hold none of the {self.n_bins} bins; at least 1 filter and a bin "
                    "in each is needed: take fewer filters or a longer window"
                )

    @property
    def n_bins(self) -> int:
        """Frequencies of one frame before any filter."""
        return self.window // 2 + 1

    @property
    def n_inputs(self) -> int:
        """The size of a step."""
        return self.n_stacked * (self.n_mels or self.n_bins)

    def n_steps(self, n_samples: int) -> int:
        """Steps that a waveform of so many samples becomes; at least one."""
        n_frames = 1 + max(0, math.ceil((n_samples - self.window) / self.hop))
        return math.ceil(n_frames / self.n_stacked)

    def filters(self) -> Tensor:
        """The mel filters, (n_mels, n_bins)."""
        assert self.n_mels is not None
        top = self.sample_rate / 2
        places = 700 * (10 ** (np.linspace(0, 2595 * math.log10(1 + top / 700), self.n_mels + 2) / 2595) - 1)
        bins = np.linspace(0, top, self.n_bins)
        low, middle, high = places[:-2, None], places[1:-1, None], places[2:, None]
        rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
        return torch.from_numpy(np.maximum(0, np.minimum(rising, falling))).float()

    def __call__(self, waveform: Tensor | np.ndarray) -> Tensor:
        """(steps, n_inputs) of a waveform (samples): int16, or floating-point in -1..1.

        Raises:
            ValueError: it has no samples, more than one axis, or another dtype.
        """
        samples = torch.as_tensor(waveform)
        if samples.dim() != 1 or not len(samples) or not (samples.dtype == torch.int16 or samples.is_floating_point()):
            raise ValueError(
                f"the waveform has shape {tuple(samples.shape)} and dtype {samples.dtype}; one channel of int16, or of floating-point "
                "numbers in -1..1, with at least one sample is needed: convert it"
            )
        samples = samples.float() / INT16 if samples.dtype == torch.int16 else samples.float()
        n_frames = self.n_stacked * self.n_steps(len(samples))
        padded = torch.nn.functional.pad(samples, (0, (n_frames - 1) * self.hop + self.window - len(samples)))
        frames = padded.unfold(0, self.window, self.hop) * torch.hann_window(self.window)
        magnitudes = torch.fft.rfft(frames).abs()
        if self.n_mels is None:
            spectra = magnitudes.clamp_min(self.floor).log()
        else:
            spectra = (magnitudes.square() @ self.filters().T).clamp_min(self.floor**2).log() / 2
        return spectra.reshape(-1, self.n_inputs)
