"""Batches of click data: streamed, bounded in memory, and resumed where a pass was killed."""

import tracemalloc
from pathlib import Path

import pytest
import torch
from click_cases import row, write

from tenfold.batches import batches, n_batches
from tenfold.data.criteo import CRITEO, read_criteo
from tenfold.data.ctr_batches import Clicks
from tenfold.data.ids import HashedIds


@pytest.mark.parametrize("batch_size", [7, 40, 1000])
@pytest.mark.parametrize("rows", [(0, None), (13, 88), (13, 14)])
@pytest.mark.parametrize("suffix", ["tsv", "gz"])
def test_a_pass_goes_on_where_it_was_killed(tmp_path: Path, batch_size: int, rows: tuple[int, int | None], suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", [row(k, "01"[k % 2]) for k in range(100)])

    def clicks() -> Clicks:
        return Clicks(read_criteo(path, block_bytes=2500), HashedIds.of(CRITEO, 50), batch_size, rows=rows)

    whole = list(clicks())
    assert sum(len(labels) for _, labels in whole) == (rows[1] or 100) - rows[0]
    assert [len(labels) for _, labels in whole[:-1]] == [batch_size] * (len(whole) - 1)
    for done in range(1, len(whole) + 1):
        killed = clicks()
        stream = iter(killed)
        for _ in range(done):
            next(stream)
        again = clicks()
        again.load_state_dict(killed.state_dict())
        torch.testing.assert_close(list(again), whole[done:], rtol=0, atol=0)
        assert len(list(again)) == len(whole), "the pass after it is a whole one"


def test_batches_come_in_the_form_that_tenfold_takes(tmp_path: Path) -> None:
    clicks = Clicks(read_criteo(write(tmp_path / "a.tsv", [row(k) for k in range(10)])), HashedIds.of(CRITEO, 5), 4)
    assert n_batches(clicks, 4) == 3
    (numbers, ids), labels = next(iter(batches(clicks, 4)))
    assert (numbers.shape, ids.shape, labels.shape) == ((4, 13), (4, 26), (4,))
    assert (numbers.dtype, ids.dtype, labels.dtype) == (torch.float32, torch.int64, torch.float32)


def test_several_files_are_one(tmp_path: Path) -> None:
    rows = [row(k) for k in range(30)]
    parts = [write(tmp_path / f"day_{k}.gz", rows[10 * k : 10 * k + 10]) for k in range(3)]
    one, many = (
        Clicks(read_criteo(files, block_bytes=1000), HashedIds.of(CRITEO, 50), 8)
        for files in (write(tmp_path / "all.tsv", rows), parts)
    )  # fmt: skip
    torch.testing.assert_close(list(many), list(one), rtol=0, atol=0)


def test_states_and_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    files = read_criteo(write(tmp_path / "a.tsv", [row(k) for k in range(10)]))
    ids = HashedIds.of(CRITEO, 5)
    state = Clicks(files, ids, 4).state_dict()
    with pytest.raises(
        ValueError,
        match=r"the state is of rows \(0, None\) of a\.tsv .*, but these are rows \(0, 5\) of a\.tsv .*; a pass goes on in the files",
    ):
        Clicks(files, ids, 4, rows=(0, 5)).load_state_dict(state)
    for wrong in ({}, {**state, "at": {}}, {**state, "at": {**state["at"], "more": 1}}):
        with pytest.raises(
            ValueError, match=r"the state is none of Clicks \(.*\); what state_dict\(\) gave is needed: give that, unchanged"
        ):
            Clicks(files, ids, 4).load_state_dict(wrong)
    with pytest.raises(
        ValueError, match=r"Clicks got batch_size=0 and rows=\(0, None\); a batch and the rows need at least one row: correct them"
    ):
        Clicks(files, ids, 0)
    with pytest.raises(ValueError, match=r"no row was found from row 10 on in a\.tsv"):
        list(Clicks(files, ids, 4, rows=(10, None)))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for n in (500, 5000):
        path = write(tmp_path / f"{n}.tsv", [row(k) for k in range(n)])
        clicks = Clicks(read_criteo(path, block_bytes=20_000), HashedIds.of(CRITEO, 50), 64)
        tracemalloc.start()
        for _ in clicks:
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
