"""Contraction of a network with an input: planned once from sizes, run many times.

moves.py      what becomes of the input's indices when it meets a group of factors, as bit masks
orders.py     in which order it meets which groups: the cheapest ones first
layout.py     how its indices can lie in memory before and after a step, so that nothing large is copied
setting.py    what a search is told; apply_steps.py and convolve_steps.py price and build the steps of the two verbs
search.py     the choice; cost.py what an operation costs on a machine, pairs.py factors among themselves
lookup*.py    rows of tables for ids: what ids have in common is computed once. lookup.py plans, lookup_call.py is what others call,
              lookup_index.py finds the rows, lookup_product.py and lookup_run.py compute them
kept.py       results of factors that stay between calls, until a factor changes
steps.py      the plan as data; chain.py, convolve_run.py and run.py execute it with torch operations

A measured machine model is another `Machine` value; a native kernel is another way to run a `Step`.
"""

from tenfold.contract.chain import linear as linear
from tenfold.contract.convolve_run import convolution as convolution
from tenfold.contract.convolve_run import convolve as convolve
from tenfold.contract.convolve_steps import Positions as Positions
from tenfold.contract.convolve_steps import nominal_positions as nominal_positions
from tenfold.contract.cost import Machine as Machine
from tenfold.contract.lookup_call import Request as Request
from tenfold.contract.lookup_call import Reuse as Reuse
from tenfold.contract.lookup_call import each as each
from tenfold.contract.lookup_call import is_reusing as is_reusing
from tenfold.contract.lookup_call import look_up as look_up
from tenfold.contract.lookup_call import reuse_of as reuse_of
from tenfold.contract.lookup_call import summed as summed
from tenfold.contract.pairs import plan_dense as plan_dense
from tenfold.contract.pairs import plan_rows as plan_rows
from tenfold.contract.run import dense as dense
from tenfold.contract.run import digits_of as digits_of
from tenfold.contract.run import prepare as prepare
from tenfold.contract.run import rows as rows
from tenfold.contract.search import dense_plan as dense_plan
from tenfold.contract.search import fewest_flops as fewest_flops
from tenfold.contract.search import plan_convolution as plan_convolution
from tenfold.contract.search import plan_linear as plan_linear
from tenfold.contract.search import recount as recount
from tenfold.contract.steps import ContractionPlan as ContractionPlan
