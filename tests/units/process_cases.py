"""Two processes of a distributed run with gloo, for tests of what they must agree on."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch


def in_two_processes(function: Callable[[int], Any]) -> list[Any]:
    """What a function of a module's own returns for rank 0 and for rank 1, each in a process of one thread."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with torch.multiprocessing.Manager() as manager:
        out = manager.dict()
        torch.multiprocessing.spawn(_process, args=(port, function, out), nprocs=2)
        return [out[0], out[1]]


def _process(rank: int, port: int, function: Callable[[int], Any], out: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    out[rank] = function(rank)
    torch.distributed.destroy_process_group()
