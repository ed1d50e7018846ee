"""TKD: planted factors are found, errors of many ranks agree with solutions, the core alone is corrected, ranks for a plan."""

import pytest
import torch
from torch import Tensor

import tenfold
from tenfold.fold import make_fold
from tenfold.formats import CP, TKD
from tenfold.network import Network
from tenfold.solvers.sensitivity import sensitivity
from tenfold.solvers.solution import rebuild
from tenfold.solvers.tkd import is_tkd, tkd, tkd_errors
from tenfold.solvers.tt_svd import chain_errors, is_chain

FOLD = make_fold([("o", 16), ("i", 12), ("k", 3), ("k", 3)], 1)


def target(noise: float = 0.3, ranks: tuple[int, int, int] = (6, 8, 5)) -> Tensor:
    """Two kernels (2, 16, 12, 3, 3) of such ranks, and noise."""
    network = TKD(rank=ranks).network(FOLD)
    tensor = rebuild(network, [torch.randn(2, *shape, dtype=torch.float64) for shape in network.shapes])
    rest = torch.randn(tensor.shape, dtype=torch.float64)
    return tensor / tensor.norm() + noise * rest / rest.norm()


def test_planted_factors_are_found() -> None:
    """To 1e-3: the correction may use 1 % more than the error of the fit, whose ridge keeps it from being exact."""
    solution = tkd(target(0.0, (4, 4, 4)), TKD(rank=(4, 4, 4)).network(FOLD))
    assert float(solution.errors.max()) < 1e-3


def test_errors_of_many_ranks_are_those_of_solutions() -> None:
    """Within 5 %: a plan needs no more."""
    kernels = target()
    networks = [TKD(rank=ranks).network(FOLD) for ranks in ((8, 12, 6), (8, 6, 6), (4, 4, 4))]
    planned = tkd_errors(kernels, networks, sweeps=60)
    solved = torch.stack([tkd(kernels, network).errors for network in networks])
    torch.testing.assert_close(planned, solved, rtol=0.05, atol=0)


def test_the_bases_are_best_and_the_core_is_corrected() -> None:
    """The error is that of Tucker-2 and of CP on the core, in squares; sensitivity is not above that of CP at the same rank."""
    kernels = target()
    network = TKD(rank=(8, 12, 6)).network(FOLD)
    solution = tkd(kernels, network)
    outer = tenfold.Tucker(rank=(8, 6))
    tail = outer.solve(kernels, outer.network(FOLD)).errors
    assert bool((solution.errors >= tail * (1 - 1e-9)).all())
    torch.testing.assert_close(rebuild(network, solution.factors), kernels, rtol=0, atol=float(solution.errors.max() * kernels.norm()))
    assert bool(sensitivity(network, solution.factors).isfinite().all())


def test_the_slack_of_the_correction_is_one_of_the_whole_error() -> None:
    """`tkd_errors` makes the same fit of the core and adds 1 % to the whole error, which is what the correction may use up."""
    kernels = target()
    network = TKD(rank=(8, 12, 6)).network(FOLD)
    torch.testing.assert_close(tkd(kernels, network).errors, tkd_errors(kernels, [network], sweeps=100)[0], rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("o a, a r, r k l, r b, b i -> o i k l", True),
        ("o a, a r, r, r b, b i -> o i", True),
        ("o a, a r, r k, r b, b i, i s, s -> o i k", False),
        ("o a, a r, r k, r b, i b -> o i k", False),
        ("o r, r k, r i -> o i k", False),
        ("o a, a r k, r b, b c, c i -> o i k", False),
    ],
)
def test_which_networks_are_tkd(statement: str, answer: bool) -> None:
    sizes = {letter: 3 for letter in statement if letter.isalpha()}
    assert is_tkd(Network.parse(statement, sizes)) is answer


def test_ranks_for_a_plan() -> None:
    choices = TKD().rank_choices(FOLD)
    assert len(choices) == len(set(choices)) and choices == sorted(choices)
    assert all(1 <= a <= 16 and 1 <= b <= 12 and r <= 9 * min(a, b) for a, r, b in choices)
    assert TKD(rank=(6, 8, 5)).rank_choices(FOLD) == [(6, 8, 5)]


@pytest.mark.parametrize("ranks", [(4, 4, 4), (4, 9, 4), (8, 3, 6), (12, 5, 12)])
def test_a_matrix_gets_its_singular_value_decomposition(ranks: tuple[int, int, int]) -> None:
    """Alternating least squares over four matrices let their factors grow until float32 lost the weight, or LAPACK gave up."""
    matrices = torch.randn(2, 16, 12, dtype=torch.float64)
    fold = make_fold([("o", 16), ("i", 12)], 1)
    network = TKD(rank=ranks).network(fold)
    assert is_chain(network)
    solution = TKD().solve(matrices, network)
    values = torch.linalg.svdvals(matrices).square()
    best = (values[:, min(ranks) :].sum(1) / values.sum(1)).sqrt()
    torch.testing.assert_close(solution.errors, best)
    torch.testing.assert_close(chain_errors(matrices, [network])[0], best)
    assert max(float(factor.square().mean().sqrt()) for factor in solution.factors) < 2


def test_a_linear_layer_is_planned() -> None:
    dense = torch.nn.Sequential(torch.nn.Linear(64, 96))
    plan = tenfold.plan(dense, TKD(), budget=0.4)
    small = tenfold.compress(dense, plan)
    expected, found = (one.get_submodule("0").weight.detach() for one in (dense, small))  # type: ignore[operator, union-attr]
    assert float((found - expected).norm() / expected.norm()) == pytest.approx(plan.layers[0].error, abs=1e-4)


def test_modes_that_are_split_are_solved_too() -> None:
    fold = make_fold([("o", 16), ("i", 12)], 1, out_modes=(4, 4), in_modes=(3, 4))
    network = TKD(rank=2).network(fold)
    assert not is_tkd(network)
    planted = rebuild(network, [torch.randn(1, *shape, dtype=torch.float64) for shape in network.shapes])
    assert float(TKD(rank=2).solve(planted, network).errors) < 0.5


@pytest.mark.filterwarnings("ignore:tkd for")
def test_a_convolution_is_smaller_than_cp_of_the_same_rank() -> None:
    conv = torch.nn.Conv2d(32, 32, 3, bias=False)
    small = tenfold.compress(conv, TKD(rank=(8, 24, 8)))
    weight = small.get_submodule("factorized")
    assert isinstance(weight, tenfold.FactorizedWeight)
    assert weight.network.numel == 2 * 32 * 8 + 2 * 8 * 24 + 9 * 24 < CP(rank=24).network(weight.fold).numel
