"""Protocols: published experiments on video, each with its frames, its scale and its splits. They are never mixed.

UCF11 is used in two ways whose accuracies must not be compared: all frames of a clip with 5-fold cross-validation (TT-RNN), and
six random frames with one 80/20 split (BT-RNN). Both scripts shuffle clips, so clips of one group are trained on and tested on.
"""

import os
from dataclasses import dataclass

from tenfold.data.sampling import AllFrames, RandomSorted, Sampling
from tenfold.data.splits import Split, holdout, k_fold
from tenfold.data.video import SIZE, VideoFolder
from tenfold.data.video_layouts import Layout, ucf11, youtube_celebrities
from tenfold.progress import Progress


@dataclass(frozen=True)
class Protocol:
    """How a data set is read and split in one publication.

    n_folds: folds of a cross-validation, or None: one split with `test_ratio` of the clips.
    center, scale: inputs are (pixels - center) / scale.
    """

    name: str
    source: str
    layout: Layout
    sampling: Sampling
    seed: int
    n_folds: int | None = None
    test_ratio: float = 0.2
    size: tuple[int, int] = SIZE
    center: float = 128.0
    scale: float = 1.0

    def open(
        self,
        root: str | os.PathLike[str],
        *,
        cache: str | os.PathLike[str] | None = None,
        strict: bool = False,
        n_threads: int = 1,
        progress: Progress | None = None,
    ) -> VideoFolder:
        """The data set as this protocol has it; see `VideoFolder` for the arguments and what is raised."""
        return VideoFolder(
            root,
            self.layout,
            sampling=self.sampling,
            size=self.size,
            cache=cache,
            center=self.center,
            scale=self.scale,
            strict=strict,
            n_threads=n_threads,
            progress=progress,
        )

    def splits(self, data: VideoFolder, *, seed: int | None = None) -> tuple[Split, ...]:
        """The folds, or the one split.

        Args:
            seed: of the shuffle; the protocol's own where left out.

        Raises:
            ValueError: the data set was read in another way.
        """
        mine = (self.sampling, self.size, self.center, self.scale)
        given = (data.sampling, data.size, data.center, data.scale)
        if mine != given:
            raise ValueError(
                f"the data set has sampling, size, center and scale {given}; the protocol {self.name} has {mine}, and protocols are not "
                "mixed: read the folder with its open(), or split with k_fold or holdout"
            )
        chosen = self.seed if seed is None else seed
        if self.n_folds is None:
            return (holdout(len(data), self.test_ratio, seed=chosen),)
        return k_fold(len(data), self.n_folds, seed=chosen)


UCF11_ALL_FRAMES = Protocol(
    name="UCF11, all frames, 5-fold",
    source="Yang, Krompass & Tresp 2017, Tensor-Train Recurrent Neural Networks for Video Classification, and its published script",
    layout=ucf11,
    sampling=AllFrames(1492),
    seed=11111986,
    n_folds=5,
)
"""All frames, at most 1,492. With all clips of the data set there, the folds are those of the script: same order, shuffle and seed."""

UCF11_SIX_FRAMES = Protocol(
    name="UCF11, 6 random frames, 80/20",
    source="Ye et al. 2018, Learning Compact Recurrent Neural Networks with Block-Term Tensor Decomposition, and its published script",
    layout=ucf11,
    sampling=RandomSorted(6),
    seed=0,
)
"""Six frames a clip, drawn once. The script's own draws have no seed; it splits the first 1,600 clips, here all are split."""

YTC_ALL_FRAMES = Protocol(
    name="YouTube Celebrities, all frames, 5-fold",
    source="Yang, Krompass & Tresp 2017, Tensor-Train Recurrent Neural Networks for Video Classification, and its published script",
    layout=youtube_celebrities,
    sampling=AllFrames(85),
    seed=11111986,
    n_folds=5,
)
"""All frames, at most 85. The script pads in front with zeros that its network reads; here lengths are given and padding is not read."""

PROTOCOLS = (UCF11_ALL_FRAMES, UCF11_SIX_FRAMES, YTC_ALL_FRAMES)
"""All of them."""
