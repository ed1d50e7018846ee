"""Timing that the benchmarks share: cases take turns within one run, and medians and minima are what is told."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn


def race(cases: Mapping[str, Callable[[], Any]], rounds: int = 20, seconds: float = 0.02) -> dict[str, tuple[float, float]]:
    """(median, minimum) milliseconds of each case; calls shorter than `seconds` are repeated within a round."""
    repeats = {}
    for name, run in cases.items():
        run()
        start = time.perf_counter()
        run()
        repeats[name] = max(1, min(1000, int(seconds / max(time.perf_counter() - start, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            times[name].append((time.perf_counter() - start) / repeats[name] * 1e3)
    return {name: (statistics.median(values), min(values)) for name, values in times.items()}


def training_step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward and backward of one layer."""

    def run() -> None:
        layer.zero_grad(set_to_none=True)
        layer(x).sum().backward()

    return run


def report(name: str, rows: list[dict[str, Any]]) -> None:
    """Prints the rows as a table and, with --json FILE, writes them with the machine that they were measured on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    target = parser.parse_args().json
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_text(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(keys))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    if target:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cores": os.cpu_count(), "machine": platform.machine()}
        target.write_text(json.dumps({"benchmark": name, **machine, "rows": rows}, indent=1) + "\n")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
