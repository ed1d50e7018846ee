"""The cap on a prior's gradient: its bound in every slice, the collapse that it prevents, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tenfold.bayes import attach
from tenfold.bayes.trust import capped
from tenfold.fold import make_fold
from tenfold.format import Format
from tenfold.formats import BT, CP, TT, TTM, Tucker
from tenfold.nn import Linear

FOLD = make_fold([("o", 12), ("i", 20)], 2, out_modes=(3, 4), in_modes=(4, 5))


@pytest.mark.parametrize("format", [CP(rank=3), TT(rank=3), TTM(rank=3), Tucker(rank=2), BT(rank=2, blocks=2)])
@pytest.mark.parametrize("trust", [0.1, 2.0])
def test_in_every_slice_the_prior_is_at_most_the_trust_times_the_data(format: Format, trust: float) -> None:
    """Slices of all scales; where the prior is weak already nothing changes."""
    network = format.network(FOLD)
    data = [torch.randn(shape, dtype=torch.float64) for shape in network.shapes]
    prior = [torch.randn(shape, dtype=torch.float64) * torch.logspace(-3, 1, shape[-1]) for shape in network.shapes]
    total = [one + two for one, two in zip(data, prior, strict=True)]
    found = capped(network, total, prior, trust)
    for rank, size in network.ranks.items():
        for number in range(size):
            pairs = [(k, axis) for k, axis in network.carriers(rank)]
            ours = sum(float((found[k] - data[k]).select(axis, number).square().sum()) for k, axis in pairs) ** 0.5
            theirs = sum(float(data[k].select(axis, number).square().sum()) for k, axis in pairs) ** 0.5
            assert ours <= trust * theirs * (1 + 1e-9)
    for one, two in zip(capped(network, total, prior, 1e6), total, strict=True):
        assert_close(one, two, rtol=0, atol=1e-12)


def test_a_slice_that_the_data_do_not_touch_gets_no_prior_gradient_either() -> None:
    network = CP(rank=2).network(FOLD)
    prior = [torch.ones(shape, dtype=torch.float64) for shape in network.shapes]
    total = [one.clone() for one in prior]
    for one, indices in zip(total, network.factors, strict=True):
        one.select(indices.index("r"), 1).add_(5.0)
    found = capped(network, total, prior, 1.0)
    for one, indices in zip(found, network.factors, strict=True):
        assert not one.select(indices.index("r"), 0).any()
        assert_close(one.select(indices.index("r"), 1), torch.full_like(one.select(indices.index("r"), 1), 6.0))


def train(temperature: float, trust: float | None) -> tuple[float, nn.Module]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 12, generator=generator)
    y = x @ torch.randn(12, 1, generator=generator) @ torch.randn(1, 8, generator=generator)
    torch.manual_seed(0)
    model = Linear(12, 8, format=TTM(rank=4))
    posterior = attach(model, n_examples=256, kind="map", temperature=temperature)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(150):
        posterior.step()
        optimizer.zero_grad()
        posterior.loss(F.mse_loss(model(x), y)).backward()
        if trust is not None:
            posterior.cap_gradients(trust)
        optimizer.step()
    return float(F.mse_loss(model(x), y).detach() / y.square().mean()), model


@pytest.mark.filterwarnings("ignore::tenfold.bayes.RanksWarning")
def test_a_prior_that_is_far_too_strong_does_not_switch_a_layer_off() -> None:
    """At 10,000 times the weight of Bayes' rule the layer is lost; with the cap it fits, as it does at temperature 1."""
    lost, _ = train(1e4, None)
    kept, _ = train(1e4, 0.5)
    fair, _ = train(1.0, None)
    assert lost > 0.9
    assert kept < 0.1 and fair < 0.1


def test_a_cap_that_is_never_reached_changes_nothing() -> None:
    """The prior's part is taken out and put back, so to 1e-5 and not to the bit."""
    one, two = (dict(train(1.0, trust)[1].named_parameters()) for trust in (None, 1e9))
    for name, value in one.items():
        assert_close(value, two[name], rtol=1e-3, atol=1e-4)


def test_what_is_refused() -> None:
    model = Linear(12, 8, format=TTM(rank=2))
    posterior = attach(model, n_examples=10)
    with pytest.raises(ValueError, match="cap_gradients got trust=0; it needs a finite number above 0: give one like 10"):
        posterior.cap_gradients(0)
    with pytest.raises(ValueError, match=r"layer 'model' has factors without a gradient; all need one here: call it after loss\(..\)"):
        posterior.cap_gradients(1.0)


def test_the_prior_of_a_posterior_is_recovered_from_its_gradients() -> None:
    """With no data term all of the gradient is the prior's, and a cap leaves nothing of it."""
    model = Linear(12, 8, format=TTM(rank=2))
    posterior = attach(model, n_examples=10)
    posterior.step()
    posterior.penalty().backward()
    posterior.cap_gradients(1.0)
    means: list[Tensor] = [p for name, p in model.named_parameters() if "log_variances" not in name and "factors" in name]
    assert len(means) == 2
    for mean in means:
        assert mean.grad is not None and float(mean.grad.abs().max()) < 1e-5
