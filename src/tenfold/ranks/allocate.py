"""Ranks over layers: the smallest total loss under a budget, with one Lagrange multiplier.

Every layer offers candidates with a loss and costs. For a price on cost, each layer takes the candidate with the smallest
loss + price x cost; the price is raised until the budget holds, what the last step left over is spent greedily, and exchanges
between two layers mend what a price cannot reach (it only sees the convex hull of a layer's candidates).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenfold.budget import Budget

STARTS = 3  # mixtures of several limits that are improved by exchanges
PAIRS = 1 << 18  # of changes that are compared at a time, which bounds the memory
EXCHANGES = 200  # at most; a few dozen are usual
VIOLATION = 1e6  # how much more it counts to exceed a limit by all of it than by almost nothing


@dataclass(frozen=True)
class Option:
    """One candidate: its loss for the model and its costs by the names of the budget."""

    loss: float
    costs: Mapping[str, float]


def allocate(layers: Sequence[Sequence[Option]], totals: Mapping[str, float], fixed: Mapping[str, float], budget: Budget) -> list[int]:
    """The number of the option of every layer.

    Args:
        totals: the cost of the whole dense model by name; fixed: the part of it that no layer here can change.

    Raises:
        ValueError: the budget is impossible; the message names the smallest that can be reached.
    """
    limits = {name: fraction * totals[name] - fixed[name] for name, fraction in budget.limits.items()}
    for name, limit in limits.items():
        least = sum(min(option.costs[name] for option in options) for options in layers)
        if least > limit:
            reachable = _up((least + fixed[name]) / max(totals[name], 1))
            advice = "ask for at least that, allow more layers, or choose another format"
            if name == "flops" and reachable >= 1:  # the layers have candidates, and all of them run as the dense weight
                advice = "layers so small run with their weight rebuilt: give a budget of params or bytes, or allow larger layers"
            raise ValueError(
                f"the budget asks to keep {name}={budget.limits[name]:.4g}, but the smallest reachable here is "
                f"{name}={reachable:.4g}; {advice}"
            )
    useful = [_useful(options, list(limits)) for options in layers]
    layers = [[options[k] for k in numbers] for options, numbers in zip(layers, useful, strict=True)]
    table = _Moves(layers, limits)
    starts, prices = [], []
    for weights in _mixtures(tuple(limits)):
        scaled = [[sum(w * option.costs[n] / max(limits[n], 1e-9) for n, w in weights.items()) for option in options] for options in layers]
        inside, outside, price = _bisect(layers, scaled, limits)
        if _holds(layers, inside, limits):
            inside = _fill(table, inside)
        prices.append([price * weights[n] / max(limits[n], 1e-9) for n in limits])
        starts.append((not _holds(layers, inside, limits), _loss(layers, inside), inside, outside))
    best: list[int] | None = None
    for _, _, *pair in sorted(starts)[:STARTS]:
        for start in pair:
            chosen = _exchange(table, start, prices)
            if _holds(layers, chosen, limits) and (best is None or _loss(layers, chosen) < _loss(layers, best)):
                best = chosen
    if best is None:
        reached = {
            name: _up((_cost(layers, [_least(options, name) for options in layers], name) + fixed[name]) / totals[name]) for name in limits
        }
        raise ValueError(f"no choice of ranks keeps all of {budget} at once, though each alone can reach {reached}; relax one of them")
    return [numbers[k] for numbers, k in zip(useful, best, strict=True)]


def _bisect(
    layers: Sequence[Sequence[Option]], scaled: list[list[float]], limits: Mapping[str, float]
) -> tuple[list[int], list[int], float]:
    """The choice at the smallest price that holds the limits, that at a price just below it, and the price."""

    def at(price: float) -> list[int]:
        return [
            min(range(len(options)), key=lambda k: (options[k].loss + price * costs[k], costs[k]))
            for options, costs in zip(layers, scaled, strict=True)
        ]

    low, high = 0.0, 1e-12
    while not _holds(layers, at(high), limits) and high < 1e30:
        low, high = high, high * 4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _holds(layers, at(middle), limits) else (middle, high)
    return at(high), at(low), high


class _Moves:
    """All options of all layers in one row, as tensors: each is a move of its layer to it."""

    def __init__(self, layers: Sequence[Sequence[Option]], limits: Mapping[str, float]) -> None:
        self.moves = [(number, k) for number, options in enumerate(layers) for k in range(len(options))]
        self.where = {move: index for index, move in enumerate(self.moves)}
        self.owner = torch.tensor([number for number, _ in self.moves])
        self.losses = torch.tensor([layers[number][k].loss for number, k in self.moves], dtype=torch.float64)
        self.costs = torch.tensor([[layers[number][k].costs[n] for n in limits] for number, k in self.moves], dtype=torch.float64)
        self.limit = torch.tensor(list(limits.values()), dtype=torch.float64)

    def at(self, chosen: Sequence[int]) -> Tensor:
        """The places of a choice in the row."""
        return torch.tensor([self.where[move] for move in enumerate(chosen)])

    def changes(self, now: Tensor) -> tuple[Tensor, Tensor]:
        """How much every move lowers the loss and raises the costs of a choice at these places."""
        return self.losses[now][self.owner] - self.losses, self.costs - self.costs[now][self.owner]


def _fill(table: _Moves, chosen: Sequence[int]) -> list[int]:
    """Spends what is left: again and again the change that lowers the loss most for what it costs, while the limits hold."""
    chosen, now = list(chosen), table.at(chosen)
    while True:
        gain, change = table.changes(now)
        price = (change.clamp_min(0) / table.limit.clamp_min(1e-9)).sum(1)
        helps = (gain > 0) & (table.costs[now].sum(0) + change <= table.limit).all(1)
        best = int(torch.where(helps, gain / (price + 1e-9), -torch.inf).argmax())
        if not helps[best]:
            return chosen
        number, k = table.moves[best]
        chosen[number], now[number] = k, best


def _exchange(table: _Moves, chosen: Sequence[int], prices: Sequence[Sequence[float]]) -> list[int]:
    """Changes of one or two layers that lower the loss most, again and again; first of all those that make the limits hold.

    Pairs of changes are as many as the square of all options, so those that cannot be the best are left out unseen. Whatever the prices,
    a pair that holds the limits lowers the loss by no more than its loss and cost are worth at them, less what is unspent; a pair that
    does not hold them has a penalty of `most` at least. With the prices of all starts hardly any pair is left.
    """
    chosen, owner, limit = list(chosen), table.owner, table.limit
    price = torch.tensor(prices, dtype=torch.float64).T
    most = 1 + table.losses.abs().sum()

    def penalty(over: Tensor) -> Tensor:
        return torch.where(over > 0, most * (1 + VIOLATION * over / limit.clamp_min(1e-9)), 0.0).sum(-1)

    for _ in range(EXCHANGES):
        now = table.at(chosen)
        (gain, change), over = table.changes(now), table.costs[now].sum(0) - limit
        stay = now[:1]  # the first layer keeps what it has: a pair with it changes one layer only
        frees = (change < 0).any(1)
        left = torch.cat([frees.nonzero()[:, 0], stay])
        right = torch.cat([((gain > 0) | (frees & bool((over > 0).any()))).nonzero()[:, 0], stay])
        worth = gain[:, None] - change @ price
        unspent = 1e-12 * ((change.abs().amax(0) + over.abs()) @ price) - over @ price  # rounding on the safe side: prices may be 1e30
        least = torch.cat([gain[one] - penalty(over + change[one]) for one in (left, right)]).max() - 1e-12 * most
        left, right = (
            one[torch.maximum((worth[one] + worth[other].amax(0) + unspent).amin(1), gain[one] + gain[other].max() - most) >= least]
            for one, other in ((left, right), (right, left))
        )
        best, pair = -torch.inf, (stay, stay)
        for part in left.split(max(1, PAIRS // len(right))):
            score = gain[part, None] + gain[None, right] - penalty(over + change[part, None] + change[None, right])
            score[(owner[part, None] == owner[None, right]) & (part[:, None] != stay) & (right[None] != stay)] = -torch.inf
            row, column = divmod(int(score.argmax()), len(right))
            if (value := float(score[row, column])) > best:
                best, pair = value, (part[row], right[column])
        if best <= 1e-12 * most - penalty(over):
            break
        for number, k in (table.moves[int(one)] for one in pair):
            if (number, k) != table.moves[int(stay)]:
                chosen[number] = k
    return chosen


def _useful(options: Sequence[Option], names: Sequence[str]) -> list[int]:
    """The numbers of the options that no other one equals or beats in loss and all costs."""
    values = [(option.loss, *(option.costs[name] for name in names)) for option in options]
    kept: list[int] = []
    for k in sorted(range(len(options)), key=lambda k: values[k]):
        if not any(all(a <= b for a, b in zip(values[other], values[k], strict=True)) for other in kept):
            kept.append(k)
    return kept


def _mixtures(names: tuple[str, ...]) -> list[dict[str, float]]:
    """Weights of the costs in the price: one multiplier for one limit, a grid of mixtures for several."""
    if len(names) == 1:
        return [{names[0]: 1.0}]
    steps = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    pairs = [{names[0]: w, names[1]: 1 - w} for w in steps]
    return pairs if len(names) == 2 else [{**pair, names[2]: w} for pair in pairs for w in (0.1, 0.5, 1.0)]


def _holds(layers: Sequence[Sequence[Option]], chosen: Sequence[int], limits: Mapping[str, float]) -> bool:
    return all(_cost(layers, chosen, name) <= limit for name, limit in limits.items())


def _cost(layers: Sequence[Sequence[Option]], chosen: Sequence[int], name: str) -> float:
    return sum(options[k].costs[name] for options, k in zip(layers, chosen, strict=True))


def _loss(layers: Sequence[Sequence[Option]], chosen: Sequence[int]) -> float:
    return sum(options[k].loss for options, k in zip(layers, chosen, strict=True))


def _least(options: Sequence[Option], name: str) -> int:
    return min(range(len(options)), key=lambda k: options[k].costs[name])


def _up(fraction: float) -> float:
    """A fraction rounded up to four digits, so that asking for what a message names succeeds."""
    return -(-fraction * 10_000 // 1) / 10_000
