"""Stable CP: within 1 % of the error, less sensitive, matrices and hopeless ranks as they are, text and plans."""

import torch

from tenfold.fold import make_fold
from tenfold.formats import CP, format_text, parse_format
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.sensitivity import sensitivity
from tenfold.solvers.stable_cp import SLACK, stable_cp

FOLD = make_fold([("o", 14), ("i", 12), ("k", 3), ("k", 3)], 1)
KERNELS = torch.randn(2, 14, 12, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_little_error_buys_a_lower_sensitivity() -> None:
    network = CP(rank=20).network(FOLD)
    plain, stable = cp_als(KERNELS, network), CP(rank=20, stable=True).solve(KERNELS, network)
    assert bool((stable.errors <= SLACK * plain.errors * (1 + 1e-9)).all())
    assert bool((sensitivity(network, stable.factors) < sensitivity(network, plain.factors)).all())
    assert stable.algorithm == "stable_cp" and stable.history[-1].tolist() == stable.errors.tolist()


def test_a_matrix_is_an_svd() -> None:
    fold = make_fold([("o", 14), ("i", 12)], 1)
    network = CP(rank=5).network(fold)
    assert stable_cp(KERNELS[..., 0, 0], network).algorithm == cp_als(KERNELS[..., 0, 0], network).algorithm != "stable_cp"


def test_a_kernel_of_zeros_and_one_without_structure() -> None:
    network = CP(rank=1).network(FOLD)
    mixed = torch.stack([torch.zeros_like(KERNELS[0]), KERNELS[0]])
    solution = stable_cp(mixed, network)
    assert float(solution.errors[0]) == 0 and 0.9 < float(solution.errors[1]) <= 1


def test_planned_errors_count_the_slack() -> None:
    networks = [CP(rank=rank).network(FOLD) for rank in (10, 20)]
    plain, stable = (CP(stable=flag).errors(KERNELS, networks) for flag in (False, True))
    torch.testing.assert_close(stable, SLACK * plain, rtol=1e-12, atol=0)


def test_text() -> None:
    assert format_text(CP(rank=8, stable=True)) == "cp:rank=8,stable=true"
    assert parse_format("cp:rank=8,stable=true")[0] == CP(rank=8, stable=True)
