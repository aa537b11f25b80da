"""What of a demand is simulated: how many servers of each kind, and which requests come to them when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.cost.serving_sim.arrivals import AtRandom, Demand, Recorded, poisson
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.steady import steady
from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray

#: A run at random lasts so many times as long as a request stays, or at least so many where all servers are simulated;
#: a closed loop begins settled, and is as short.
TURNS, LEAST_TURNS, CLOSED_TURNS = 10, 4, 3
#: A longer run at random is no use.
MOST_REQUESTS = 5_000_000
#: Of the largest kind at least so many servers are simulated, where there are as many.
LEAST_SERVERS = 16


@dataclass(frozen=True)
class Slice:
    """How many servers of each kind are simulated, and the shares of requests that come to them.

    Attributes:
        servers: [kinds]. first, second: [kinds] weight of a server for requests that come, and that are prefilled.
        share: of the deployment's requests that comes to the simulated servers.
        onward: of the prefilled ones of these that comes to the simulated decode servers.
    """

    servers: tuple[int, ...]
    first: FloatArray
    second: FloatArray
    share: float
    onward: float


def simulated_share(kinds: Sequence[InstanceKind], demand: Demand, requests: int) -> float:
    """The share of a deployment that is simulated, so that enough time passes in so many requests."""
    if not isinstance(demand, AtRandom):
        return 1.0
    return min(1.0, requests / (demand.requests_per_s * TURNS * residence_s(kinds)))


def entry_shares(kinds: Sequence[InstanceKind]) -> tuple[FloatArray, FloatArray]:
    """[kinds] shares of a kind's servers together, of the requests that come and of those that are prefilled."""
    rate = np.array([kind.count * kind.point.requests_per_s for kind in kinds])
    of = {role: np.array([kind.role == role for kind in kinds]) for role in ("aggregated", "prefill", "decode")}
    if not rate[of["prefill"]].sum() > 0:
        rate[of["prefill"]] = [kind.servers for kind in kinds if kind.role == "prefill"]
    both = min(rate[of["prefill"]].sum(), rate[of["decode"]].sum()) if of["decode"].any() else 1.0
    first = rate * of["aggregated"]
    if of["prefill"].any():
        first = first + rate * of["prefill"] * both / rate[of["prefill"]].sum()
    return (
        first / first.sum() if first.any() else first,
        rate * of["decode"] / rate[of["decode"]].sum() if of["decode"].any() else rate * 0,
    )


def slice_of(kinds: Sequence[InstanceKind], share: float) -> Slice:
    """About that share of the servers of each kind; a kind with so few that none remains is left out."""
    first, second = entry_shares(kinds)
    servers = np.array([kind.servers for kind in kinds])
    feeds = np.array([kind.role == "prefill" for kind in kinds])
    entering = first > 0 if first.any() else second > 0
    share = max(share, min(1.0, LEAST_SERVERS / servers[entering].max()))
    some = np.where(entering, np.round(servers * share), 0)
    fed = onward = 1.0
    if (feeds & entering).any() and second.any():
        # No larger a share of the decode servers than of those that feed them.
        fed = float((first * some / servers)[feeds].sum() / first[feeds].sum())
        some = np.where(second > 0, np.floor(servers * fed + 1e-9), some)
        onward = float((second * some / servers).sum()) / fed
    if onward == 0.0 or fed == 0.0:
        some, onward = servers, 1.0
    taken = (first if first.any() else second) * some / servers
    return Slice(tuple(map(int, some)), first / servers, second / servers, float(taken.sum()), onward)


def requests_of(
    kinds: Sequence[InstanceKind], demand: Demand, part: Slice, seed: int, requests: int
) -> tuple[IntArray, IntArray, FloatArray, int]:
    """Lengths and times of the requests, and how many of the first are prefilled already."""
    workload = kinds[0].workload
    if isinstance(demand, Recorded):
        return demand.isl, demand.osl, demand.arrival_s, 0
    if isinstance(demand, AtRandom):
        each = _population(kinds, demand.requests_per_s)
        begun = round(sum(batch * count for batch, count in zip(each, part.servers, strict=True)))
        here = demand.requests_per_s * part.share
        least = LEAST_TURNS * here * residence_s(kinds)
        if least > MOST_REQUESTS:
            raise InputError("demand", "", "is so large that requests pile up without end", "ask for less")
        requests = max(requests, int(least))
        arrival = poisson(here, requests, seed)
        isl, osl = np.full(begun + requests, workload.isl), np.full(begun + requests, workload.osl)
        # They are anywhere in their output.
        osl[:begun] = np.random.default_rng((seed, 2)).integers(1, workload.osl, begun, endpoint=True)
        return isl, osl, np.concatenate([np.zeros(begun), arrival]), begun
    begun = demand.requests
    count = begun + max(requests, CLOSED_TURNS * begun)
    if demand.recorded is None:
        isl, osl = np.full(count, workload.isl), np.full(count, workload.osl)
    else:
        isl, osl = np.resize(demand.recorded.isl, count), np.resize(demand.recorded.osl, count)
    osl[:begun] = _left(kinds, part, osl[:begun])
    return isl, osl, np.where(np.arange(count) < begun, 0.0, np.nan), begun


def _population(kinds: Sequence[InstanceKind], requests_per_s: float) -> list[float]:
    """[kinds] sequences that a server decodes on average, by the closed form."""
    first, second = entry_shares(kinds)
    found = []
    for kind, share in zip(kinds, first + second, strict=True):
        at = steady(kind, requests_per_s * share / kind.count)
        found.append(0.0 if kind.role == "prefill" else float(kind.most) if at is None else at.batch)
    return found


def _left(kinds: Sequence[InstanceKind], part: Slice, osl: IntArray) -> IntArray:
    """Output tokens that the first requests of a closed loop still have to make.

    They are as far as if they had begun in bunches, the bunches in which the closed form takes prompts: evenly spread
    over a request's stay, and at other times on each server. All are alike but the last; a request's bunch is on
    average as large as the closed form's.
    """
    decoding = max(1, sum(count for kind, count in zip(kinds, part.servers, strict=True) if kind.role != "prefill"))
    place, server = np.divmod(np.arange(len(osl)), decoding)
    together = max(
        (kind.model.bunch(int(place[-1]) + 1).prompts for kind in kinds if kind.role == "aggregated"), default=1.0
    )
    whole = int(place[-1]) + 1
    others = math.ceil(whole / together) - 1
    spare = (others + 1) * together - whole
    alike = (whole + math.sqrt(whole * spare / others)) / (others + 1) if others else whole
    turn = np.floor(place / alike)
    return np.asarray(np.maximum(1, np.round(osl * (turn + 1 - server / decoding) / (turn[-1] + 1)))).astype(np.int64)


def residence_s(kinds: Sequence[InstanceKind]) -> float:
    """About how long a request stays in a deployment, by the closed form."""
    points = [kind.point for kind in kinds]
    ttft = max((point.ttft_s for point in points if point.ttft_s is not None), default=0.0)
    return ttft + kinds[0].workload.osl * max((point.tpot_s for point in points if point.tpot_s is not None), default=0)
