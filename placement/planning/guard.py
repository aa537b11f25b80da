"""Keeps a plan from drifting behind the load balancer: on every window given, and a look at domains that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement.check.layer import check_layer
from placement.planning.strategies import Answers
from placement.problem.data import LayerData, TokenSets
from placement.problem.layer import LayerProblem
from placement.records.role import RolePlan
from placement.routing.holdout import Routing
from solvers.dispatch import fractions_for
from solvers.experts.candidates import candidate
from solvers.experts.layers import TOLERANCE, plan_layers
from solvers.registry import BALANCER
from solvers.result import Status
from solvers.stop import Stop

#: Share by which a plan may be worse than the balancer in a window.
MOST_LOSS = 0.01
#: Tokens below which a gain may be chance.
FEW_TOKENS = 2_000
#: Layers that are placed anew without a domain, and their work: enough to tell a loss, in a part of a plan's time.
LAYERS_LEFT_OUT, WORK_LEFT_OUT = 4, 0.25


@dataclass(frozen=True)
class Guarded:
    """Answers that keep the promise, and how many of them are the balancer's for its sake."""

    answers: Answers
    replaced: int


def guarded(problems: Sequence[LayerProblem], own: Answers, balancer: Answers) -> Guarded:
    """Own answers, some layers as the balancer has them, so that no window loses more than MOST_LOSS in the mean.

    While a window does, the layer changes to the balancer's placement that costs least for what the window gains.

    Args:
        problems: One an MoE layer, of the same windows. own, balancer: Answers to them.
    """
    ours, theirs = (np.array([one.score.window_value for one in each]) for each in (own, balancer))
    limit = theirs.sum(axis=0) * (1 + MOST_LOSS)
    cost = np.array([b.score.objective - o.score.objective for o, b in zip(own, balancer, strict=True)])
    may = np.array([not check_layer(p, b.slots) for p, b in zip(problems, balancer, strict=True)])
    took = np.zeros(len(own), dtype=bool)
    while True:
        now = np.where(took[:, None], theirs, ours).sum(axis=0)
        worst = int(np.argmax(now / limit))
        gain = np.where(may & ~took, ours[:, worst] - theirs[:, worst], 0.0)
        if now[worst] <= limit[worst] or not (gain > 0).any():
            break
        price = np.where(gain > 0, cost / np.where(gain > 0, gain, 1.0), np.inf)
        took[int(np.argmin(price))] = True
    answers = []
    for mine, other, taken in zip(own, balancer, took, strict=True):
        best = mine if mine.bound >= other.bound else other
        met = other.score.objective <= best.bound * (1 + TOLERANCE)
        kept = replace(
            other, bound=best.bound, bound_source=best.bound_source, witness=best.witness,
            status=Status.OPTIMAL if met else Status.FEASIBLE, termination=mine.termination,
        )  # fmt: skip
        answers.append(kept if taken else mine)
    return Guarded(tuple(answers), int(took.sum()))


def left_out(
    problems: Sequence[LayerProblem], strategy: str, routing: Routing, stop: Stop, seed: int, workers: int
) -> dict[str, float]:
    """Time over the balancer's on each recorded domain, placed without it: what another domain may be like.

    Some layers are placed with little work on the windows of the other traces, by the strategy and by the balancer, and
    scored on those of the domain. Empty where there is one domain, or no token set is known.
    """
    windows = _windows_by_trace(routing)
    if len(windows) < 2 or problems[0].topology.gpus == 1 or problems[0].data.sets is None:
        return {}
    at = np.unique(np.linspace(0, len(problems) - 1, LAYERS_LEFT_OUT).astype(int))
    found = {}
    for name, own in windows.items():
        if stop.expired:
            return {}
        others = [w for other, each in windows.items() if other != name for w in each]
        posed, judged = (
            [replace(problems[i], data=_only(problems[i].data, some)) for i in at] for some in (others, own)
        )
        took = []
        for each in (strategy, BALANCER):
            answers = plan_layers(
                posed, each, stop.scaled(WORK_LEFT_OUT), seed, workers, backend="threads", certify=False
            )
            scored = [
                candidate(on, one.slots, one.fractions if one.fractions is not None else fractions_for(on, one.slots))
                for on, one in zip(judged, answers, strict=True)
            ]
            took.append(sum(one.score.objective for one in scored))
        found[name] = took[0] / took[1]
    return found


def kept_told(replaced: int, role: RolePlan) -> str:
    """What the guard did to a role, in words."""
    told = f"{replaced} of {len(role.layers)} layers of {role.role} are placed as by {BALANCER}"
    return f"{told}: else a window solved on would take over {MOST_LOSS:.0%} longer than under it"


def cautions(routing: Routing, lost: dict[str, float]) -> tuple[str, ...]:
    """What a user of recorded routing should know, a line each; of synthetic routing nothing."""
    record, told = routing.record, []
    if record.synthetic:
        return ()
    if record.tokens_solved < FEW_TOKENS:
        told.append(f"{record.tokens_solved:,} tokens to solve on: gains may be chance, record {FEW_TOKENS:,} or more")
    if len(routing.inputs) == 1 and not routing.counts_only:
        told.append("one trace: other domains heat other experts, so give traces of each (--trace A --trace B)")
    behind = {name: ratio for name, ratio in lost.items() if ratio > 1 + MOST_LOSS}
    if behind:
        names = ", ".join(f"{name} {ratio - 1:.0%}" for name, ratio in behind.items())
        told.append(f"placed without them, these traces take longer than under {BALANCER}: {names}")
    return tuple(told)


def _windows_by_trace(routing: Routing) -> dict[str, list[int]]:
    """The windows solved on of each trace; empty where traces bring windows of their own."""
    names, each, record = [one.name for one in routing.inputs], routing.record.windows_per_trace, routing.record
    windows = len(routing.solved_on[0].window_weight)
    first = int(record.mixture and windows > 1)
    if routing.counts_only or len(set(names)) < len(names) or windows - first != each * len(names):
        return {}
    return {name: list(range(first + i * each, first + (i + 1) * each)) for i, name in enumerate(names)}


def _only(data: LayerData, windows: Sequence[int]) -> LayerData:
    """The routing of some windows, their weights alike to one another as before."""
    weight = data.window_weight[list(windows)]
    share = weight / weight.sum()
    sets = data.sets
    if sets is not None:
        used = sets.weight[list(windows)].any(axis=0)
        sets = TokenSets(sets.ids[used], sets.weight[list(windows)][:, used])
    tokens = None if data.tokens is None else data.tokens * len(windows) / data.windows
    return LayerData(data.load[list(windows)], share, sets, None, tokens)
