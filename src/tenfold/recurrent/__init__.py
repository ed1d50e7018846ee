"""Recurrent layers: torch.nn's LSTM, GRU and RNN, and their cells, whose matrices may be factorised.

A recurrent layer is a container. Each of its matrices is a map, a child module of its own: torch's Linear where it is dense, tenfold's
where it is factorised. So planning, calibration, saving and all else that is made for Linear works on maps as it is.

    maps.py     one matrix: built dense or factorised, its gates as one more output mode
    container.py  what recurrent layers and their cells have in common: the way from and to torch's
    inputs.py   what goes in and comes out: padded, unbatched or packed, with the checks that torch makes
    scan.py     the recurrence over time: padded or packed, forwards or backwards
    base.py     Recurrent: what LSTM, GRU and RNN have in common
    lstm.py, gru.py, rnn.py, cells.py    the formulas
    opened.py   torch's recurrent layers in a model <-> containers with dense maps
"""

from tenfold.recurrent.cells import GRUCell as GRUCell
from tenfold.recurrent.cells import LSTMCell as LSTMCell
from tenfold.recurrent.cells import RNNCell as RNNCell
from tenfold.recurrent.gru import GRU as GRU
from tenfold.recurrent.lstm import LSTM as LSTM
from tenfold.recurrent.rnn import RNN as RNN
