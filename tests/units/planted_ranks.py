"""Teacher and student: a linear layer of known ranks makes the data, one of larger ranks learns them and has its ranks decided.

Run as a script, it prints for each format how many of ten seeds end with the planted ranks.
"""

import math
import sys
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tenfold import bayes
from tenfold.bayes.shrink import RankedWeight
from tenfold.format import Format
from tenfold.formats import BT, CP, HT, KCP, TR, TT, TTM, Tucker
from tenfold.nn import Linear


@dataclass(frozen=True)
class Case:
    """A format, the ranks of the teacher and those of the student, and the modes of the layer."""

    teacher: Format
    student: Format
    in_modes: tuple[int, ...]
    out_modes: tuple[int, ...]

    @property
    def name(self) -> str:
        return type(self.teacher).__name__

    def layer(self, format: Format) -> Linear:
        return Linear(
            math.prod(self.in_modes), math.prod(self.out_modes), bias=False, format=format, in_modes=self.in_modes, out_modes=self.out_modes
        )


def case(teacher: Format, rank: Any, in_modes: tuple[int, ...], out_modes: tuple[int, ...]) -> Case:
    return Case(teacher, replace(teacher, rank=rank), in_modes, out_modes)


CASES = [
    case(CP(rank=3), 7, (4, 4), (4, 4)),
    case(Tucker(rank=2), 4, (4, 4), (4, 4)),
    case(TT(rank=2), (4, 5, 4), (4, 4), (4, 4)),
    case(TTM(rank=3), 6, (3, 3, 3), (3, 3, 3)),
    case(TR(rank=2), 4, (4, 4), (4, 4)),
    case(HT(rank=2), 4, (2, 3, 2, 2), (3, 2, 2, 2)),
    case(KCP(rank=3), 6, (3, 3, 3), (3, 3, 3)),
    Case(BT(rank=2, blocks=2), BT(rank=4, blocks=3), (5, 5), (5, 5)),
]


@dataclass
class Result:
    """What a run found: ranks, relative error of the weight, and what was reported."""

    ranks: dict[str, int]
    error: float
    decision: Any
    method: Any


def data(one: Case, seed: int, n: int = 2000, noise: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, outputs and the true weight, whose outputs have variance 1."""
    torch.manual_seed(seed)
    teacher = one.layer(one.teacher)
    while not _is_full(teacher):
        teacher.reset_parameters()
    weight = teacher.weight.detach()
    weight = weight / weight.norm() * math.sqrt(weight.shape[0])
    x = torch.randn(n, weight.shape[1])
    return x, x @ weight.T + noise * torch.randn(n, weight.shape[0]), weight


def _is_full(layer: Linear) -> bool:
    """Whether the weight has no close neighbour of smaller ranks: noise would hide the difference."""
    weight = layer.factorized
    factors = [factor.detach().double() for factor in weight.factors]
    return bayes.Rounding(0.1).reduce(RankedWeight("teacher", weight.network, weight.fold, factors)).sizes == weight.network.ranks


def train(
    one: Case,
    format: Format,
    seed: int,
    *,
    steps: int = 500,
    attach: Any = None,
    is_null: bool = False,
    lr: float = 0.03,
    rule: Any = None,
    extra: int = 150,
) -> Result:
    """Trains a student, decides its ranks at a decayed learning rate, and trains it a little more.

    The loss of an example is half its squared error over the noise variance, summed over outputs: a negative log likelihood.
    """
    x, y, weight = data(one, seed)
    torch.manual_seed(1000 + seed)
    layer = one.layer(format)
    method = attach(layer, len(x)) if attach else None
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    if method is not None:
        method.watch(optimizer)
    decision = None
    for step in range(steps + extra):
        if step == steps and method is not None:
            decision = method.shrink(rule)
            method.finish()
        peak, progress = (1.0, step / steps) if step < steps else (0.3, (step - steps) / extra)
        optimizer.param_groups[0]["lr"] = lr * peak * (0.002 + 0.998 * (1 + math.cos(math.pi * progress)) / 2)
        if method is not None and step < steps:
            method.step()
        batch = torch.randint(0, len(x), (128,))
        loss = torch.zeros(())
        if not is_null:
            loss = (layer(x[batch]) - y[batch]).square().sum(-1).mean() / (2 * 0.01)
        if method is not None:
            loss = method.loss(loss) if step < steps else loss
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            optimizer.step()
    error = float((layer.weight.detach() - weight).norm() / weight.norm())
    return Result(dict(layer.factorized.network.ranks), error, decision, method)


def variational(temperature: float = 1.0, kind: Any = "variational") -> Any:
    return lambda layer, n: bayes.attach(layer, n_examples=n, temperature=temperature, kind=kind, warmup=(50, 250))


def main() -> None:
    """For each format named, or all: planted ranks found, and the error against a fit of the true ranks."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [one for one in CASES if not sys.argv[1:] or one.name in sys.argv[1:]]
    for one in chosen:
        start, found, ratios = time.time(), [], []
        for seed in range(10):
            true = dict(one.layer(one.teacher).factorized.network.ranks)
            oracle = train(one, one.teacher, seed, extra=400).error
            result = train(one, one.student, seed, attach=variational(), rule=bayes.Rounding(0.01), extra=400)
            found.append(result.ranks == true)
            ratios.append(result.error / oracle)
            if result.ranks != true:
                print(f"  seed {seed}: {result.ranks}, error {result.error:.4f}, oracle {oracle:.4f}")
        print(
            f"{one.name}: {sum(found)} of {len(found)} seeds, error / oracle median {sorted(ratios)[len(ratios) // 2]:.2f}, "
            f"largest {max(ratios):.2f}, {time.time() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
