"""tenfold: neural networks many times smaller by tensor decomposition, after training or from the first step of it.

The data flow, in the order of the functions:

    plan      model, format, budget            -> Plan: a format and ranks for every layer, editable
    compress  model, Plan, calibration data    -> a model with factorised layers
    finetune  the model, training data         -> the accuracy back
    search    model, Budget(accuracy_drop=..)  -> the smallest model within a loss of accuracy: the three steps, several times
    save, load, export                         -> safetensors, torch.export, ONNX, dense
    report    both models, test data           -> what it cost: an HTML page and JSON

`tenfold.nn` has torch.nn's layers with `format=` for training from scratch. A format is a statement of indices (`network.py`);
`docs/architecture.md` says what lives where.
"""

from tenfold import bayes as bayes
from tenfold import correction as correction
from tenfold import diagnosis as diagnosis
from tenfold import export as export
from tenfold import init as init
from tenfold import nn as nn
from tenfold import recipes as recipes
from tenfold.budget import Budget as Budget
from tenfold.compress import compress as compress
from tenfold.compress import factorize as factorize
from tenfold.evaluate import evaluate as evaluate
from tenfold.export import load as load
from tenfold.export import save as save
from tenfold.export import to_dense as to_dense
from tenfold.finetune import finetune as finetune
from tenfold.format import Format as Format
from tenfold.formats import BT as BT
from tenfold.formats import CP as CP
from tenfold.formats import FCTN as FCTN
from tenfold.formats import HT as HT
from tenfold.formats import KCP as KCP
from tenfold.formats import KT as KT
from tenfold.formats import LMTN as LMTN
from tenfold.formats import STR as STR
from tenfold.formats import STT as STT
from tenfold.formats import SVD as SVD
from tenfold.formats import TKD as TKD
from tenfold.formats import TR as TR
from tenfold.formats import TRM as TRM
from tenfold.formats import TT as TT
from tenfold.formats import TTM as TTM
from tenfold.formats import LoHa as LoHa
from tenfold.formats import LoKr as LoKr
from tenfold.formats import Monarch as Monarch
from tenfold.formats import STTu as STTu
from tenfold.formats import Tucker as Tucker
from tenfold.plan import LayerPlan as LayerPlan
from tenfold.plan import Plan as Plan
from tenfold.plan import plan as plan
from tenfold.ranks.search import search as search
from tenfold.report import report as report
from tenfold.weight import FactorizedWeight as FactorizedWeight

__version__ = "0.1.0"
