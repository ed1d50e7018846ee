"""tenfold.nn: torch.nn's constructors plus `format=`. Every layer of tenfold.layers is here by its name, and the recurrent ones."""

from typing import Any

from tenfold.embeddings.hot_rows import HotRows as HotRows
from tenfold.embeddings.sharded_embedding import ShardedEmbedding as ShardedEmbedding
from tenfold.embeddings.shared_rows import HashEmbedding as HashEmbedding
from tenfold.embeddings.shared_rows import QuotientRemainderEmbedding as QuotientRemainderEmbedding
from tenfold.layers import all_layers as _all_layers
from tenfold.layers.conv import Conv1d as Conv1d
from tenfold.layers.conv import Conv2d as Conv2d
from tenfold.layers.conv import Conv3d as Conv3d
from tenfold.layers.conv_transpose import ConvTranspose1d as ConvTranspose1d
from tenfold.layers.conv_transpose import ConvTranspose2d as ConvTranspose2d
from tenfold.layers.conv_transpose import ConvTranspose3d as ConvTranspose3d
from tenfold.layers.embedding import Embedding as Embedding
from tenfold.layers.embedding_bag import EmbeddingBag as EmbeddingBag
from tenfold.layers.linear import Linear as Linear
from tenfold.recurrent import GRU as GRU
from tenfold.recurrent import LSTM as LSTM
from tenfold.recurrent import RNN as RNN
from tenfold.recurrent import GRUCell as GRUCell
from tenfold.recurrent import LSTMCell as LSTMCell
from tenfold.recurrent import RNNCell as RNNCell


def __getattr__(name: str) -> Any:
    """A layer that was added as a file of tenfold.layers and is not listed above."""
    if (layer := _all_layers().get(name)) is None:
        raise AttributeError(f"tenfold.nn has no layer {name!r}; it has {', '.join(sorted(_all_layers()))}")
    return layer
