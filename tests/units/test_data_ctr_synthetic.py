"""Made-up click data: planted probabilities, Zipf ids, and files in Criteo's format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.data.criteo import KAGGLE_ROWS, read_criteo
from tenfold.data.ctr import ClickLayout
from tenfold.data.ctr_batches import Clicks
from tenfold.data.ctr_synthetic import PlantedClicks, SyntheticClicks, write_clicks

PLANTED = PlantedClicks((50, 11_000, 7, 400, *(3,) * 22), {1: (20, 22, 25), 3: (7, 8, 8)})


class HexIds:
    """Ids that the values say themselves, as hexadecimal numbers."""

    sizes = PLANTED.sizes

    def check(self, layout: ClickLayout) -> None:
        assert len(layout.tables) == len(self.sizes)

    def encode(self, keys: np.ndarray) -> np.ndarray:
        return np.array([[int(int(key).to_bytes(8, "little"), 16) for key in row] for row in keys])


def test_rows_are_the_same_whatever_the_batches() -> None:
    one, other = (list(SyntheticClicks(PLANTED, size, (8000, 9000))) for size in (64, 1000))
    for part in range(2):
        torch.testing.assert_close(torch.cat([x[part] for x, _ in one]), other[0][0][part], rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([y for _, y in one]), other[0][1], rtol=0, atol=0)
    changed = PlantedClicks(PLANTED.sizes, PLANTED.modes, seed=1).block(0)
    assert (changed.ids != PLANTED.block(0).ids).mean() > 0.3


def test_a_planted_table_is_a_tensor_train_of_the_ranks_planted() -> None:
    table = PLANTED.effects(1, np.arange(11_000)).reshape(20, 22, 25)
    for matrix in (table.reshape(20, -1), table.reshape(-1, 25)):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values[2] > 0.1 * values[0] and values[3] < 1e-12 * values[0]
    assert 0.5 * PLANTED.effect < table.std() < 2 * PLANTED.effect


def test_labels_have_the_planted_probabilities() -> None:
    blocks = [PLANTED.block(number) for number in range(4)]
    logits, labels = (np.concatenate([getattr(one, name) for one in blocks]) for name in ("logits", "labels"))
    p = 1 / (1 + np.exp(-logits))
    n = len(p)
    for low, high in ((0, 0.2), (0.2, 0.5), (0.5, 1)):  # means within 5 standard errors: a false alarm has a chance below 1e-5
        chosen = (p >= low) & (p < high)
        error = np.sqrt((p * (1 - p))[chosen].mean() / chosen.sum())
        assert abs(labels[chosen].mean() - p[chosen].mean()) < 5 * error
    loss = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
    assert abs(loss.mean() - PLANTED.bayes_log_loss((0, n))) < 5 * loss.std() / np.sqrt(n)
    assert PLANTED.bayes_log_loss((100, 300)) == pytest.approx(-(p * np.log(p) + (1 - p) * np.log1p(-p))[100:300].mean())


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.2])
def test_ids_follow_zipfs_law(exponent: float) -> None:
    planted = PlantedClicks((1000,), {}, exponent=exponent)
    ids = np.concatenate([planted.block(number).ids[:, 0] for number in range(8)])
    assert ids.min() >= 0 and ids.max() < 1000
    counts = np.sort(np.bincount(ids, minlength=1000))[::-1]
    k = np.arange(1, 1001, dtype=float)
    wanted = np.diff((np.append(k, 1001)) ** (1 - exponent)) if exponent != 1 else np.diff(np.log(np.append(k, 1001)))
    wanted = wanted / wanted.sum() * len(ids)
    for first, last in ((0, 1), (1, 4), (10, 30), (100, 300)):  # within 5 standard deviations of a count
        assert (
            abs(counts[first:last].sum() - wanted[first:last].sum())
            < 5 * np.sqrt(wanted[first:last].sum()) + 0.02 * wanted[first:last].sum()
        )


def test_tables_as_large_as_kaggles_take_no_memory() -> None:
    planted = PlantedClicks(KAGGLE_ROWS, {2: (200, 220, 250)})
    block = planted.block(3)
    assert (block.ids < np.array(KAGGLE_ROWS)).all() and (block.ids >= 0).all()
    assert len(np.unique(block.ids[:, 2])) > 1000


@pytest.mark.parametrize("name", ["clicks.tsv", "clicks.tsv.gz"])
def test_files_hold_the_same_rows(tmp_path: Path, name: str) -> None:
    write_clicks(PLANTED, tmp_path / name, (8100, 8500))
    read = Clicks(read_criteo(tmp_path / name, block_bytes=9000), HexIds(), 128)
    torch.testing.assert_close(list(read), list(SyntheticClicks(PLANTED, 128, (8100, 8500))))
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_pass_goes_on() -> None:
    clicks = SyntheticClicks(PLANTED, 30, (8150, 8250))
    whole, stream = list(clicks), iter(clicks)
    next(stream)
    state = clicks.state_dict()
    again = SyntheticClicks(PLANTED, 30, (8150, 8250))
    again.load_state_dict(state)
    torch.testing.assert_close(list(again), whole[1:], rtol=0, atol=0)
    with pytest.raises(
        ValueError,
        match=r"the state is of rows \(8150, 8250\) of PlantedClicks.*, but these are rows \(0, 5\) of .*; a pass goes on in the same rows",
    ):
        SyntheticClicks(PLANTED, 30, (0, 5)).load_state_dict(state)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"PlantedClicks got 1 sizes from 100 on, ranks \(3, 3\), exponent 1\.05 and modes that do not fit: \{0: \(4, 4, 4\)\}; sizes",
    ):
        PlantedClicks((100,), {0: (4, 4, 4)})
    with pytest.raises(ValueError, match=r"SyntheticClicks got batch_size=5 and rows=\(3, 3\); both need at least one row"):
        SyntheticClicks(PLANTED, 5, (3, 3))
    with pytest.raises(ValueError, match=r"13 numbers and 1 tables were planted; Criteo's format has 13 and 26: plant so many"):
        write_clicks(PlantedClicks((100,), {}), tmp_path / "a.tsv", (0, 10))


@pytest.mark.parametrize("state", [{}, {"files": "a.tsv", "rows": [0, 3]}, None])
def test_a_state_of_something_else_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match=r"the state is none of SyntheticClicks \(.*\); what state_dict\(\) gave is needed: give that, un"):
        SyntheticClicks(PLANTED, 5, (0, 3)).load_state_dict(state)
