"""The variances of the rank slices of one weight: their closed-form update, and the divergence of the factors from their prior."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tenfold.bayes.priors import Prior
from tenfold.network import Network

FLOOR = 1e-12  # of a variance; below, 1 / variance times a squared value leaves float32
RELATIVE_FLOOR = 1e-6  # of the largest variance of the same rank: a slice 1000 times smaller than another is gone
LIVE = 1e-5  # slices with less than this part of the largest variance of their rank are not counted in the D of other ranks
MAX_PRECISION = 1e30
START_SWEEPS = 50


class RankVariances:
    """One vector of variances for each rank of a network, in float64.

    Args:
        network: of the weight.
        prior: which ranks govern which factor, and the hyperprior.
    """

    def __init__(self, network: Network, prior: Prior, device: torch.device | str = "cpu") -> None:
        self.network, self.prior = network, prior
        self.governing = prior.governing_ranks(network)
        ranks = {rank for one in self.governing for rank in one}
        self.values = {rank: torch.ones(size, dtype=torch.float64, device=device) for rank, size in network.ranks.items() if rank in ranks}

    def fit(self, means: Sequence[Tensor], variances: Sequence[Tensor] | None = None) -> None:
        """Sets the variances to their best values for these factors; for a start that is neutral."""
        for _ in range(START_SWEEPS):
            self.update(means, variances)

    def update(self, means: Sequence[Tensor], variances: Sequence[Tensor] | None = None, damping: float = 1.0) -> None:
        """One sweep of closed-form updates, rank by rank: lambda <- (1 - damping) lambda + damping x the best lambda.

        Args:
            means: factors, or the means of their entries.
            variances: of the entries, where they are random.
        """
        squares = self._squares(means, variances)
        for rank, old in self.values.items():
            best = self.prior.hyperprior.best(self._energy(rank, squares), self._count(rank))
            new = (1 - damping) * old + damping * best
            self.values[rank] = torch.maximum(new, _floor(new))

    def counts(self) -> dict[str, int]:
        """D of every rank: the number of entries in each slice, with live slices of the other ranks alone."""
        return {rank: int(self._count(rank)) for rank in self.values}

    def above(self, cut: float) -> dict[str, Tensor]:
        """By rank, which slices have a variance above `cut`; none at its floor, which is above `cut` where the largest is above 10."""
        return {rank: (values > cut) & (values > _floor(values)) for rank, values in self.values.items()}

    def live(self, rank: str) -> Tensor:
        """Which slices of a rank are more than a trace of the largest one; all of them for a rank that governs nothing."""
        if rank not in self.values:
            like = next(iter(self.values.values()))
            return torch.ones(self.network.ranks[rank], dtype=torch.bool, device=like.device)
        values = self.values[rank]
        return values > LIVE * values.max()

    def precision(self, number: int) -> Tensor:
        """1 / v of a factor's entries, in float64; its shape broadcasts to that of the factor."""
        return self.log_variance(number).neg().exp().clamp_max(MAX_PRECISION)

    def log_variance(self, number: int) -> Tensor:
        """The logarithm of v of a factor's entries, in float64; its shape broadcasts to that of the factor."""
        indices, governing = self.network.factors[number], self.governing[number]
        start = 0.0 if self.prior.is_symmetric or governing else math.log(self.prior.core_variance)
        total = next(iter(self.values.values())).new_full([1] * len(indices), start)
        for rank in governing:
            total = total + self._along(self.values[rank].log(), rank, indices)
        return total

    def divergence(self, means: Sequence[Tensor], log_variances: Sequence[Tensor] | None = None) -> Tensor:
        """KL(q || prior) in nats for independent normal entries q, in float64; without variances the negative log density of the means.

        The variances of the ranks are constants here: gradients reach means and log variances only.
        """
        total = torch.zeros((), dtype=torch.float64, device=means[0].device)
        for number, mean in enumerate(means):
            log_v = self.log_variance(number)
            mean = mean.to(torch.promote_types(mean.dtype, torch.float32))  # half precision holds neither a precision nor a square
            precision = log_v.neg().exp().clamp_max(MAX_PRECISION).to(mean.dtype)
            logs = log_v.sum() * (mean.numel() / log_v.numel())
            square = mean.square()
            if log_variances is None:
                total = total + 0.5 * ((square * precision).sum(dtype=torch.float64) + logs + mean.numel() * math.log(2 * math.pi))
                continue
            rho = log_variances[number].to(mean.dtype)
            fit = ((square + rho.exp()) * precision - rho).sum(dtype=torch.float64)
            total = total + 0.5 * (fit + logs - mean.numel())
        return total

    def cost(self) -> Tensor:
        """The negative log density of the variances under the hyperprior, up to a constant: what the updates lower together with the KL."""
        return torch.stack([self.prior.hyperprior.cost(value).sum() for value in self.values.values()]).sum()

    @staticmethod
    def _along(vector: Tensor, rank: str, indices: Sequence[str]) -> Tensor:
        shape = [1] * len(indices)
        shape[list(indices).index(rank)] = -1
        return vector.reshape(shape)

    def _squares(self, means: Sequence[Tensor], variances: Sequence[Tensor] | None) -> list[Tensor]:
        """For each factor the sum over its modes of E[entry^2], with its rank axes left in their order."""
        found = []
        for number, mean in enumerate(means):
            square = mean.detach().double().square()
            if variances is not None:
                square = square + variances[number].detach().double()
            modes = [axis for axis, index in enumerate(self.network.factors[number]) if index in self.network.modes]
            found.append(square.sum(modes) if modes else square)
        return found

    def _energy(self, rank: str, squares: Sequence[Tensor]) -> Tensor:
        """M of a rank: sums of squared entries of each slice, divided by the variances of the other ranks that govern them."""
        total = torch.zeros_like(self.values[rank])
        for number, axis in self._governed(rank):
            ranks = [i for i in self.network.factors[number] if i in self.network.ranks]
            weighted = squares[number]
            for other in ranks:
                if other != rank:
                    weight = self.live(other).to(weighted)
                    if other in self.governing[number]:
                        weight = weight / self.values[other]
                    weighted = weighted * self._along(weight, other, ranks)
            axis = ranks.index(rank)
            total = total + weighted.movedim(axis, 0).flatten(1).sum(1) if weighted.dim() > 1 else total + weighted
        return total

    def _count(self, rank: str) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=self.values[rank].device)
        for number, _ in self._governed(rank):
            count = torch.ones_like(total)
            for index in self.network.factors[number]:
                if index != rank:
                    count = count * (self.network.sizes[index] if index in self.network.modes else self.live(index).sum())
            total = total + count
        return total

    def _governed(self, rank: str) -> list[tuple[int, int]]:
        return [(number, axis) for number, axis in self.network.carriers(rank) if rank in self.governing[number]]


def _floor(values: Tensor) -> Tensor:
    """The least variance of a rank with these ones."""
    return (RELATIVE_FLOOR * values.max()).clamp_min(FLOOR)
