"""Contraction of a network with an input: planned once from sizes, run many times.

search.py lists candidate plans and picks the cheapest, cost.py says what a step costs on a machine, steps.py is the plan as
data, and run.py executes it with torch operations. A measured machine model is another `Machine` value; a native kernel is
another way to run a `Step`.
"""

from tenfold.contract.cost import Machine as Machine
from tenfold.contract.pairs import plan_dense as plan_dense
from tenfold.contract.pairs import plan_rows as plan_rows
from tenfold.contract.run import convolve as convolve
from tenfold.contract.run import dense as dense
from tenfold.contract.run import linear as linear
from tenfold.contract.run import prepare as prepare
from tenfold.contract.run import rows as rows
from tenfold.contract.search import Positions as Positions
from tenfold.contract.search import dense_plan as dense_plan
from tenfold.contract.search import plan_convolution as plan_convolution
from tenfold.contract.search import plan_linear as plan_linear
from tenfold.contract.search import recount as recount
from tenfold.contract.steps import ContractionPlan as ContractionPlan
