"""From dense weights to factors: one place for one weight or many, in every dtype, with and without groups."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tenfold import CP, SVD, TT, TTM, Format, Tucker
from tenfold import decompose as module
from tenfold.decompose import check_weight, decompose, group_tensors, without_groups
from tenfold.fold import Fold, make_fold
from tenfold.layers import all_layers
from tenfold.solvers.whitening import Whitening

CONV = make_fold([("o", 12), ("i", 8), ("k", 3), ("k", 3)], 1)
GROUPED = make_fold([("o", 12), ("i", 4), ("k", 3)], 1, groups=3)
LINEAR = make_fold([("o", 30), ("i", 24)], 2)
PADDED = make_fold([("o", 11), ("i", 24)], 2, out_modes=(3, 4))


def weights(fold: Fold, count: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Weights of a low-rank part plus noise."""
    return [torch.randn(fold.shape, dtype=torch.float64).cumsum(0).cumsum(1).div(10).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("fold", [CONV, GROUPED, LINEAR, PADDED], ids=["conv", "grouped", "linear", "padded"])
@pytest.mark.parametrize("format", [SVD(rank=2), CP(rank=3), Tucker(rank=2), TT(rank=2), TTM(rank=0.4)], ids=lambda f: type(f).__name__)
def test_errors_are_those_of_the_weight(fold: Fold, format: Format):
    [weight] = weights(fold, 1)
    [made] = decompose([weight], fold, format.network(fold), format, warn=False)
    dense = made.weight.dense()
    assert dense.shape == fold.shape
    assert made.error == pytest.approx(float((weight - dense.detach()).norm() / weight.norm()), rel=1e-9)
    assert 0 < made.error < 1 and made.error_of(None, weight) == made.error


@pytest.mark.parametrize("fold", [CONV, GROUPED], ids=["conv", "grouped"])
@pytest.mark.parametrize("format", [SVD(rank=2), CP(rank=3), Tucker(rank=2), TT(rank=2)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("is_white", [False, True])
def test_many_at_once_are_one_by_one(fold: Fold, format: Format, is_white: bool):
    many, is_iterative = weights(fold, 4), isinstance(format, CP)
    size = torch.Size(fold.shape[1:]).numel()
    roots = torch.randn(4, fold.groups, size, size, dtype=torch.float64)
    metrics: list[Any] = [Whitening(root @ root.mT / size) for root in roots] if is_white else [None] * 4
    options: Any = {"sweeps": 200, "warn": False}
    together = decompose(many, fold, format.network(fold), format, whitenings=metrics, **options)
    alone = [
        decompose([weight], fold, format.network(fold), format, whitenings=[metric], **options)[0]
        for weight, metric in zip(many, metrics, strict=True)
    ]
    for a, b, weight, metric in zip(together, alone, many, metrics, strict=True):
        # the ridge with which CP starts is of the size that suits the whole batch, so its fits may differ a little
        torch.testing.assert_close(
            a.error_of(metric, weight), b.error_of(metric, weight), rtol=0.15 if is_iterative else 1e-3 if is_white else 1e-8, atol=1e-8
        )
        assert a.solution.errors.shape == b.solution.errors.shape == (fold.groups,)
        assert a.solution.history.shape[1] == fold.groups


def test_large_weights_are_solved_one_by_one(monkeypatch: pytest.MonkeyPatch):
    many = weights(CONV, 3)
    together = decompose(many, CONV, SVD(rank=3).network(CONV), SVD(rank=3))
    monkeypatch.setattr(module, "BATCH_LIMIT", 10)
    alone = decompose(many, CONV, SVD(rank=3).network(CONV), SVD(rank=3))
    assert [one.error for one in alone] == pytest.approx([one.error for one in together], rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_factors_have_the_dtype_of_the_weight(dtype: torch.dtype):
    [weight] = weights(CONV, 1, dtype)
    [made] = decompose([weight], CONV, SVD(rank=4).network(CONV), SVD(rank=4))
    assert {factor.dtype for factor in made.weight.factors} == {dtype} and made.weight.dense().dtype == dtype
    exact = torch.linalg.svdvals(weight.double().flatten(1))
    assert made.error == pytest.approx(float(exact[4:].norm() / exact.norm()), rel=1e-6)
    error = (weight.double() - made.weight.dense().double()).norm() / weight.double().norm()
    assert float(error.detach()) == pytest.approx(made.error, rel=0.05)


@pytest.mark.parametrize("format", [SVD(rank=2), CP(rank=2), Tucker(rank=2), TT(rank=2), TTM(rank=0.4)], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("fold", [CONV, GROUPED, LINEAR], ids=["conv", "grouped", "linear"])
def test_a_zero_weight(fold: Fold, format: Format):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [made] = decompose([torch.zeros(fold.shape)], fold, format.network(fold), format)
    assert made.error == 0
    torch.testing.assert_close(made.weight.dense(), torch.zeros(fold.shape), rtol=0, atol=0)


def test_the_same_seed_gives_the_same_factors():
    [weight] = weights(CONV, 1)
    made = [decompose([weight], CONV, CP(rank=20).network(CONV), CP(rank=20), seed=seed, sweeps=5, warn=False)[0] for seed in (0, 0, 1)]
    factors = [torch.cat([factor.flatten() for factor in one.weight.factors]) for one in made]
    assert torch.equal(factors[0], factors[1]) and not torch.equal(factors[0], factors[2])


def test_fits_that_did_not_converge_are_named():
    many = weights(CONV, 2)
    with pytest.warns(UserWarning, match="cp_als for first, second did not converge; allow more sweeps"):
        decompose(many, CONV, CP(rank=9).network(CONV), CP(rank=9), names=["first", "second"], sweeps=2)


def test_a_layer_of_several_groups_is_named_once():
    with pytest.warns(UserWarning, match="cp_als for conv did not converge"):
        decompose(weights(GROUPED, 1), GROUPED, CP(rank=3).network(GROUPED), CP(rank=3), names=["conv"], sweeps=1)


def test_groups_are_tensors_of_their_own():
    [weight] = weights(GROUPED, 1)
    assert group_tensors(GROUPED, weight).shape == (3, 4, 4, 3)
    torch.testing.assert_close(group_tensors(GROUPED, weight)[1], weight[4:8])
    assert without_groups(SVD(rank=2).network(GROUPED)).statement == "o1 r, r i1 k1 -> o1 i1 k1"
    [made] = decompose([weight], GROUPED, SVD(rank=2).network(GROUPED), SVD(rank=2))
    for k in range(3):
        spectrum = torch.linalg.svdvals(weight[4 * k : 4 * k + 4].flatten(1))
        part = made.weight.dense()[4 * k : 4 * k + 4]
        torch.testing.assert_close((part - weight[4 * k : 4 * k + 4]).norm(), spectrum[2:].norm())
        torch.testing.assert_close(made.solution.errors[k], spectrum[2:].norm() / spectrum.norm())


def test_transposed_groups_are_slices_of_the_input():
    dense = nn.ConvTranspose1d(6, 4, 3, groups=2, dtype=torch.float64)
    fold = all_layers()["ConvTranspose1d"].fold_of(dense, 1)
    [made] = decompose([dense.weight], fold, SVD(rank=1.0).network(fold), SVD(rank=1.0))
    torch.testing.assert_close(made.weight.dense(), dense.weight)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (
            torch.ones(2, 2, dtype=torch.cfloat),
            TypeError,
            "fc has the dtype torch.complex64; real floating-point values are needed: convert it",
        ),
        (torch.ones(2, 2, dtype=torch.int8), TypeError, "fc has the dtype torch.int8; real floating-point values are needed"),
        (torch.zeros(0, 2), ValueError, r"fc has shape \(0, 2\) and no values; leave the layer dense"),
        (torch.tensor([[1.0, float("nan")]]), ValueError, "fc has 1 values that are NaN or infinite among 2; all must be finite: repair"),
        (torch.ones(2, 2, device="meta"), ValueError, "fc is on the meta device, without values; a decomposition needs them: load"),
        (torch.full((2, 2), float("inf")), ValueError, "fc has 4 values that are NaN or infinite among 4"),
    ],
)
def test_weights_that_cannot_be_decomposed(weight: Tensor, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        check_weight(weight, "fc")


def test_a_weight_of_another_shape():
    with pytest.raises(ValueError, match=r"the weight has shape \(3, 3\), but this fold is for \(30, 24\); make a fold for its shape"):
        decompose([torch.ones(3, 3)], LINEAR, SVD(rank=2).network(LINEAR), SVD(rank=2))
