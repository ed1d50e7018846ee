"""The choice of a plan: the best orders of groups first, then for each of them how the state lies in memory from step to step."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from tenfold.contract.apply_steps import Apply
from tenfold.contract.convolve_steps import Convolve, Positions
from tenfold.contract.cost import Machine
from tenfold.contract.orders import sequences
from tenfold.contract.setting import Setting
from tenfold.contract.steps import ContractionPlan
from tenfold.network import Network

# Fewer FLOP are worth a longer predicted time up to this power of what they save: half the FLOP, 1.52 times the time. FLOP are what a
# budget is given in and what a fused kernel will run at; with torch operations they are not the time. Measured on one core for KCP of
# rank 4, 57,600 -> 1,024, 16 rows: 0.65 M multiply-adds 1.3 ms, the fastest plan 0.8 ms with 2.0 M; in training 3.6 and 2.2 ms.
THRIFT = 0.6
ORDERS = 12  # orders of groups that are laid out in memory
SLACK = 1.5  # how much dearer than the cheapest one an order may be to be laid out; copies may still make it the best
LAYOUTS = 10  # states of different layout that are followed through an order


@lru_cache(maxsize=4096)
def plan_linear(network: Network, batch: int, is_cached: bool, machine: Machine) -> ContractionPlan:
    """The plan for (batch, in) -> (batch, out). `is_cached`: contracting factors with each other costs nothing (eval)."""
    return _plan(Apply(network, batch, is_cached, machine))


@lru_cache(maxsize=4096)
def plan_convolution(network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions) -> ContractionPlan:
    """The plan for a convolution of `batch` samples."""
    return _plan(Convolve(network, batch, is_cached, machine, positions))


def dense_plan(network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions | None) -> ContractionPlan:
    """The plan that rebuilds the dense weight."""
    setting = _setting(network, batch, is_cached, machine, positions)
    return _finish(setting, lay_out(setting, [(setting.moves.all,)]))


def fewest_flops(
    network: Network, batch: int, is_cached: bool = True, machine: Machine | None = None, positions: Positions | None = None
) -> ContractionPlan:
    """The plan with the fewest FLOP, and of those the fastest; with `is_cached=False`, FLOP on weights count too."""
    setting = _setting(network, batch, is_cached, machine or Machine(), positions)
    return _finish(setting, _thriftiest(setting))


def recount(
    plan: ContractionPlan, network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions | None
) -> ContractionPlan:
    """The same steps with their cost at other sizes: a plan is chosen for a class of sizes, its FLOP depend on the exact ones."""
    setting = _setting(network, batch, is_cached, machine, positions)
    return _finish(setting, lay_out(setting, [tuple(sum(1 << k for k in step.group.factors) for step in plan.steps)]))


def _setting(network: Network, batch: int, is_cached: bool, machine: Machine, positions: Positions | None) -> Setting:
    if positions is None:
        return Apply(network, batch, is_cached, machine)
    return Convolve(network, batch, is_cached, machine, positions)


Ways = dict[tuple[tuple[str, ...], int, int], tuple[tuple[float, tuple[str, ...], Any], ...]]


class Route(NamedTuple):
    """Steps that are priced but not built: the arguments of `Setting.step` for each, and the order of the indices after the last."""

    seconds: float
    path: tuple[Any, ...]
    last: tuple[str, ...]


def _plan(setting: Setting) -> ContractionPlan:
    """The plan with the fewest FLOP where the fastest one does not gain more time than it spends FLOP, and dense does not either."""
    fastest = lay_out(setting, islice(sequences(setting.moves, setting.price, SLACK), ORDERS))
    thriftiest = _thriftiest(setting)
    if thriftiest.seconds > fastest.seconds:
        saved = _work(setting, fastest) / _work(setting, thriftiest)
        if thriftiest.seconds > min(fastest.seconds * saved**THRIFT, setting.price(0, setting.moves.all)):
            return _finish(setting, fastest)
    return _finish(setting, thriftiest)


def _thriftiest(setting: Setting) -> Route:
    def price(done: int, group: int) -> float:
        return setting.work(done, group) + setting.price(done, group)  # seconds are small beside FLOP: they decide between equals

    return lay_out(setting, islice(sequences(setting.moves, price, 1.0), 1))


def _work(setting: Setting, route: Route) -> float:
    return sum(setting.work(done, group) for _, done, group, _ in route.path)


def _finish(setting: Setting, route: Route) -> ContractionPlan:
    return setting.finish(tuple(setting.step(*place) for place in route.path), route.last, route.seconds)


def lay_out(setting: Setting, orders: Iterable[tuple[int, ...]]) -> Route:
    """The fastest way to meet groups in one of these orders."""
    best: Route | None = None
    ways: Ways = {}
    for groups in orders:
        best = _lay_out(setting, groups, best.seconds if best else float("inf"), ways) or best
    assert best is not None
    return best


def _lay_out(setting: Setting, groups: tuple[int, ...], limit: float, ways: Ways) -> Route | None:
    """The fastest way to meet groups in this order, or None where it takes `limit` or more; `ways` remembers what orders share."""
    states: dict[tuple[str, ...], tuple[float, tuple[Any, ...]]] = {setting.start: (0.0, ())}
    done = 0
    for group in groups:
        found: dict[tuple[str, ...], tuple[float, tuple[Any, ...]]] = {}
        for order, (spent, path) in sorted(states.items(), key=lambda state: state[1][0])[:LAYOUTS]:
            if (known := ways.get((order, done, group))) is None:
                known = ways[order, done, group] = tuple(setting.ways(order, done, group))
            for seconds, after, way in known:
                total = spent + seconds
                if total < limit and (after not in found or total < found[after][0]):
                    found[after] = (total, (*path, (order, done, group, way)))
        states, done = found, done | group
    ends = [Route(spent + setting.closing(order), path, order) for order, (spent, path) in states.items()]
    best = min(ends, key=lambda end: end.seconds, default=None)
    return best if best is not None and best.seconds < limit else None
