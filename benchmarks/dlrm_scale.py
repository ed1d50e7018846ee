"""DLRM with 4.2e9 embedding weights on two cores: memory, speed, and the ranks that are found where they were planted.

Tables and networks are those of DLRM on Criteo Kaggle: 26 tables, of which the five largest (10.1, 2.2, 8.4, 5.5 and 7.0 million rows
of width 128: 4,248,739,968 weights if dense) are TTM of rank 16, the others dense with sparse gradients; 13-512-256-256-128 and
512-256-1; Adam and SparseAdam. The data are generated in Criteo's format, with Zipf ids and labels from trains of ranks (3, 3).
Every part runs in a process of its own, whose peak of resident memory is that of the whole process, the interpreter included:

    scale    the whole model, with the posterior that finds ranks (where memory is largest) and after it: steps a second, memory
    lookup   one table of 11 million rows against torch.nn.EmbeddingBag with SparseAdam at the most rows that fit 3 GiB: time a lookup
    ranks    five tables of 11,000 rows with planted ranks (3, 3): ranks found from 8, and log loss beside every control and beside Bayes'
    full     the same with the five full-size tables, alone in the model, in 4,000 steps

Command: `python benchmarks/dlrm_scale.py --json benchmarks/results/dlrm_scale.json`, about half an hour on one core. Goals: a peak of
less than 3 GiB, and ranks near the planted ones.
"""

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tenfold
from tenfold.data.criteo import KAGGLE_ROWS
from tenfold.data.ctr_synthetic import PlantedClicks, SyntheticClicks
from tenfold.recipes.clicks.model import DLRM, KAGGLE_MODES, TableSpec, kaggle_tables, with_tables
from tenfold.recipes.clicks.sizes import dlrm_sizes
from tenfold.recipes.clicks.training import ClickTraining, predict_scores, train_clicks

GIGABYTE = 2**30
LIMIT = 3 * GIGABYTE
BATCH = 2048
PARTS = ("scale", "lookup", "ranks", "full")
SMALL_MODES = (20, 22, 25)


def peak_bytes() -> int:
    """Of resident memory since the process began; Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def scale(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The whole model: trained through its search for ranks and beyond it."""
    torch.manual_seed(0)
    tables = kaggle_tables(tenfold.TTM(rank=16), (4, 4, 8))
    model = DLRM(tables, 13)
    planted = PlantedClicks(KAGGLE_ROWS, KAGGLE_MODES)
    n_rows = arguments.steps * BATCH
    marks: list[tuple[float, float]] = [(time.perf_counter(), time.process_time())]

    def watch(_: str, done: int, total: int) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    data = SyntheticClicks(planted, BATCH, (0, n_rows))
    run = train_clicks(model, data, ClickTraining(BATCH), n_rows, has_prior=True, progress=watch)
    sizes = dlrm_sizes(model, tables, tuple(KAGGLE_MODES), run.training_bytes)
    before = dlrm_sizes(DLRM(tables, 13), tables, tuple(KAGGLE_MODES), run.training_bytes)
    decided = int(0.9 * arguments.steps)
    (searching, searching_cpu), (after, after_cpu) = _medians(marks[2:decided]), _medians(marks[decided + 1 :])
    held = run.training_bytes
    return [
        {
            "weights if dense, five tables": before.table_dense,
            "values, five tables": before.table_values,
            "ratio, five tables": before.ratios[0],
            "weights if dense, model": before.model_dense,
            "values, model": before.model_values,
            "ratio, model": before.ratios[1],
            "GB of values and state": held / GIGABYTE,
            "ratio, bytes with state": 12 * before.model_dense / held,
            "peak GiB of the process": peak_bytes() / GIGABYTE,
            "below 3 GiB": peak_bytes() < LIMIT,
            "batch": BATCH,
            "steps/s with posterior": 1 / searching,
            "steps/s after it": 1 / after,
            "rows/s with posterior": BATCH / searching,
            "CPU s/step with posterior": searching_cpu,
            "CPU s/step after it": after_cpu,
            "steps": run.n_steps,
            "values after the decision": sizes.table_values,
        }
    ]


def _medians(marks: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the steps between marks: seconds by the clock, and seconds of the processor, which other work on the machine does not change."""
    steps = [(one[0] - before[0], one[1] - before[1]) for before, one in itertools.pairwise(marks)]
    return statistics.median(clock for clock, _ in steps), statistics.median(cpu for _, cpu in steps)


def lookup(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward, and forward, backward and update, of one table: microseconds for each id."""
    n_dense = int(LIMIT * 0.8 / (3 * 4 * 128)) // 1000 * 1000  # values and two running means; a fifth is left for all else
    rows = []
    for name, size, layer in (
        ("TTM 16, 11,000,000 rows", 11_000_000, lambda: _ttm(16)),
        ("TTM 3, 11,000,000 rows", 11_000_000, lambda: _ttm(3)),
        (f"nn.EmbeddingBag, {n_dense:,} rows", n_dense, lambda: nn.EmbeddingBag(n_dense, 128, mode="sum", sparse=True)),
    ):
        made = layer()
        planted = PlantedClicks((size,), {})
        batches = [ids for (_, ids), _ in SyntheticClicks(planted, BATCH, (0, 20 * BATCH))]
        sparse = isinstance(made, nn.EmbeddingBag)
        optimizer: Any = torch.optim.SparseAdam(made.parameters()) if sparse else torch.optim.Adam(made.parameters())

        def forward(ids: torch.Tensor, made: nn.Module = made) -> torch.Tensor:
            return made(ids)

        def step(ids: torch.Tensor, made: nn.Module = made, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            made(ids).square().sum().backward()
            optimizer.step()

        row: dict[str, Any] = {"table": name, "unique ids": statistics.fmean(len(ids.unique()) / ids.numel() for ids in batches)}
        for what, call in (("forward", forward), ("forward, backward, update", step)):
            row[f"us/lookup {what}"], row[f"CPU us/lookup {what}"] = _microseconds(call, batches)
        rows.append(row | {"MB of values and state": sum(_bytes(made, optimizer)) / 1e6})
        del made, optimizer, forward, step
    return rows


def _ttm(rank: int) -> nn.Module:
    modes = {"in_modes": KAGGLE_MODES[2], "out_modes": (4, 4, 8)}
    return tenfold.nn.EmbeddingBag(11_000_000, 128, mode="sum", format=tenfold.TTM(rank=rank), **modes)


def _bytes(layer: nn.Module, optimizer: Any) -> list[int]:
    state = [one for values in optimizer.state.values() for one in values.values() if isinstance(one, torch.Tensor)]
    return [one.numel() * one.element_size() for one in (*layer.parameters(), *state)]


def _microseconds(call: Callable[[torch.Tensor], Any], batches: list[torch.Tensor]) -> tuple[float, float]:
    """Medians over batches for each id, by the clock and of the processor; every batch is another one, as in training."""
    for ids in batches[:3]:
        call(ids)
    marks = [(time.perf_counter(), time.process_time())]
    for ids in batches[3:]:
        call(ids)
        marks.append((time.perf_counter(), time.process_time()))
    clock, cpu = _medians(marks)
    return clock / batches[0].numel() * 1e6, cpu / batches[0].numel() * 1e6


def ranks(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ranks found in five tables of 11,000 rows, with all controls."""
    n = SMALL_MODES[0] * SMALL_MODES[1] * SMALL_MODES[2]
    planted = PlantedClicks((n,) * 5 + (10,) * 3, dict.fromkeys(range(5), SMALL_MODES))
    training = ClickTraining(512)
    return _controls(planted, training, arguments.rank_steps, 8, 32, (2, 4, 4), (64,), (64,))


def full(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ranks found in the five tables of full size; the other tables are left out."""
    sizes = tuple(KAGGLE_ROWS[number] for number in KAGGLE_MODES)
    planted = PlantedClicks(sizes, dict(enumerate(KAGGLE_MODES.values())))
    return _controls(planted, ClickTraining(BATCH), arguments.full_steps, 8, 128, (4, 4, 8), (128,), (128,))


def _controls(
    planted: PlantedClicks,
    training: ClickTraining,
    n_steps: int,
    rank: int,
    dim: int,
    out_modes: tuple[int, ...],
    bottom: tuple[int, ...],
    top: tuple[int, ...],
) -> list[dict[str, Any]]:
    """Rows for ranks found, start ranks, hashed, removed and the null model, on the same data with the same steps."""
    n_train = n_steps * training.batch_size
    test_rows = (n_train + 2 * 8192, n_train + 12 * 8192)
    test = SyntheticClicks(planted, 4096, test_rows)
    bayes = planted.bayes_log_loss(test_rows)
    plain = [TableSpec(size) for size in planted.sizes]
    tensorised = [
        TableSpec(size, tenfold.TTM(rank=rank), planted.modes.get(number), out_modes) if number in planted.modes else TableSpec(size)
        for number, size in enumerate(planted.sizes)
    ]
    found_values = [0]
    rows: list[dict[str, Any]] = []
    for kind in ("ranks found", "start ranks", "hashed to that size", "tables removed", "prior without data"):
        tables = tensorised
        if kind == "tables removed":
            tables = with_tables(plain, tuple(planted.modes), is_removed=True)
        if kind == "hashed to that size":
            tables = with_tables(plain, tuple(planted.modes), hashed=max(1, found_values[0] // dim // len(planted.modes)))
        torch.manual_seed(0)
        model = DLRM(tables, 13, dim=dim, bottom=bottom, top=top)
        is_null = kind == "prior without data"
        data = SyntheticClicks(planted, training.batch_size, (0, n_train))
        run = train_clicks(model, data, training, n_train, has_prior=is_null or kind == "ranks found", is_null=is_null)
        sizes = dlrm_sizes(model, tensorised, tuple(planted.modes), run.training_bytes)
        found_values[0] = sizes.table_values if kind == "ranks found" else found_values[0]
        row: dict[str, Any] = {"network": kind, "rows/table": max(planted.sizes), "steps": run.n_steps, "s": run.seconds}
        if not is_null:
            scores = predict_scores(model, test)
            row |= {"AUC": scores.auc, "log loss": scores.log_loss, "Bayes": bayes, "accuracy": scores.accuracy}
        if run.decision is not None:
            row["planted"] = list(planted.ranks)
            row["found"] = [list(one.values()) for one in run.decision.ranks.values()]
        rows.append(row | {"table values": sizes.table_values, "ratio, tables": sizes.ratios[0]})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Runs every part in a process of its own and prints what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rank-steps", type=int, default=1200)
    parser.add_argument("--full-steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        torch.set_num_threads(arguments.threads)
        warnings.simplefilter("ignore")  # the null model removes everything, and says so
        print(json.dumps({"rows": globals()[arguments.part](arguments), "peak GiB": peak_bytes() / GIGABYTE}))
        return
    known = json.loads(arguments.json.read_text("utf-8"))["parts"] if arguments.json and arguments.json.exists() else {}
    for part in arguments.parts:
        command = [sys.executable, __file__, "--part", part, *(one for one in sys.argv[1:])]
        known[part] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        print(f"-- {part}, peak {known[part]['peak GiB']:.2f} GiB of the process")
        for row in known[part]["rows"]:
            print("   " + ", ".join(f"{key} {_text(value)}" for key, value in row.items()))
        if arguments.json:
            machine = {"torch": torch.__version__, "threads": arguments.threads, "cores": os.cpu_count(), "machine": platform.machine()}
            arguments.json.write_text(json.dumps({"benchmark": "dlrm_scale", **machine, "parts": known}, indent=1) + "\n", "utf-8")


def _text(value: Any) -> str:
    return f"{value:,}" if type(value) is int else f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
