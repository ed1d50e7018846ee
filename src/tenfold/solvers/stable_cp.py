"""CP-EPC: a CP fit, then the least sensitive factors within a little of its error.

Alternating least squares fits with a ridge that keeps terms from growing without bound; error-preserving correction then lowers the
sensitivity as far as the slack allows.

Source: Phan et al. 2020, arXiv 2008.05441. Deviation: the fit is regularised from the start, so there is little left to correct.
"""

from torch import Tensor

from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.epc import epc
from tenfold.solvers.solution import Solution, finish

SLACK = 1.01  # of the error; most of what slack can gain comes with the first per cent
CORRECTIONS = 60  # sweeps
MOST = 0.999  # the largest bound of a correction: zero factors have the relative error 1


def stable_cp(target: Tensor, network: Network, *, sweeps: int = 100, seed: int = 0, outside: Tensor | None = None) -> Solution:
    """Factors of a CP network for a batch of tensors. A matrix goes to the SVD, whose factors need no correction.

    Args:
        outside: (batch,), where the tensors are parts of larger ones: the squared error that is made outside of them, relative to their
            squared norms. The slack is then one of the whole error.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    first = cp_als(target, network, sweeps=sweeps, seed=seed)
    if len(network.factors) == 2 or float(first.errors.max()) >= MOST:
        return first
    delta = SLACK * first.errors
    if outside is not None:
        delta = (delta.square() + (SLACK**2 - 1) * outside).sqrt()
    found = epc(target, network, first.factors, delta=delta.clamp_max(MOST), sweeps=CORRECTIONS)
    return finish("stable_cp", target, network, found.factors, first.history, first.is_converged)
