"""Errors that `compress` reaches, in place of those that candidates name, for all that a plan picks.

Candidates are many, and their errors on outputs are those of a Kronecker approximation of the metric, scaled by one decomposition for each
layer. So the cheapest look best where the estimate is too good. What a budget picks is decomposed as `compress` will, its neighbours in
rank are scaled alike, and the budget picks again; in the end the best of the picks counts, of all of which the errors are known.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from tenfold.decompose import SWEEPS, Job, decompose_each, solved_together
from tenfold.progress import Progress
from tenfold.ranks.candidates import Candidate
from tenfold.ranks.offers import Offers, has_metric

ROUNDS = 4  # at most; of 28 layers about nine change in the second round, and four in the third
Picks: TypeAlias = Mapping[str, Candidate]


def settled(offers: Offers, pick: Callable[[Offers], tuple[Offers, Picks]], progress: Progress) -> tuple[Offers, Picks]:
    """The offers with the errors that were reached, and the picks that cost the model least by them.

    Nothing is decomposed where errors are those of the weights: candidates know these. What came before does not matter: the same budget
    has the same picks whichever were asked for earlier.

    Args:
        pick: the picks of a budget, and the offers with what was found out for them.

    Raises:
        ValueError: the budget is impossible.
    """
    offers, picks = pick(replace(offers, reached={}))
    if not offers.moments:
        return offers, picks
    tried: list[tuple[float, Picks]] = []
    while all(picks != other for _, other in tried) and len(tried) < ROUNDS:
        offers = with_reached(offers, picks, progress)
        tried.append((offers.loss(picks), picks))
        with contextlib.suppress(ValueError):  # what was found out for later picks may leave too little, but these keep the budget
            offers, picks = pick(offers)
    best = min(tried, key=lambda one: one[0])[1]
    return with_reached(offers, best, progress), best


def with_reached(offers: Offers, picks: Picks, progress: Progress) -> Offers:
    """The offers with the squared relative errors of these candidates. One that cannot be decomposed keeps the error that it names.

    Layers are solved with those that `compress` solves them with, and again where these are others.
    """
    layers, jobs = {one.name: one for one in offers.layers}, []
    for name, one in picks.items():
        if one.format is not None and one.fold is not None:
            metric = offers.moments[name] if has_metric(layers[name], one.fold, offers.moments) else None
            jobs.append(Job(name, layers[name].weight.detach(), one.fold, one.format.network(one.fold), one.format, metric))
    reached = {name: {**offers.reached.get(name, {})} for name in {*offers.reached, *picks}}
    done = 0
    for members in solved_together(jobs):
        progress("decomposing what is picked", done, len(jobs))
        key = tuple(job.name for job in members), members[0].format, members[0].fold
        if key not in offers.decomposed:
            results = decompose_each(members, sweeps=SWEEPS, seed=offers.seed, warn=False)
            errors = {
                job.name: math.nan if isinstance(made, Exception) else made.error_of(job.metric, job.weight) ** 2 for job, made in results
            }
            offers.decomposed[key] = [errors[name] for name in key[0]]
        for name, error in zip(key[0], offers.decomposed[key], strict=True):
            if not math.isnan(error):
                reached[name][picks[name]] = error
        done += len(members)
    progress("decomposing what is picked", len(jobs), len(jobs))
    return replace(offers, reached=reached)
