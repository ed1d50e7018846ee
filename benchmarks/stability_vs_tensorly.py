"""Sensitivity of CP kernels at the error of tensorly's parafac (100 sweeps), on pretrained 3x3 kernels at half the break-even rank.

tensorly runs on numpy in float32, its faster way on small kernels; times are CPU time, so run it with one thread. Ours is `cp_als`, then
`epc`: short at tensorly's error, and long at 1.01 times it; kernels of one shape are solved together, as `compress` does. The
sensitivity is told twice: relative to tensorly's factors as they come, and after `rebalance`, which costs nothing, has scaled them as
well. int8: the relative growth of the error when the factors are rounded to 8 bits, with one scale for each term.
Commands, with the folder of pretrained networks in $TENFOLD_DATA:
`python benchmarks/stability_vs_tensorly.py --network cifar10_resnet32 --json benchmarks/results/stability_resnet32.json`, half a minute;
`... --network imagenet_googlenet_bvlc --json ...` for all of its kernels, four minutes; `--largest 120000` leaves the larger ones out.
"""

import argparse
import os
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

import tensorly
import torch
from tensorly.decomposition import parafac
from torch import Tensor, nn

from race import report
from tenfold.network import Network
from tenfold.solvers.cp_als import cp_als
from tenfold.solvers.epc import epc
from tenfold.solvers.sensitivity import rebalance, sensitivity
from tenfold.solvers.solution import relative_errors

EFFORT = {1.0: (50, 40), 1.01: (100, 60)}  # slack: sweeps of ALS, and of the correction
# On small kernels a sweep is nearly all launches (7 ms for one of `epc` on a lone 32x16, 3 ms a kernel for ten together): they get fewer.
FEW, SMALL = (50, 5), 1 << 17
LONE, TINY = (25, 2), 1 << 13


def kernels(network: str, largest: int) -> dict[tuple[int, int], list[Tensor]]:
    """The 3x3 kernels (out, 9, in) of a network, by their channels."""
    folder = Path(os.environ["TENFOLD_DATA"])
    sys.path.insert(0, str(folder))
    import networks  # pyright: ignore[reportMissingImports]

    found = defaultdict(list)
    for module in networks.load(folder / "weights" / f"{network}.safetensors").modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.groups == 1 and module.in_channels > 3:
            weight = module.weight.detach().double()
            if weight.numel() <= largest:
                found[tuple(weight.shape[:2])].append(weight.flatten(2).permute(0, 2, 1))
    return found


def theirs(target: Tensor, rank: int) -> tuple[list[Tensor], float]:
    """Tensorly's factors (1, size, rank), and the seconds it took."""
    start = time.process_time()
    weights, factors = parafac(target.float().numpy(), rank, n_iter_max=100, init="random", random_state=0, tol=0)
    seconds = time.process_time() - start
    o, k, i = (torch.from_numpy(factor).double()[None] for factor in factors)
    return [o * torch.from_numpy(weights).double(), k, i], seconds


def rounded(factors: list[Tensor]) -> list[Tensor]:
    """Factors (batch, size, rank) with 8 bits for each value, one scale for each column."""
    scales = [factor.abs().amax(1, keepdim=True).clamp_min(1e-300) / 127 for factor in factors]
    return [(factor / scale).round() * scale for factor, scale in zip(factors, scales, strict=True)]


def row(shape: tuple[int, int], tensors: list[Tensor]) -> dict[str, object]:
    """One shape: medians over its kernels, and the worst gain."""
    target, (out, inp) = torch.stack(tensors), shape
    rank = round(target[0].numel() / (out + inp + 9)) // 2
    network = Network.parse("o r, k r, i r -> o k i", {"o": out, "k": 9, "i": inp, "r": rank})
    pairs = [theirs(tensor, rank) for tensor in tensors]
    other = [torch.cat([factors[k] for factors, _ in pairs]) for k in range(3)]
    error = relative_errors(target, network, other)
    plain, even = sensitivity(network, other), sensitivity(network, rebalance(network, other))
    result: dict[str, object] = {
        "kernels": f"{len(tensors)} of {out}x{inp}", "rank": rank, "error": float(error.median()),
        "tensorly ms": 1e3 * sum(seconds for _, seconds in pairs) / len(pairs),
    }  # fmt: skip
    for slack, effort in EFFORT.items():
        if slack == 1:
            effort = LONE if target.numel() < TINY else FEW if target[0].numel() < SMALL else effort
        sweeps, corrections = effort
        start = time.process_time()
        fit = cp_als(target, network, sweeps=sweeps)
        found = epc(target, network, fit.factors, delta=slack * error, sweeps=corrections)
        seconds = time.process_time() - start
        ours = sensitivity(network, found.factors)
        assert bool((found.errors[-1] <= slack * error * (1 + 1e-9)).all())
        growth = relative_errors(target, network, rounded(found.factors)) / relative_errors(target, network, found.factors) - 1
        result |= {
            f"ms x{slack}": 1e3 * seconds / len(tensors), f"gain x{slack}": float((plain / ours).median()),
            f"least gain x{slack}": float((plain / ours).amin()), f"gain scaled x{slack}": float((even / ours).median()),
            f"int8 x{slack}": float(growth.amax()),
        }  # fmt: skip
    result["int8 tensorly"] = float((relative_errors(target, network, rounded(other)) / error - 1).amax())
    return result


def main() -> None:
    """Prints one row for each shape of a kernel."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="cifar10_resnet32")
    parser.add_argument("--largest", type=int, default=1 << 20)
    options, sys.argv[1:] = parser.parse_known_args()
    warnings.simplefilter("ignore")
    tensorly.set_backend("numpy")
    found = kernels(options.network, options.largest)
    row(*next(iter(found.items())))  # the first of everything takes longer
    report(f"stability_vs_tensorly, {options.network}", [row(*one) for one in found.items()])


if __name__ == "__main__":
    main()
