"""Errors of one statement at several ranks, from one descent: what a plan needs of solvers that iterate.

The largest network is solved first; each smaller one starts from its factors, with every rank cut to the new size, and is refitted for a
few sweeps. These are estimates, a little above what a solver reaches from several starts. `cp_als.cp_errors` is the same for CP.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.cp_als import LEAST_RIDGE, SHARE
from tenfold.solvers.resizing import resized
from tenfold.solvers.solution import Solution

REFIT = 4  # the sweeps of all but the first network are this many times fewer ...
LEAST_SWEEPS = 4  # ... but not below this


def ladder_errors(target: Tensor, networks: Sequence[Network], solve: Callable[[Network], Solution], *, sweeps: int = 20) -> Tensor:
    """Relative errors (len(networks), batch) of networks that differ in their ranks only.

    Args:
        target: (batch, *network.shape).
        solve: the solver of the largest network.
        sweeps: those of `solve`; the others get a part of them.
    """
    errors: dict[int, Tensor] = {}
    last: tuple[Network, list[Tensor]] | None = None
    for number in sorted(range(len(networks)), key=lambda k: networks[k].numel, reverse=True):
        network = networks[number]
        if last is None:
            found = solve(network)
        else:
            found = als(
                target, network, sweeps=max(LEAST_SWEEPS, sweeps // REFIT), ridge=LEAST_RIDGE, share=SHARE, tolerance=1e-4,
                start=resized(*last, network),
            )  # fmt: skip
        errors[number], last = found.errors, (network, found.factors)
    return torch.stack([errors[number] for number in range(len(networks))])
