"""One training step of an LSTM for video as large as UCF11's: 57,600 inputs, 256 hidden, 6 frames, batch 16, in float32.

A step is forward, backward from the last hidden state, and a plain SGD update, which is the cheapest there is. tenfold's layers against
torch.nn.LSTM and TedNet's TR-LSTM (`pip install tednet`; left out with a reason where it is missing), all in turns within one run;
ratios are theirs / ours of medians and of minima, above 1 is faster. The TR-LSTM of both has the shapes and the 1,725 weights that
TR-LSTM papers use; TedNet's dropout is set to 0, which makes its step shorter. Memory is the peak above what was there before the
step, gradients among it: "tensor MB" of storages alive, "process MB" of resident memory (Linux only), kernels' own space included.
Command: `python benchmarks/rnn_step.py --json benchmarks/results/rnn_step.json`, about two minutes on two cores. Goals: at least
10x faster than torch.nn.LSTM and 4x faster than TedNet, at most 30 MB.
"""

import contextlib
import ctypes
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tenfold
from race import race, report
from tenfold.recipes.measure import peak_bytes

INPUTS, HIDDEN, FRAMES, BATCH = 57600, 256, 6, 16
ROUNDS = 20
MEGABYTE = 1e6
FOUR = {"in_modes": (8, 20, 20, 18), "out_modes": (16, 4, 4, 4)}
FIVE = {"in_modes": (8, 10, 10, 9, 8), "out_modes": (16, 4, 2, 4, 2)}
EIGHT = {"in_modes": (4, 2, 5, 8, 6, 5, 3, 2), "out_modes": (16, 4, 2, 4, 2)}
RING = (5, 5, 5, 5, 5, 10, 5, 5, 5, 5, 5, 5, 5)  # 10 on the bond between the last output and the first input
OURS: dict[str, dict[str, Any]] = {
    "KCP 1": {"format": tenfold.KCP(rank=1), **FIVE},
    "KCP 4": {"format": tenfold.KCP(rank=4), **FIVE},
    "KCP 9": {"format": tenfold.KCP(rank=9), **FOUR},
    "TTM 4": {"format": tenfold.TTM(rank=4), **FOUR},
    "TR 5": {"format": tenfold.TR(rank=RING), **EIGHT},
}


def step_of(layer: nn.Module, call: Callable[[], Any]) -> Callable[[], None]:
    """A function that does one training step."""
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)

    def step() -> None:
        call()[0][-1].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def tednet_lstm() -> nn.Module | None:
    """TedNet's TR-LSTM; None, with a printed reason, where it is not installed."""
    try:
        from tednet.tnn.tensor_ring import TRLSTM
    except ImportError as error:
        print(f"TedNet is left out: {error}; install it with pip install tednet")
        return None
    out = [EIGHT["out_modes"][0] // 4, *EIGHT["out_modes"][1:]]
    ranks = [RING[5], *RING[6:], *RING[:5]]  # its ring begins with the inputs
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its compression ratio
        return TRLSTM(list(EIGHT["in_modes"]), out, ranks, drop_ih=0.0, drop_hh=0.0)


def process_peak(step: Callable[[], None]) -> float | None:
    """Megabytes of resident memory that a step needs beyond what is there before it; None where there is no /proc."""
    reset = Path("/proc/self/clear_refs")
    if sys.platform != "linux" or not reset.exists():
        return None
    step()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier steps have left with the allocator would hide what this one takes
    try:
        reset.write_text("5")  # the high-water mark starts again from here
    except OSError:
        return None
    before = _kilobytes("VmRSS")
    step()
    return (_kilobytes("VmHWM") - before) * 1024 / MEGABYTE


def _kilobytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1])


def main() -> None:
    """Prints one row for each layer."""
    torch.manual_seed(0)
    x = torch.randn(FRAMES, BATCH, INPUTS)
    layers: dict[str, nn.Module] = {"torch.nn.LSTM": nn.LSTM(INPUTS, HIDDEN)}
    for name, options in OURS.items():
        layers[name] = tenfold.nn.LSTM(INPUTS, HIDDEN, **options)
    steps = {name: step_of(layer, lambda layer=layer: layer(x)) for name, layer in layers.items()}
    if (theirs := tednet_lstm()) is not None:
        state = torch.zeros(BATCH, HIDDEN), torch.zeros(BATCH, HIDDEN)
        layers["TedNet TR 5"] = theirs
        steps["TedNet TR 5"] = step_of(theirs, lambda: theirs(x, state))
    memory = {name: (peak_bytes(step) / MEGABYTE, process_peak(step)) for name, step in steps.items()}
    times = race(steps, ROUNDS)
    rows = []
    for name, layer in layers.items():
        row = {"layer": name, "parameters": sum(p.numel() for p in layer.parameters()), "ms": times[name][0], "ms min": times[name][1]}
        for label, other in (("x torch", "torch.nn.LSTM"), ("x TedNet", "TedNet TR 5")):
            if name in OURS and other in times:
                row |= {label: times[other][0] / times[name][0], f"{label} min": times[other][1] / times[name][1]}
        tensors, process = memory[name]
        rows.append(row | {"tensor MB": tensors} | ({} if process is None else {"process MB": process}))
    report("rnn_step", rows)


if __name__ == "__main__":
    main()
