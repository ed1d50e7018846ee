"""Alternating least squares with a penalty on the size of the factors, from several starts, for networks whose best fits may run away.

In networks with loops or hyper-edges the tensors of given ranks are not a closed set: terms can grow without bound and cancel. A
ridge on all factors, in proportion to the squared error, bounds them; at its minimum all factors carry equal norms. Such networks also have
local minima, so small tensors are fitted from several random starts at once, as one batch, and networks of bonds from truncated SVDs
too; the best fit counts.

Source: Phan et al. 2020, arXiv 2008.05441 (sensitivity), and arXiv 2203.02617 for loops; the ridge on every factor is the simple form
that came within a few per cent of the penalised sensitivity in our trials, see `cp_als`.
"""

from collections.abc import Sequence

from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.als import als
from tenfold.solvers.cp_als import LEAST_RIDGE, SHARE
from tenfold.solvers.ladder import ladder_errors
from tenfold.solvers.solution import Solution, best_of, check_target
from tenfold.solvers.svd_start import has_svd_start, svd_start

STARTS = 16  # random starts of a small tensor ...
VALUES = 1 << 15  # ... and fewer where all starts together would have more values: 16 take no longer than one below it
EXACT = 1e-4  # relative errors below this are not improved upon by other starts


def stable_als(
    target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0, start: Sequence[Tensor] | None = None, starts: int = STARTS
) -> Solution:
    """Factors of any network for a batch of tensors (batch, *network.shape), the best of several fits.

    Args:
        sweeps: at most so many for each start.
        start: batched factors of a fit to be tried first; left out, they come from truncated SVDs where the network allows it.
        starts: at most so many random ones, the first drawn from `seed`; 0 for none besides another start.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    check_target(target, network)
    if start is None and has_svd_start(network):
        start = svd_start(target, network, seed=seed)
    found = []
    if start is not None:
        found.append(_fit(target, network, sweeps, seed, start=start))
    if not found or (starts and float(found[0].errors.max()) > EXACT):
        found.append(_fit(target, network, sweeps, seed, starts=max(1, min(starts, VALUES // target.numel()))))
    return best_of(found)


def _fit(target: Tensor, network: Network, sweeps: int, seed: int, *, start: Sequence[Tensor] | None = None, starts: int = 1) -> Solution:
    return als(target, network, sweeps=sweeps, seed=seed, ridge=LEAST_RIDGE, share=SHARE, tolerance=1e-6, start=start, starts=starts)


def stable_errors(target: Tensor, networks: Sequence[Network], *, sweeps: int = 20, seed: int = 0) -> Tensor:
    """Relative errors (len(networks), batch) at several ranks, see `ladder`; from one start."""
    return ladder_errors(target, networks, lambda network: stable_als(target, network, sweeps=sweeps, seed=seed, starts=0), sweeps=sweeps)
