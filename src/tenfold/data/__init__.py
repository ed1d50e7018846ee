"""tenfold.data: files of the field's experiments -> torch data sets of (input, target), the same on every machine for one seed.

    video.py        folders of clips (UCF11, UCF50, YouTube Celebrities)  -> VideoFolder
                    from video_layouts.py (what lies where), sampling.py (which frames), decode.py (PyAV), video_cache.py
    protocols.py    the published ways to use them, frames and splits     -> Protocol
    clips.py        an .npz file of clips                                 -> Clips
    audio.py        wave files, an .npz file of spoken digits             -> Recordings, and through spectrogram.py Sequences
    series.py       .ts time series                                       -> Sequences
    text.py         text files                                            -> numbers of characters, windows
    criteo.py, avazu.py  click data, streamed from any row on             -> ClickFiles, and with ids.py batches: Clicks
                    from ctr.py (layouts, rows), ctr_file.py (blocks of files), ctr_batches.py; ctr_synthetic.py makes such data up

    movielens.py    ratings of films, ranking tests                        -> FeatureRows, Candidates
    frappe.py       uses of apps in context                                -> FeatureRows
    images.py       .npz files of images, as arrays or as JPEG files       -> Images

    feature_rows.py rows of features of several fields, and their splits
    sequences.py    sequences of different lengths and how they become padded or packed batches
    splits.py       k-fold and hold-out splits, also by group or by class
    frames.py       pixels -> inputs;  npz.py  arrays of a file;  pillow.py  Pillow, where it is installed
    skipped.py      files that were left out, and why

Optional packages are imported where they are used: PyAV for video, Pillow for clips and packed
images (`pip install "tenfold[video]"` brings both).
"""

from tenfold.data.audio import Recordings as Recordings
from tenfold.data.audio import read_fsdd as read_fsdd
from tenfold.data.audio import read_wave as read_wave
from tenfold.data.audio import read_wave_folder as read_wave_folder
from tenfold.data.audio import spoken_digits as spoken_digits
from tenfold.data.avazu import read_avazu as read_avazu
from tenfold.data.clips import Clips as Clips
from tenfold.data.clips import read_clips as read_clips
from tenfold.data.criteo import read_criteo as read_criteo
from tenfold.data.ctr_batches import Clicks as Clicks
from tenfold.data.ctr_file import ClickFiles as ClickFiles
from tenfold.data.ctr_synthetic import PlantedClicks as PlantedClicks
from tenfold.data.ctr_synthetic import SyntheticClicks as SyntheticClicks
from tenfold.data.ctr_synthetic import write_clicks as write_clicks
from tenfold.data.feature_rows import FeatureRows as FeatureRows
from tenfold.data.frames import as_inputs as as_inputs
from tenfold.data.frappe import read_frappe as read_frappe
from tenfold.data.ids import HashedIds as HashedIds
from tenfold.data.ids import IdVocabulary as IdVocabulary
from tenfold.data.ids import build_vocabulary as build_vocabulary
from tenfold.data.images import Images as Images
from tenfold.data.images import read_images as read_images
from tenfold.data.images import read_packed_images as read_packed_images
from tenfold.data.movielens import Candidates as Candidates
from tenfold.data.movielens import read_candidates as read_candidates
from tenfold.data.movielens import read_ratings as read_ratings
from tenfold.data.protocols import PROTOCOLS as PROTOCOLS
from tenfold.data.protocols import UCF11_ALL_FRAMES as UCF11_ALL_FRAMES
from tenfold.data.protocols import UCF11_SIX_FRAMES as UCF11_SIX_FRAMES
from tenfold.data.protocols import YTC_ALL_FRAMES as YTC_ALL_FRAMES
from tenfold.data.protocols import Protocol as Protocol
from tenfold.data.sampling import AllFrames as AllFrames
from tenfold.data.sampling import Evenly as Evenly
from tenfold.data.sampling import RandomSorted as RandomSorted
from tenfold.data.sampling import Sampling as Sampling
from tenfold.data.sequences import Sequences as Sequences
from tenfold.data.sequences import pack_batch as pack_batch
from tenfold.data.sequences import pad_batch as pad_batch
from tenfold.data.sequences import sequence_loader as sequence_loader
from tenfold.data.series import read_series as read_series
from tenfold.data.skipped import Skipped as Skipped
from tenfold.data.skipped import UnreadableFile as UnreadableFile
from tenfold.data.spectrogram import Spectrogram as Spectrogram
from tenfold.data.splits import Split as Split
from tenfold.data.splits import holdout as holdout
from tenfold.data.splits import k_fold as k_fold
from tenfold.data.text import Vocabulary as Vocabulary
from tenfold.data.text import cut_text as cut_text
from tenfold.data.text import read_text as read_text
from tenfold.data.text import windows as windows
from tenfold.data.video import VideoFolder as VideoFolder
from tenfold.data.video_layouts import Layout as Layout
from tenfold.data.video_layouts import Listing as Listing
from tenfold.data.video_layouts import VideoFile as VideoFile
from tenfold.data.video_layouts import class_folders as class_folders
from tenfold.data.video_layouts import ucf11 as ucf11
from tenfold.data.video_layouts import ucf50 as ucf50
from tenfold.data.video_layouts import youtube_celebrities as youtube_celebrities
