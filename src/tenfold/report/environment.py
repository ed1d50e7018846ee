"""Where and when a report was made: all that its numbers depend on."""

import contextlib
import datetime
import importlib
import os
import platform
from pathlib import Path

import torch
from torch import nn


def environment(model: nn.Module, device: torch.device) -> dict[str, str]:
    """Names and values, in the order in which a person asks for them."""
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
    hardware = _cpu_name()
    if device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)}; host {hardware}"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "device": f"{device.type}: {hardware}",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "dtype": ", ".join(dtypes),
        "tenfold": importlib.import_module("tenfold").__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_name() -> str:
    """The processor's name where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
