"""FactorizedWeight whose factors torch's pruning masks."""

import pytest
import torch
import torch.nn.utils.prune as prune
from torch.testing import assert_close

from tenfold.fold import make_fold
from tenfold.formats import TTM
from tenfold.weight import FactorizedWeight

MATRIX = make_fold([("o", 20), ("i", 30)], 2)


def weight_of() -> FactorizedWeight:
    weight = FactorizedWeight(TTM(rank=2).network(MATRIX), MATRIX, dtype=torch.float64)
    weight.init_normal_(1.0)
    return weight


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_factors_that_are_masked_keep_their_places(number: int, training: bool) -> None:
    """torch's pruning puts the values under another name at the end of the list, and what it masks in an attribute."""
    weight = weight_of().train(training)
    prune.random_unstructured(weight.factors, str(number), 0.5)
    masked = FactorizedWeight(weight.network, weight.fold, [factor.detach() for factor in weight.factors])
    assert_close(weight.dense(), masked.dense(), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        x = torch.randn(3, 30, dtype=torch.float64)
        assert_close(weight.apply(x), x @ masked.dense().T, rtol=1e-10, atol=1e-10)


def test_masks_act_in_every_call() -> None:
    """Torch's hook multiplies with the mask when a module is called, which a list of factors never is: steps and loaded values count."""
    weight, x = weight_of(), torch.randn(3, 30, dtype=torch.float64)
    prune.l1_unstructured(weight.factors, "0", 0.5)
    optimizer = torch.optim.SGD(weight.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = weight.apply(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    before, mask = weight.apply(x), weight.factors.get_buffer("0_mask")
    weight.load_state_dict({name: value if "mask" in name else 2 * value for name, value in weight.state_dict().items()})
    assert_close(weight.apply(x), 4 * before, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        assert_close(weight.eval().apply(x), 4 * before, rtol=1e-10, atol=1e-10)
        weight.factors.get_parameter("0_orig").mul_(2)
        assert_close(weight.apply(x), 8 * before, rtol=1e-10, atol=1e-10)
        assert not (weight.factors[0] * (1 - mask)).any()
