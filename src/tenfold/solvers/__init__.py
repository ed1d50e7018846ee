"""Solvers: a batch of dense tensors and a network -> factors. One algorithm per file; `als` works for every network.

    als.py               alternating least squares for any network; stable_als.py with a penalty, where best fits may run away;
                         cp_als.py faster for CP of order 3. They share descent.py (sweeps) and update.py (one factor); ladder.py errors
                         at several ranks from one descent
    tt_svd.py, ht_svd.py, hosvd.py, block_svd.py    chains, binary trees, Tucker and Monarch by truncated SVDs, without iterations or few
    svd_start.py, hadamard_start.py, inner_start.py, resizing.py    what iterations start from
    output_fit.py        all factors in the metric of outputs, which is whitening.py, for very wide layers diagonal_whitening.py
    epc.py               error-preserving correction; bounded_step.py its update of one factor, stable_cp.py CP with it
    levenberg_marquardt.py    CP, all factors at once, with a penalty; cp_gauss_newton.py its linear system
    tkd.py, tkd_cpd.py   CP between two bases, at given ranks and within a bound; tucker2_bounded.py Tucker-2 within a bound
    table_metric.py      low rank of a table whose rows have metrics of their own; sparse_table.py such rows as sums of a few atoms
    sensitivity.py       how much a weight moves when its factors do, and how far its terms cancel; quadratic.py the forms behind it

solution.py has what a solver returns; contractions.py and axes.py handle tensors by the names of their indices.
"""
