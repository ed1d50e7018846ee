"""The search of one layer at a time: each gets its smallest rank inside the threshold, probes are kept, and nothing else is touched."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import tenfold
from tenfold import SVD, Tucker
from tenfold.ranks import per_layer as module
from tenfold.ranks.per_layer import per_layer


class Planted(nn.Module):
    """Classes that depend on 3 directions of the input; the second layer is needed in full, the third has rank 2 in what it is fed."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(32, 32, bias=False), nn.Linear(32, 6, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.linalg.qr(torch.randn(32, 32, generator=g)).Q[:, :3] @ torch.randn(3, 32, generator=g))
            self.second.weight.copy_(torch.randn(6, 32, generator=g))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def data(model: nn.Module, n: int, seed: int) -> TensorDataset:
    x = torch.randn(n, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return TensorDataset(x, model(x).argmax(1))


MODEL = Planted()
TRAINING, VALIDATION = data(MODEL, 640, 0), data(MODEL, 640, 1)


def drop_of(name: str, rank: int) -> float:
    small = tenfold.compress(MODEL, {name: SVD(rank=rank)})
    found = tenfold.evaluate(small, VALIDATION).accuracy
    assert found is not None
    return 100 * (1 - found)


@pytest.mark.parametrize("max_drop", [0.0, 10.0, 40.0])
def test_each_layer_gets_its_own_smallest_rank(max_drop: float):
    made = {one.name: one for one in per_layer(MODEL, SVD(), max_drop=max_drop, validation=VALIDATION).layers}
    for name, ranks in (("first", range(1, 14)), ("second", range(1, 5))):
        inside = [rank for rank in ranks if drop_of(name, rank) <= max_drop]
        if inside:
            assert made[name].format == SVD(rank=inside[0])
        else:
            assert made[name].format is None and made[name].reason == f"no rank loses at most {max_drop:g} points by itself"
    assert (max_drop > 0) or made["first"].format == SVD(rank=3)  # what was planted


def test_training_the_layer_alone_allows_a_smaller_rank_and_leaves_the_model_as_it_was():
    before = [p.clone() for p in MODEL.parameters()]
    plain = per_layer(MODEL, SVD(), max_drop=20, validation=VALIDATION, filter="first")
    tuned = per_layer(MODEL, SVD(), max_drop=20, validation=VALIDATION, filter="first", data=TRAINING, steps=8, lr=0.02)
    assert tuned.params_after <= plain.params_after
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(before, MODEL.parameters(), strict=True))


def test_only_the_replaced_layer_is_trained(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[list[str], int]] = []

    def spy(small: nn.Module, batches: Any, **options: Any) -> None:
        seen.append(([name for name, p in small.named_parameters() if p.requires_grad], len(batches)))

    monkeypatch.setattr(module, "finetune", spy)
    per_layer(MODEL, SVD(), max_drop=0, validation=VALIDATION, filter="first", data=TRAINING, steps=7)
    assert seen and all(set(names) == {"first.factorized.factors.0", "first.factorized.factors.1"} for names, _ in seen)
    assert {steps for _, steps in seen} == {7}  # 640 samples give 5 batches: they are gone through twice


def test_probes_are_few_kept_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compress, count = module.compress, 0

    def counted(*args: Any, **kwargs: Any) -> nn.Module:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return compress(*args, **kwargs)

    monkeypatch.setattr(module, "compress", counted)
    with pytest.raises(KeyboardInterrupt):
        per_layer(MODEL, SVD(), max_drop=5, validation=VALIDATION, folder=tmp_path)
    resumed = per_layer(MODEL, SVD(), max_drop=5, validation=VALIDATION, folder=tmp_path)
    assert count <= 4 + 8
    steps = count
    assert per_layer(MODEL, SVD(), max_drop=5, validation=VALIDATION, folder=tmp_path).layers == resumed.layers and count == steps
    with pytest.raises(ValueError, match=r"per_layer.json is of a search with max_drop = 5.0, but this one has 6.0; to go on"):
        per_layer(MODEL, SVD(), max_drop=6, validation=VALIDATION, folder=tmp_path)


@pytest.mark.parametrize("changes", ["validation", "calibration", "data", "filter"])
def test_probes_of_other_data_are_not_taken_over(tmp_path: Path, changes: str):
    """Of the same size, but with other values."""
    given: dict[str, Any] = {"validation": VALIDATION, "calibration": TRAINING, "data": TRAINING, "filter": "*"}
    per_layer(MODEL, SVD(), max_drop=5, folder=tmp_path, **given)
    other = "first" if changes == "filter" else data(MODEL, 640, 7)
    with pytest.raises(
        ValueError, match=f"per_layer.json is of a search with {changes} = .*use those, or delete it or give another path to start anew"
    ):
        per_layer(MODEL, SVD(), max_drop=5, folder=tmp_path, **{**given, changes: other})


def test_a_layer_that_calibration_does_not_reach_stays_dense():
    model = Planted()
    model.aside = nn.Linear(8, 8)
    rows = {one.name: one for one in per_layer(model, SVD(), max_drop=40, validation=VALIDATION, calibration=TRAINING).layers}
    assert rows["aside"].format is None and rows["aside"].reason == "the calibration data never reach it"
    assert rows["first"].format is not None


@pytest.mark.filterwarnings("ignore:first could not be decomposed as SVD")
def test_a_layer_that_cannot_be_decomposed_stays_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    decomposing = sys.modules["tenfold.decompose"]
    decompose, count = decomposing.decompose, 0

    def failing(*args: Any, names: list[str], **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if names == ["first"]:
            raise RuntimeError("linalg.eigh: failed to converge")
        return decompose(*args, names=names, **kwargs)

    monkeypatch.setattr(decomposing, "decompose", failing)
    made = per_layer(MODEL, SVD(), max_drop=40, validation=VALIDATION, folder=tmp_path)
    rows = {one.name: one for one in made.layers}
    assert rows["first"].format is None and rows["first"].reason == "it could not be decomposed"
    assert rows["second"].format is not None
    steps = count
    assert per_layer(MODEL, SVD(), max_drop=40, validation=VALIDATION, folder=tmp_path) == made and count == steps


def test_several_ranks_go_down_together():
    model = nn.Sequential(nn.Conv2d(12, 16, 3), nn.Flatten(), nn.Linear(16 * 16, 4))
    x = torch.randn(64, 12, 6, 6)
    held = TensorDataset(x, model(x).argmax(1))
    made = per_layer(model, Tucker(), max_drop=65, validation=held, filter="0", inputs=x[:2])
    ranks = made.layers[0].format
    assert isinstance(ranks, Tucker) and isinstance(ranks.rank, tuple) and abs(ranks.rank[0] / 16 - ranks.rank[1] / 12) < 0.13
    assert made.flops_after is not None and made.flops_before is not None and made.flops_after < made.flops_before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_drop": -1}, "max_drop is -1; points of top-1 accuracy, at least 0 and below 100, are needed"),
        ({"validation": None}, "per_layer has no validation data; a loss of accuracy has to be measured: give validation="),
        ({"steps": 5}, "steps is 5 with no data; at least 0, and training data .* are needed: give data=, or steps=0"),
        ({"format": SVD(rank=3)}, "has a rank; per_layer finds the ranks: give it without, as SVD"),
        ({"data": VALIDATION, "steps": 1}, "the validation data share 640 rows of the same data set"),
        ({"validation": (torch.randn(8, 32), torch.randn(8, 6))}, "targets without classes; top-1 accuracy needs class numbers"),
    ],
)
def test_what_is_unsound_is_refused(changes: dict[str, Any], message: str):
    given = {"format": SVD(), "max_drop": 1.0, "validation": VALIDATION, **changes}
    with pytest.raises(ValueError, match=message):
        per_layer(MODEL, given.pop("format"), **given)
