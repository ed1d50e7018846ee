"""Posterior: what attaching changes, noise, divergence, uncertainty, and what is refused."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tenfold
from tenfold.bayes import DLRT, GroupLasso, HalfCauchy, L1Bonds, Posterior, Prior, Selection, attach
from tenfold.bayes.priors import Hyperprior
from tenfold.formats import CP, KT, SVD, TT, TTM
from tenfold.nn import Conv2d, Embedding, Linear


def network() -> nn.Sequential:
    return nn.Sequential(Linear(12, 8, format=TTM(rank=3)), nn.ReLU(), Linear(8, 6, format=CP(rank=4)), nn.ReLU(), nn.Linear(6, 2))


def test_attaching_changes_nothing_in_eval_and_is_undone() -> None:
    model, x = network(), torch.randn(5, 12)
    before, keys, parameters = model.eval()(x), set(model.state_dict()), list(model.parameters())
    posterior = attach(model, n_examples=100)
    assert_close(model(x), before, rtol=0, atol=0)
    assert keys < set(model.state_dict()) and "0.factorized.factors.log_variances.0" in model.state_dict()
    assert not any("noise" in key for key in model.state_dict())
    assert list(posterior.run.weights) == ["0", "2"]
    posterior.finish()
    assert set(model.state_dict()) == keys
    assert all(one is two for one, two in zip(model.parameters(), parameters, strict=True))
    assert_close(model(x), before, rtol=0, atol=0)


def test_point_factors_add_no_parameter() -> None:
    model = network()
    count = sum(p.numel() for p in model.parameters())
    attach(model, n_examples=100, kind="map")
    assert sum(p.numel() for p in model.parameters()) == count


def test_noise_is_drawn_by_steps_and_not_by_forward() -> None:
    model, x = network(), torch.randn(5, 12)
    twin = copy.deepcopy(model)
    posterior, other = attach(model, n_examples=100, seed=3), attach(twin, n_examples=100, seed=3)
    first, state = model(x), {key: value.clone() for key, value in model.state_dict().items()}
    assert_close(model(x), first, rtol=0, atol=0)
    assert_close(twin(x), first, rtol=0, atol=0)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    posterior.step()
    assert not torch.equal(model(x), first)
    other.step()
    assert_close(twin(x), model(x), rtol=0, atol=0)


def test_draws_have_the_moments_of_the_posterior() -> None:
    """4,000 draws: the sum of the variances within 10 %."""
    layer = Linear(6, 4, bias=False, format=TT(rank=2), dtype=torch.float64)
    posterior = attach(layer, n_examples=10, relative_variance=0.1)
    weights = posterior.predictions(lambda: layer.weight, 4000)
    mean, variance = posterior.moments("model")
    assert_close(weights.var(0).sum(), variance.sum(), rtol=0.1, atol=0)
    assert float((weights.mean(0) - mean).norm()) < 5 * math.sqrt(float(variance.sum()) / 4000)
    assert_close(layer.eval().weight, mean)


def test_rows_of_an_embedding() -> None:
    layer = Embedding(30, 8, format=TTM(rank=3), in_modes=(5, 6), out_modes=(2, 4))
    posterior = attach(layer, n_examples=10)
    mean, variance = posterior.row_moments("model", torch.tensor([3, 29]))
    dense_mean, dense_variance = posterior.moments("model")
    assert_close(mean, dense_mean[[3, 29]])
    assert_close(variance, dense_variance[[3, 29]])
    assert_close(mean, layer.eval()(torch.tensor([3, 29])))


@pytest.mark.parametrize("kind", ["map", "variational"])
def test_rows_are_those_that_the_layer_has(kind: Any) -> None:
    """29 rows in 5 x 6 digits: there is a padding row of the digits, and one of the layer."""
    layer = Embedding(29, 8, padding_idx=-26, format=TTM(rank=3), in_modes=(5, 6), out_modes=(2, 4))
    posterior = attach(nn.ModuleDict({"table": layer}), n_examples=10, kind=kind)
    ids = torch.tensor([[3, 28], [0, 3]])
    mean, variance = posterior.row_moments("table", ids)
    assert_close(mean, layer.eval()(ids))
    assert not variance[ids == 3].any() and variance[ids != 3].any() == (kind == "variational")
    assert posterior.row_moments("table", ids[:0])[0].shape == (0, 2, 8)
    for wrong in (-1, 29):
        with pytest.raises(
            IndexError, match=f"row_moments got the id {wrong}, but layer 'table' has 29 rows; ids must be 0 to 28: check the vocabulary"
        ):
            posterior.row_moments("table", torch.tensor([3, wrong]))
    with pytest.raises(TypeError, match=r"row_moments got ids of the dtype torch.float32; torch.int64 or torch.int32 is needed: convert"):
        posterior.row_moments("table", torch.tensor([1.0]))


def test_sampled_rows_have_the_moments_and_a_gradient() -> None:
    """20,000 draws of each row: means within five standard errors, variances within 6 %."""
    layer = Embedding(29, 8, padding_idx=3, format=TTM(rank=3), in_modes=(5, 6), out_modes=(2, 4))
    posterior = attach(nn.ModuleDict({"table": layer}), n_examples=10, relative_variance=0.1)
    ids = torch.tensor([[5, 28], [3, 0]])
    mean, variance = posterior.row_moments("table", ids)
    rows = posterior.sampled_rows("table", ids.expand(20_000, 2, 2), torch.Generator().manual_seed(1))
    assert_close(rows.mean(0), mean, rtol=0, atol=5 * math.sqrt(float(variance.max()) / 20_000))
    assert_close(rows.var(0), variance, rtol=0.06, atol=0)
    assert not rows[:, ids == 3].any()
    posterior.sampled_rows("table", ids).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in layer.parameters())
    with pytest.raises(IndexError, match="sampled_rows got the id 29, but layer 'table' has 29 rows; ids must be 0 to 28"):
        posterior.sampled_rows("table", torch.tensor([29]))
    with pytest.raises(TypeError, match="sampled_rows got ids of the dtype torch.float32"):
        posterior.sampled_rows("table", torch.zeros(2))


def test_sampled_rows_of_point_factors_are_the_rows() -> None:
    layer = Embedding(30, 8, format=TTM(rank=3), in_modes=(5, 6), out_modes=(2, 4))
    posterior = attach(layer, n_examples=10, kind="map")
    assert_close(posterior.sampled_rows("model", torch.tensor([3, 29])), layer(torch.tensor([3, 29])))


def test_penalty_is_warmed_up_and_per_example() -> None:
    model = network()
    posterior = attach(model, n_examples=50, temperature=3.0, warmup=(1, 3))
    weights = []
    for _ in range(4):
        weights.append(posterior.weight())
        assert_close(posterior.penalty(), posterior.weight() * posterior.kl())
        posterior.step()
    assert weights == [0.0, 0.0, 0.5 * 3 / 50, 3 / 50]


def test_gradients_reach_means_and_variances() -> None:
    model = network()
    posterior = attach(model, n_examples=10)
    posterior.step()
    posterior.loss(model(torch.randn(5, 12)).square().mean()).backward()
    for weight in posterior.run.weights.values():
        assert all(p.grad is not None and bool(p.grad.any()) for p in weight.parameters())
    assert not any(value.requires_grad for one in posterior.variances.values() for value in one.values.values())


def test_sums_groups_and_kernels() -> None:
    model = nn.Sequential(
        Conv2d(4, 8, 3, groups=2, format=CP(rank=3)),
        nn.Flatten(),
        Linear(32, 12, format=KT(rank=(2, 2), groups=((2, 1), (1, 2))), in_modes=(4, 4, 2), out_modes=(3, 2, 2)),
    )
    posterior = attach(model, n_examples=10, prior=Prior(HalfCauchy(), is_symmetric=False))
    posterior.step()
    posterior.loss(model(torch.randn(2, 4, 4, 4)).square().mean()).backward()
    assert set(posterior.spectra()["2"]) == {"r1", "r2"}


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("kind", ["map", "variational"])
def test_selection_drops_slices_of_zeros_at_any_scale(kind: Any, size: float) -> None:
    """From variances of 10 on, the floor of dead ones is above the cut of 1e-5."""
    layer = Linear(16, 16, format=SVD(rank=4))
    with torch.no_grad():
        for factor, (_, axis) in zip(layer.factorized.factors, layer.factorized.network.carriers("r"), strict=True):
            factor.normal_(0.0, size).narrow(axis, 2, 2).zero_()
    posterior = attach(layer, n_examples=5, kind=kind, relative_variance=1e-12)
    assert posterior.marks("model")["r"].tolist() == [True, True, False, False]
    assert posterior.shrink(Selection()).ranks == {"model": {"r": 2}}


def test_some_layers_by_name() -> None:
    assert list(attach(network(), "2", n_examples=1).run.weights) == ["2"]
    assert list(attach(network(), ["0", "2*"], n_examples=1).run.weights) == ["0", "2"]
    assert isinstance(tenfold.bayes.attach(network(), n_examples=1), Posterior)


def test_what_has_no_ranks() -> None:
    with pytest.raises(
        ValueError, match=r"'4' is a dense Linear, which has no ranks; a factorised layer is needed, as 0, 2: leave it out, or"
    ):
        attach(network(), "4", n_examples=1)
    with pytest.raises(ValueError, match="'7' matches no layer; the factorised ones are 0, 2: correct it"):
        attach(network(), "7", n_examples=1)
    with pytest.raises(
        ValueError, match=r"this Linear has no factorised layer, only dense ones; .* use layers of tenfold.nn, tenfold.factorize"
    ):
        attach(nn.Linear(2, 2), n_examples=1)
    with pytest.raises(TypeError, match="a list was given; a torch.nn.Module with factorised layers is needed: give the model"):
        attach([], n_examples=1)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_settings_out_of_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"attach got temperature=.*; it needs a finite number above 0: give one like 1"):
        attach(network(), n_examples=1, temperature=value)
    with pytest.raises(ValueError, match=r"attach got n_examples=.*; it needs a finite number above 0: give one like 60000"):
        attach(network(), n_examples=value)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"attach got damping=.*; it is the part of a step .* above 0 and at most 1: give 1.0"):
        attach(network(), n_examples=1, damping=value)


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="attach got kind='mcmc'; it is 'variational' or 'map': choose one of them"):
        attach(network(), n_examples=1, kind="mcmc")  # pyright: ignore[reportArgumentType]
    model = network()
    posterior = attach(model, "0", n_examples=1)
    with pytest.raises(
        ValueError, match=r"the layers 0 have a rank method already; a layer takes one at a time: call its finish\(\) first"
    ):
        attach(model, n_examples=1)
    with pytest.raises(
        ValueError, match="the loss is nan after 0 steps; a finite one is needed, .* lower the learning rate or the temperature"
    ):
        posterior.loss(torch.tensor(math.nan))
    with torch.no_grad():
        getattr(posterior.run.weights["0"].factors, "0").fill_(math.inf)
    posterior.run.every = 1
    with pytest.raises(
        ValueError, match=r"the factors of layer '0' hold values that are not finite \(rank 'r1', after 1 steps\); finite ones"
    ):
        posterior.step()


def test_layers_may_be_shared_but_not_factors() -> None:
    one, other = Linear(8, 8, format=SVD(rank=4)), Linear(8, 8, format=SVD(rank=4))
    assert list(attach(nn.Sequential(one, other, one), n_examples=10).run.weights) == ["0", "1"]
    one, other = Linear(8, 8, format=SVD(rank=4)), Linear(8, 8, format=SVD(rank=4))
    other.factorized.factors[0] = one.factorized.factors[0]
    text = (
        "layer '0' shares a factor with another place of the model; a rank method gives every layer new factors, which ends that: share "
        "whole layers, give the layer a factor of its own, or leave the layer out"
    )
    with pytest.raises(ValueError, match=text):
        attach(nn.Sequential(one, other), n_examples=10)
    with pytest.raises(ValueError, match="layer '1' shares a factor with another place"):
        attach(nn.Sequential(one, other), ["1"], n_examples=10)
    assert attach(nn.Sequential(one), n_examples=10).run.weights


METHODS: dict[str, Any] = {
    "variational": lambda model: attach(model, n_examples=10),
    "map": lambda model: attach(model, n_examples=10, kind="map"),
    "lasso": lambda model: GroupLasso(model, n_examples=10),
    "l1": lambda model: L1Bonds(model),
    "dlrt": lambda model: DLRT(model, rate=0.1),
}


@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("first", METHODS)
def test_a_layer_takes_one_method_until_it_is_finished(first: str, second: str) -> None:
    model = Linear(12, 8, format=SVD(rank=3))
    keys = list(model.state_dict())
    method = METHODS[first](model)
    with pytest.raises(
        ValueError, match=r"the layers model have a rank method already; a layer takes one at a time: call its finish\(\) first"
    ):
        METHODS[second](model)
    method.finish()
    assert list(model.state_dict()) == keys
    METHODS[second](model).finish()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"prior": HalfCauchy}, r"attach got prior=<class '.*HalfCauchy'>; it is an object of .*: make one, for instance HalfCauchy\(\)"),
        ({"prior": "half"}, "attach got prior='half'; it is an object of a hyperprior or of Prior: make one"),
        ({"n_examples": "64"}, "attach got n_examples='64', a str; it needs a number: give one like 60000"),
        ({"damping": None}, "attach got damping=None, a NoneType; it needs a number: give one like 1"),
    ],
)
def test_a_failed_attach_changes_nothing(settings: dict[str, Any], text: str) -> None:
    model = network()
    before = [type(one) for one in model.modules()]
    with pytest.raises(TypeError, match=text):
        attach(model, **{"n_examples": 10, **settings})
    assert [type(one) for one in model.modules()] == before
    attach(model, n_examples=10)


def test_a_prior_that_fails_leaves_the_model_as_it_was() -> None:
    class Failing(Hyperprior):
        def best(self, energy: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
            raise OverflowError

        def cost(self, variance: torch.Tensor) -> torch.Tensor:
            return variance

    model = network()
    with pytest.raises(OverflowError):
        attach(model, n_examples=10, prior=Failing())
    attach(model, n_examples=10)
