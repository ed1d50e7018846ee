"""Latency of tenfold.nn.Conv2d in eval against torch.nn.Conv2d: CP, Tucker-2 and TT at half and a quarter of the FLOP, float32.

Shapes: the four stages of a ResNet at batch 16, in both memory formats, and for one image, with the three stages of a ResNet for CIFAR.
Ratios are dense / factorised: above 1 is faster than dense in the same memory format. Command:
`python benchmarks/conv_latency.py --json benchmarks/results/conv.json`, four minutes.
"""

import torch

import tenfold
from race import race, report

STAGES = ((64, 56), (128, 28), (256, 14), (512, 7))
SMALL_STAGES = ((16, 32), (32, 16), (64, 8))
BOTH = (torch.contiguous_format, torch.channels_last)
CASES = (*((16, stage, memory) for stage in STAGES for memory in BOTH), *((1, stage, BOTH[0]) for stage in (*SMALL_STAGES, *STAGES)))


def rank_for(format: str, channels: int, kept: float) -> int:
    """The rank at which a k x k convolution keeps a part of its FLOP."""
    dense = 9 * channels * channels
    if format == "CP":
        return max(1, int(kept * dense / (2 * channels + 9)) // 8 * 8)
    return max(1, int((-2 * channels + (4 * channels**2 + 36 * kept * dense) ** 0.5) / 18) // 8 * 8)


def main() -> None:
    """Prints one row for each batch, stage, memory format and format."""
    rows = []
    for batch, (channels, size), memory in CASES:
        dense = torch.nn.Conv2d(channels, channels, 3, padding=1).eval()
        x = torch.randn(batch, channels, size, size).contiguous(memory_format=memory)
        for format in (tenfold.CP, tenfold.Tucker, tenfold.TT):
            for kept in (0.5, 0.25):
                rank = rank_for(format.__name__, channels, kept)
                small = tenfold.nn.Conv2d(channels, channels, 3, padding=1, format=format(rank)).eval()
                with torch.no_grad():
                    times = race({"dense": lambda: dense(x), "small": lambda: small(x)}, 7)  # noqa: B023 - run at once
                row = {"layer": f"{channels}@{size}", "batch": batch, "memory": str(memory).split(".")[1]}
                (median, least), (dense_median, dense_least) = times["small"], times["dense"]
                row |= {"format": f"{format.__name__} {rank}", "kept": kept, "dense ms": dense_median, "ms": median}
                rows.append(row | {"x": dense_median / median, "x min": dense_least / least})
    report("conv_latency", rows)


if __name__ == "__main__":
    main()
