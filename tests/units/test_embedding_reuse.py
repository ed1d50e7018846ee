"""Lookups that compute what ids share once: values and gradients in every format, bags, precision, memory, and what is kept in eval."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import tenfold.nn as tnn
from conformance.subjects import SUBJECTS, Subject, merged
from tenfold import bayes, contract
from tenfold.contract import lookup_call, lookup_index, lookup_product
from tenfold.contract.lookup import plan_lookup
from tenfold.contract.lookup_index import Ids, grouped
from tenfold.fold import make_fold
from tenfold.formats import CP, TT, TTM, Tucker
from tenfold.network import Network
from tenfold.recipes.measure import peak_bytes
from tenfold.weight import FactorizedWeight

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=str)


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse from FEWEST_IDS on, whether it pays or not."""
    for name in ("WORK", "WORK_WITH_GRADIENTS"):
        monkeypatch.setattr(lookup_call, name, 0)


@pytest.fixture(params=["one chunk", "many chunks"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few ids are enough for reuse; products come whole, or in chunks and parts so small that each has several of them."""
    monkeypatch.setattr(lookup_call, "FEWEST_IDS", 1)
    if request.param == "many chunks":
        monkeypatch.setattr(lookup_call, "CHUNK_BYTES", {"cpu": 64})
        monkeypatch.setattr(lookup_index, "FEWEST_OF_CHUNK", 16)
        monkeypatch.setattr(lookup_product, "PART_BYTES", {"cpu": 256})


def some_ids(n: int, n_rows: int, seed: int = 0) -> Tensor:
    """Half of them uniform, half of them few ones again and again, the first and the last among them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat([torch.randint(0, n_rows, (n // 2,), generator=generator), torch.randint(0, 5, (n - n // 2,), generator=generator)])
    ids[0], ids[1] = n_rows - 1, 0
    return ids[torch.randperm(n, generator=generator)]


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_call, "FEWEST_IDS", 1 << 60)


@EVERY
def test_rows_and_gradients_are_those_of_the_table(subject: Subject, small: None) -> None:
    torch.manual_seed(0)
    fold = merged(make_fold([("i", 29), ("o", 11)], 2, in_modes=(2, 5, 3), out_modes=(3, 2, 2)), subject.format)
    weight = subject.weight(fold, 2)
    ids = some_ids(120, 29)
    assert contract.is_reusing(weight.network, ids, weight.factors[0])
    got, wanted = weight.rows(ids.reshape(4, 30)), weight.dense()[ids].reshape(4, 30, 11)
    assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    flow = torch.randn_like(wanted)
    factors = list(weight.factors)
    for mine, other in zip(torch.autograd.grad(got, factors, flow), torch.autograd.grad(wanted, factors, flow), strict=True):
        assert_close(mine, other, rtol=1e-10, atol=1e-10)
    weight.eval()
    with torch.no_grad():
        for _ in range(2):  # the second time with what the first has kept
            assert_close(weight.rows(ids), weight.dense()[ids], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 4])
@pytest.mark.parametrize("format", [TTM(rank=3), CP(rank=3), TT(rank=2), Tucker(rank=2)], ids=str)
def test_bags_are_torchs(mode: str, padding_idx: int | None, format: Any, small: None) -> None:
    """Offsets, empty bags, bags of padding alone, an end of the last bag, two axes."""
    torch.manual_seed(1)
    last = padding_idx is None
    options = {"mode": mode, "padding_idx": padding_idx, "include_last_offset": last}
    layer: Any = tnn.EmbeddingBag(29, 11, **options, format=format, in_modes=(5, 6), out_modes=(3, 4), dtype=torch.float64)
    dense = layer.to_dense()
    ids = torch.cat([torch.tensor([4, 4, 7, 7, 4]), some_ids(55, 29)])
    ends = torch.tensor([0, 2, 2, 5, 30, 31, 31] + ([60] if last else []))
    cases = [(ids, ends), (ids.to(torch.int32), ends.to(torch.int32)), (ids[:0], ends[:1] * 0)]
    if not last or torch.__version__ >= "2.7":  # torch 2.6 counts one bag too few there
        cases.append((ids.reshape(12, 5),))
    for inputs in cases:
        mine, other = layer(*inputs), dense(*inputs)
        assert_close(mine, other, rtol=1e-12, atol=1e-12)
        flow = torch.randn_like(mine)
        got = torch.autograd.grad(mine, list(layer.factorized.factors), flow, materialize_grads=True)
        (through,) = torch.autograd.grad(other, dense.weight, flow)
        wanted = torch.autograd.grad(layer.factorized.dense(), list(layer.factorized.factors), through)
        for one, two in zip(got, wanted, strict=True):
            assert_close(one, two, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("trained", [False, True])
def test_weights_of_ids(trained: bool, small: None) -> None:
    layer: Any = tnn.EmbeddingBag(29, 11, mode="sum", padding_idx=3, format=TTM(rank=3), dtype=torch.float64)
    dense = layer.to_dense()
    ids = some_ids(60, 29).reshape(12, 5)
    weights = [torch.arange(60.0, dtype=torch.float64).reshape(12, 5).requires_grad_(trained) for _ in range(2)]
    mine, other = layer(ids, None, weights[0]), dense(ids, None, weights[1])
    assert_close(mine, other)
    mine.square().sum().backward()
    other.square().sum().backward()
    if trained:
        assert_close(weights[0].grad, weights[1].grad)
    through = torch.autograd.grad(layer.factorized.dense(), list(layer.factorized.factors), dense.weight.grad)
    for factor, gradient in zip(layer.factorized.factors, through, strict=True):
        assert_close(factor.grad, gradient)


def test_wrong_bags_are_refused_as_by_torch(small: None) -> None:
    layer: Any = tnn.EmbeddingBag(29, 11, format=TTM(rank=3))
    ids = some_ids(60, 29)
    wrong: list[tuple[tuple[torch.Tensor, ...], str]] = [
        ((ids,), r"the ids have the shape \(60,\) without offsets; give ids \(bags, length\), or ids \(n\) and offsets \(bags\)"),
        ((ids, torch.tensor([1, 5])), "the first offset is 1; the first bag needs to start at 0"),
        ((ids, torch.tensor([0, 99])), "the last offset is 99, but there are 60 ids; offsets may be 0 to 60: give all ids"),
        ((ids.reshape(12, 5), torch.tensor([0])), r"the ids have the shape \(12, 5\) with offsets; give ids"),
    ]
    for inputs, message in wrong:
        with pytest.raises((RuntimeError, ValueError)) as theirs:
            layer.to_dense()(*inputs)
        with pytest.raises(theirs.type, match=message):
            layer(*inputs)
    with pytest.raises(
        IndexError, match=r"index out of range: the ids are -1 to 4, but the table has 30 rows, .* ids must be 0 to 29: check"
    ):
        layer.factorized.rows(torch.tensor([-1, 4]))
    with pytest.raises(IndexError, match=r"the ids are 1 to 30, but the table has 30 rows, padding included"):
        layer.factorized.rows(torch.tensor([1, 30]))


def test_ids_beyond_32_bits() -> None:
    """Two thousand million rows and more: every digit is exact, also of ids that float32 and int32 do not hold."""
    layer = tnn.Embedding(6_000_000_000, 4, format=TTM(rank=2), in_modes=(2000, 3000, 1000), out_modes=(2, 2, 1), dtype=torch.float64)
    ids = torch.tensor([0, 16_777_217, 16_777_216, 2_147_483_648, 2_147_483_649, 5_999_999_999]).repeat(100)
    a, b, c = (factor.detach() for factor in layer.factorized.factors)
    i1, i2, i3 = ids // 3_000_000, ids // 1000 % 3000, ids % 1000
    rows = torch.einsum("nor,nrps,ns->nop", a[:, i1].movedim(1, 0), b[:, :, i2].movedim(2, 0), c[:, 0, i3].mT)
    assert_close(layer(ids), rows.reshape(-1, 4))
    assert_close(layer(ids[:3]), rows.reshape(-1, 4)[:3])


def test_gradients_of_gradients(small: None) -> None:
    fold = make_fold([("i", 12), ("o", 4)], 2, in_modes=(3, 4), out_modes=(2, 2))
    weight = FactorizedWeight(TTM(rank=2).network(fold), fold, dtype=torch.float64)
    weight.init_normal_(1.0)
    ids = torch.tensor([3, 11, 3, 0])
    names = [f"factors.{k}" for k in range(2)]

    def rows(*factors: Tensor) -> Tensor:
        return torch.func.functional_call(_Rows(weight), {f"weight.{name}": one for name, one in zip(names, factors, strict=True)}, (ids,))

    values = [factor.detach().requires_grad_() for factor in weight.factors]
    assert torch.autograd.gradcheck(rows, values)
    assert torch.autograd.gradgradcheck(rows, values)


class _Rows(torch.nn.Module):
    def __init__(self, weight: FactorizedWeight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.bags(ids, torch.tensor([0, 1, 1, 0]), 2, torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))


def test_transforms_of_torch_func_take_the_plain_way(small: None) -> None:
    layer = tnn.Embedding(29, 11, format=TTM(rank=2), dtype=torch.float64)
    ids = some_ids(40, 29).reshape(8, 5)
    got = torch.func.vmap(lambda part: layer(part))(ids)
    assert_close(got, layer.weight[ids])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype, small: None) -> None:
    """Sums are formed in float32: what is lost is the rounding of the factors' products at the end."""
    layer: Any = tnn.EmbeddingBag(29, 11, mode="sum", format=TTM(rank=3), dtype=dtype)
    exact = tnn.EmbeddingBag(29, 11, mode="sum", format=TTM(rank=3), dtype=torch.float64)
    exact.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    ids = some_ids(60, 29).reshape(6, 10)
    got = layer(ids, None, torch.full(ids.shape, 0.5, dtype=dtype))
    assert got.dtype == dtype
    assert_close(got.double(), exact(ids) / 2, rtol=1e-2, atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert exact.float()(ids).dtype == torch.float32
    got.sum().backward()
    assert all(factor.grad.dtype == dtype for factor in layer.factorized.factors)


def test_results_do_not_depend_on_the_run() -> None:
    layer = tnn.EmbeddingBag(10_000, 16, mode="mean", format=TTM(rank=8), in_modes=(20, 20, 25), out_modes=(2, 2, 4))
    ids = some_ids(4000, 10_000).reshape(400, 10)
    found = []
    for _ in range(2):
        layer.zero_grad()
        output = layer(ids)
        output.square().sum().backward()
        found.append([output.detach(), *(factor.grad for factor in layer.factorized.factors)])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


# -- what is chosen -------------------------------------------------------------------------------------------------------


def test_the_tree_of_products() -> None:
    """A chain is contracted from its end, Tucker's core after the outputs; a TT's outputs come last, not for each prefix."""
    table = make_fold([("i", 10_000_000), ("o", 64)], 3, in_modes=(200, 200, 250), out_modes=(4, 4, 4))
    chain = plan_lookup(TTM(rank=16).network(table), 40_960)
    assert [one.digits for one in chain.products] == [(0, 1), (0, 1, 2)]
    assert chain.lead == 1, "prefixes that share their second digit are neighbours"
    assert "256 values for each different (i1 i2)" in str(chain) and "64 values for each different (i1 i2 i3)" in str(chain)
    separate = plan_lookup(TT(rank=16).network(table), 40_960)
    assert separate.products[-1].digits == (0, 1, 2) and max(one.size for one in separate.products if one.digits) <= 16 * 64
    tucker = plan_lookup(Tucker(rank=8).network(table), 40_960)
    assert {len(one.digits) for one in tucker.products} >= {0, 3}
    assert plan_lookup(TTM(rank=16).network(table), 50_000) is plan_lookup(TTM(rank=16).network(table), 60_000)


def test_many_factors_and_a_single_one(small: None) -> None:
    many = TTM(rank=2).network(make_fold([("i", 512), ("o", 512)], 9, in_modes=(2,) * 9, out_modes=(2,) * 9))
    one = Network.parse("i1 o1 -> i1 o1", {"i1": 9, "o1": 4})
    for network in (many, one):
        factors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in network.shapes]
        radices = [network.sizes[mode] for mode in network.modes if mode[0] == "i"]
        ids = some_ids(60, int(torch.tensor(radices).prod()))
        got = contract.look_up(network, factors, contract.each(network, ids))
        wanted = contract.rows(contract.plan_rows(network), factors, contract.digits_of(ids, radices))
        assert_close(got, wanted)
        flow = torch.randn_like(wanted)
        for mine, other in zip(torch.autograd.grad(got, factors, flow), torch.autograd.grad(wanted, factors, flow), strict=True):
            assert_close(mine, other)


def test_reuse_is_counted() -> None:
    table = make_fold([("i", 60), ("o", 8)], 3, in_modes=(3, 4, 5), out_modes=(2, 2, 2))
    ids = torch.tensor([0, 1, 2, 0, 7, 59, 59, 59])
    reuse = contract.reuse_of(TTM(rank=2).network(table), ids)
    assert (reuse.n_ids, reuse.n_different) == (8, 5)
    assert dict(reuse.products) == {(0, 1): 3, (0, 1, 2): 5} or dict(reuse.products) == {(1, 2): 5, (0, 1, 2): 5}
    assert reuse.unique_ratio == 5 / 8
    assert str(reuse).startswith("8 ids, 5 different ones: U/B 0.625, P/B ")
    nothing = tnn.Embedding(60, 8, format=TTM(rank=2)).reuse(ids[:0])
    assert (nothing.n_different, nothing.unique_ratio, nothing.prefix_ratio) == (0, 0, 0)


def test_groups_hold_every_row_once() -> None:
    own, common = torch.arange(100), torch.arange(100) % 7
    groups, places = grouped(own, common, 7)
    assert groups.tile > 1 and places is not None
    assert torch.equal(groups.own[places], own) and torch.equal(groups.common.repeat_interleave(groups.tile)[places], common)
    alone, places = grouped(own, own, 100)
    assert alone.tile == 1 and places is None


def test_sorted_ids() -> None:
    ids = torch.tensor([7, 3, 7, 12])
    found = Ids.of(ids, (4, 4), 1)
    assert found.different.tolist() == [12, 3, 7] and found.starts is not None  # last digits 0, 3, 3
    assert torch.equal(found.different[found.number], ids[found.order])
    assert found.is_adjacent((1,)) and found.is_adjacent((0, 1)) and not found.is_adjacent((0,))
    assert Ids.of(ids[:2], (4, 4)).starts is None


# -- memory and what is kept ----------------------------------------------------------------------------------------------


def test_memory_of_a_training_step() -> None:
    """Bags of a table of 1e7 x 64: 4 MB of outputs and gradients and a chunk at work; the rows of all ids alone would be 10 MB."""
    layer = tnn.EmbeddingBag(10_000_000, 64, mode="sum", format=TTM(rank=16), in_modes=(200, 200, 250), out_modes=(4, 4, 4))
    ids = torch.randint(0, 10_000_000, (4096, 10), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(layer.parameters())

    def step() -> None:
        layer(ids).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    assert peak_bytes(step) < 40e6
    state = sum(value.numel() for one in optimizer.state.values() for value in one.values())
    assert state <= 2 * sum(p.numel() for p in layer.parameters()) + 3


def test_large_tables_are_never_built() -> None:
    """Construction, start, a step and the state of 11,000,000 x 128, all in less than a thousandth of the table's 5.6 GB."""
    made: list[Any] = []

    def work() -> None:
        layer = tnn.Embedding(11_000_000, 128, format=TTM(rank=8), in_modes=(200, 220, 250), out_modes=(4, 4, 8))
        optimizer = torch.optim.Adam(layer.parameters())
        layer(torch.tensor([0, 10_999_999] * 200)).sum().backward()
        optimizer.step()
        layer.load_state_dict(layer.state_dict())
        made.append(layer)

    assert peak_bytes(work) < 5.6e6
    assert sum(p.numel() for p in made[0].parameters()) == 8 * 800 + 64 * 880 + 8 * 2000


def test_products_are_kept_in_eval_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = tnn.Embedding(8000, 16, format=TTM(rank=4), in_modes=(20, 20, 20), out_modes=(2, 2, 4)).eval()
    ids = some_ids(400, 8000)
    with torch.no_grad():
        first = layer(ids)
        assert layer.kept_bytes == 400 * 4 * 4 * 4, "every prefix: 20 x 20 rows of 2 x 2 x rank 4 values"
        assert torch.equal(layer(ids), first)
        layer.factorized.factors[0].mul_(2)
        assert_close(layer(ids), 2 * first)
    assert layer.train().kept_bytes == 0
    monkeypatch.setattr(lookup_call, "KEPT_BYTES", 1000)
    with torch.no_grad():
        assert_close(layer.eval()(ids), 2 * first)
        assert layer.kept_bytes == 0


def test_what_is_shared_is_looked_for_where_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 24 million FLOP in products id by id on, 8 million with gradients; rows of CP are one product for all ids."""
    monkeypatch.setattr(lookup_call, "WORK", 24e6)
    monkeypatch.setattr(lookup_call, "WORK_WITH_GRADIENTS", 8e6)
    ttm, cp = (tnn.Embedding(8000, 16, format=format, in_modes=modes) for format, modes in ((TTM(rank=16), (80, 100)), (CP(rank=16), None)))
    assert (ttm.plan().flops, ttm.plan().n_products, cp.plan().n_products) == (512, 1, 0)

    def is_reusing(layer: tnn.Embedding, n_ids: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> bool:
        ids = torch.zeros(n_ids, dtype=torch.int64, device=device)
        return contract.is_reusing(layer.factorized.network, ids, layer.factorized.factors[0].to(dtype))

    assert [is_reusing(ttm, n_ids) for n_ids in (15624, 15625)] == [False, True]
    with torch.no_grad():
        assert [is_reusing(ttm, n_ids) for n_ids in (46874, 46875)] == [False, True]
    assert not is_reusing(ttm, 1 << 20, device="meta")
    assert [is_reusing(cp, n_ids) for n_ids in ((1 << 20) - 1, 1 << 20)] == [False, True], "all rows at once would be large"
    assert [is_reusing(cp, n_ids, dtype=torch.bfloat16) for n_ids in (255, 256)] == [False, True], "sums in float32"
    assert F.embedding(torch.arange(3), ttm.weight).shape == (3, 16)


# -- together with ranks found by training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["variational", "l1"])
def test_lookups_use_the_factors_of_a_posterior(kind: str, small: None) -> None:
    """Sampled or scaled factors stand for the parameters: rows, bags and gradients are those of the dense weight made from them."""
    torch.manual_seed(0)
    layer: Any = tnn.EmbeddingBag(29, 11, mode="sum", format=TTM(rank=3), dtype=torch.float64)
    method: Any = bayes.attach(layer, n_examples=60) if kind == "variational" else bayes.L1Bonds(layer, strength=0.1)
    method.step()
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.mul_(1.5) if "scales" in name else p.add_(0.1 if "log" in name else 0.0)
    weight, ids = layer.factorized, some_ids(60, 29)
    parameters = list(layer.parameters())
    got, wanted = weight.rows(ids), weight.dense()[ids]
    assert_close(got, wanted)
    flow = torch.randn_like(got)
    for mine, other in zip(torch.autograd.grad(got, parameters, flow), torch.autograd.grad(wanted, parameters, flow), strict=True):
        assert_close(mine, other)
    assert_close(layer(ids.reshape(6, 10)), wanted.reshape(6, 10, 11).sum(1))
    if kind == "variational":
        means = weight.eval().rows(ids)
        assert not torch.allclose(means, got), "in training rows are sampled"
        with torch.no_grad(), method.sample(3):
            one = weight.rows(ids)
            assert_close(one, weight.dense()[ids])
        with torch.no_grad(), method.sample(4):
            assert not torch.allclose(weight.rows(ids), one), "nothing of another sample is kept"
        with torch.no_grad():
            assert_close(weight.rows(ids), means.detach())
