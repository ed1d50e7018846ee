"""Solvers: a batch of dense tensors and a network -> factors. One algorithm per file; `als` works for every network."""
