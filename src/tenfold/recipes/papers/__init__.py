"""Papers: their numbers beside ours, each one file or folder with a function `reproduce(request) -> Reproduction`.

    kcp.py             Kronecker CP (arXiv 2008.09342); kcp_counts.py its parameter counts, computed by the formats of this package
    bayesian_ranks.py  ranks found by training (arXiv 2010.08689); bayesian_counts.py its parameter counts
    stable_cpd/        stable CP of pretrained convolutions (arXiv 2008.05441)

`tenfold reproduce PAPER` runs them; a new paper is also named in `PAPERS` of reproduce.py, one folder up.
"""
