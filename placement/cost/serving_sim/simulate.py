"""Serves a demand with a deployment, event by event (docs/cost-model.md, "Demand")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from placement.cost.serving_sim import events
from placement.cost.serving_sim.arrivals import AtRandom, Demand, InFlight, Recorded, poisson
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.lengths import Lengths, context_of
from placement.cost.serving_sim.state import (
    IDLE,
    NOBODY,
    Desk,
    Kinds,
    Loop,
    Moving,
    Requests,
    Servers,
    Sizes,
    line_of,
)
from placement.cost.serving_sim.steady import steady
from placement.errors import InputError
from placement.problem.arrays import BoolArray, FloatArray, IntArray

LoadBalance = Literal["planned", "random", "round_robin", "least_loaded"]

#: A run at random lasts so many times as long as a request stays, or at least so many where all servers are simulated;
#: a closed loop begins settled, and is as short.
TURNS, LEAST_TURNS, CLOSED_TURNS = 10, 4, 3
#: A longer run at random is no use.
MOST_REQUESTS = 5_000_000
#: Of the largest kind at least so many servers are simulated, where there are as many.
LEAST_SERVERS = 16


@dataclass(frozen=True)
class Run:
    """What became of the requests, in order of arrival, up to the first that was not served by the end.

    Attributes:
        arrival_s: [requests]. ttft_s, tpot_s: nan where the deployment only decodes, or only prefills.
        waited_s: [requests, 2] in line to be prefilled, and then to decode. decoded_s: while it decoded.
        work_s: its share of prefill passes.
        kind: [requests, 2] kind that prefilled, and kind that decoded after another; NOBODY for none.
        done_s, done_osl: of all that were served: when, and output tokens; also of those that came later, or were there
            at the start (the tokens that they still had to make).
        end_s: when the simulation ended. come: requests that came to the simulated servers.
        simulated: [kinds] servers. share: of the deployment's requests that these are.
    """

    arrival_s: FloatArray
    ttft_s: FloatArray
    tpot_s: FloatArray
    waited_s: FloatArray
    decoded_s: FloatArray
    work_s: FloatArray
    kind: IntArray
    done_s: FloatArray
    done_osl: FloatArray
    end_s: float
    come: int
    simulated: tuple[int, ...]
    share: float


@dataclass(frozen=True)
class _Slice:
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


def run(
    kinds: Sequence[InstanceKind],
    demand: Demand,
    load_balance: LoadBalance = "planned",
    seed: int = 0,
    requests: int = 200_000,
) -> Run:
    """Serves a demand.

    Args:
        kinds: The deployment's instances: of one model and workload.
        demand: Who asks when.
        load_balance: Which server gets a request, by what its kind yields: one drawn by chance, each in turn, or the
            one with the fewest requests; "planned": by chance to servers that only prefill, in turn to others, and in a
            closed loop to the place that came free.
        seed: Of arrivals and chance.
        requests: About so many are simulated where the demand does not say how many there are: with fewer servers of
            each kind, which get their share, where the deployment serves more in the time.

    Raises:
        InputError: training, instances that decode without any that prefill beside aggregated ones, or a request that
            no KV cache holds.
    """
    _check_roles(kinds)
    part = _slice(kinds, _share(kinds, demand, requests))
    isl, osl, arrival, begun = _requests(kinds, demand, part, seed, requests)
    lengths = Lengths.of(isl, osl)
    loop = _loop(kinds, part, demand, load_balance, lengths, isl, osl, arrival, begun, seed)
    _check_sizes(kinds, loop, isl, osl)
    events.run(loop, arrival[-1] if isinstance(demand, AtRandom) else np.inf)
    return _outcome(kinds, loop, part, begun)


def residence_s(kinds: Sequence[InstanceKind]) -> float:
    """About how long a request stays in a deployment, by the closed form."""
    points = [kind.point for kind in kinds]
    ttft = max((point.ttft_s for point in points if point.ttft_s is not None), default=0.0)
    return ttft + kinds[0].workload.osl * max((point.tpot_s for point in points if point.tpot_s is not None), default=0)


def _check_roles(kinds: Sequence[InstanceKind]) -> None:
    roles = {kind.role for kind in kinds}
    for kind in kinds:
        kind.workload  # noqa: B018  # raises for training
    if roles >= {"aggregated", "decode"} and "prefill" not in roles:
        raise InputError("deployment", "role", "has decode instances and none that prefill", "add some, or leave them")


def _share(kinds: Sequence[InstanceKind], demand: Demand, requests: int) -> float:
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


def _slice(kinds: Sequence[InstanceKind], share: float) -> _Slice:
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
    return _Slice(tuple(map(int, some)), first / servers, second / servers, float(taken.sum()), onward)


def _requests(
    kinds: Sequence[InstanceKind], demand: Demand, part: _Slice, seed: int, requests: int
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


def _left(kinds: Sequence[InstanceKind], part: _Slice, osl: IntArray) -> IntArray:
    """Output tokens that the first requests of a closed loop still have to make.

    They are as far as if they had begun in bunches, the bunches in which the closed form takes prompts: evenly spread
    over a request's stay, and at other times on each server.
    """
    decoding = max(1, sum(count for kind, count in zip(kinds, part.servers, strict=True) if kind.role != "prefill"))
    place, server = np.divmod(np.arange(len(osl)), decoding)
    together = max(
        (kind.model.bunch(int(place[-1]) + 1).prompts for kind in kinds if kind.role == "aggregated"), default=1.0
    )
    turn = np.floor(place / together)
    return np.asarray(np.maximum(1, np.round(osl * (turn + 1 - server / decoding) / (turn[-1] + 1)))).astype(np.int64)


def _loop(
    kinds: Sequence[InstanceKind],
    part: _Slice,
    demand: Demand,
    load_balance: LoadBalance,
    lengths: Lengths,
    isl: IntArray,
    osl: IntArray,
    arrival: FloatArray,
    begun: int,
    seed: int,
) -> Loop:
    count = len(isl)

    def unset() -> FloatArray:
        return np.full(count, np.nan)

    draws = np.random.default_rng((seed, 1)).random((count, 2))
    # Those that are prefilled already have no tokens left.
    left = np.where(np.arange(count) < begun, 0.0, isl)
    requests = Requests(
        arrival=arrival.copy(), isl=isl.astype(np.float64), osl=osl.astype(np.float64), context=context_of(isl, osl),
        draws=draws, began=unset(), ready=unset(), seen=unset(), blocked=unset(), joined=unset(), finished=unset(),
        work=np.zeros(count), server=np.full((count, 2), NOBODY), left=left, taken=np.zeros(count),
        after=np.full(count, NOBODY),
    )  # fmt: skip
    which = np.repeat(np.arange(len(kinds)), part.servers)
    prefills = np.array([kind.role != "decode" for kind in kinds])
    priced = _priced(kinds, lengths)
    return Loop(
        kinds=priced,
        requests=requests,
        sizes=Sizes(
            np.array([kind.stored(requests.isl + requests.osl) for kind in kinds]),
            np.array([kind.moved(requests.isl) for kind in kinds]),
        ),
        servers=_servers(which, np.where(priced.decodes, priced.slots, 0)),
        due=line_of(np.full(len(which), np.inf)),
        prefill=_desk(which, prefills, part.first, _policy(kinds, demand, load_balance, "prefill")),
        decode=_desk(which, ~prefills, part.second, _policy(kinds, demand, load_balance, "decode")),
        moving=Moving(np.zeros(count), np.zeros(count, np.int64), np.zeros(1, np.int64)),
        share=np.array([part.onward]),
        issued=np.zeros(1, np.int64),
        known=np.array([np.isfinite(arrival).sum()]),
    )


def _priced(kinds: Sequence[InstanceKind], lengths: Lengths) -> Kinds:
    passes = [kind.pass_tables(lengths) for kind in kinds]
    tables = [kind.decode_table(lengths) for kind in kinds]
    widest = max(table.shape[1] for table in tables)
    rows: list[tuple[float, float, float, float]] = []
    for kind in kinds:
        constants, model = kind.model.efficiency, kind.model
        case = constants.ttft_case.value
        if kind.role == "aggregated":
            scale = case * model.wait
            clock = constants.tpot_case.value
            rows.append((scale * model.first_token_s, scale / clock, scale / clock, model.stall))
        else:
            rows.append((case * model.first_token_s, 1.0, case, 1.0))
    ahead, waits, own, stall = np.array(rows).T
    return Kinds(
        prefills=np.array([kind.role != "decode" for kind in kinds]),
        decodes=np.array([kind.role != "prefill" for kind in kinds]),
        slots=np.array([kind.slots for kind in kinds]),
        room=np.array([float(kind.most) for kind in kinds]) + 1e-9,
        budget=np.array([kind.model.budget * kind.cp for kind in kinds]),
        stall=stall.copy(),
        ahead_s=ahead.copy(),
        wait_scale=waits.copy(),
        own_scale=own.copy(),
        link_s=np.array([kind.transfer_s for kind in kinds]),
        contexts=np.array(lengths.mean_contexts, dtype=np.float64),
        decode_s=np.array([np.pad(table, ((0, 0), (0, widest - table.shape[1])), "edge") for table in tables]),
        lengths=np.array(lengths.prompts, dtype=np.float64),
        pass_s=np.array([own_s for own_s, _ in passes]),
        through_s=np.array([whole_s for _, whole_s in passes]),
    )


def _servers(which: IntArray, room: IntArray) -> Servers:
    count = len(which)
    rooms = room[which]

    def whole(value: int = 0) -> IntArray:
        return np.full(count, value)

    return Servers(
        kind=which, does=whole(IDLE), first=whole(NOBODY), last=whole(NOBODY), entered=whole(), leaving=whole(),
        active=whole(), used=whole(), kept=np.zeros(count), context=np.zeros(count), steps=np.zeros(count),
        run=np.zeros(count), since=np.zeros(count), step_s=np.zeros(count), through_s=np.zeros(count),
        owed_s=np.zeros(count), link_free=np.zeros(count), base=np.cumsum(rooms) - rooms,
        ends=np.zeros(max(1, int(rooms.sum()))), who=np.zeros(max(1, int(rooms.sum())), np.int64),
    )  # fmt: skip


def _policy(
    kinds: Sequence[InstanceKind], demand: Demand, load_balance: LoadBalance, stage: Literal["prefill", "decode"]
) -> LoadBalance:
    """How requests come to the servers that prefill, or to those that decode after them.

    The closed form has prompts come at random to ranks that only prefill (M/D/1), and as many sequences on all ranks
    that decode.
    """
    if load_balance != "planned":
        return load_balance
    if stage == "prefill" and any(kind.role == "prefill" for kind in kinds):
        return "random"
    return "least_loaded" if isinstance(demand, InFlight) else "round_robin"


def _desk(which: IntArray, stage: BoolArray, weight: FloatArray, load_balance: LoadBalance) -> Desk:
    servers = np.flatnonzero(stage[which])
    weights = weight[which]
    step = np.divide(1.0, weights, out=np.full(len(which), np.inf), where=weights > 0)
    total = weights[servers].sum()
    return Desk(
        servers=servers,
        rises=np.cumsum(weights[servers]) / (total or 1.0),
        step=step,
        load=line_of(np.where(stage[which], step, np.inf)),
        random=np.array([load_balance == "random"]),
        leaves=np.array([load_balance == "least_loaded"]),
    )


def _check_sizes(kinds: Sequence[InstanceKind], loop: Loop, isl: IntArray, osl: IntArray) -> None:
    """Refuses a request that a decoding instance can't hold alone."""
    for index, kind in enumerate(kinds):
        if kind.role == "prefill":
            continue
        large = int(np.argmax(loop.sizes.stored[index]))
        if loop.sizes.stored[index, large] > loop.kinds.room[index]:
            raise InputError(
                "request", str(large + 1), f"of {isl[large]:,} + {osl[large]:,} tokens takes "
                f"{loop.sizes.stored[index, large] / kind.most:.2f} times the KV cache of a rank",
                "leave it out, or deploy more tp, pp or redundancy-free instances",
            )  # fmt: skip


def _outcome(kinds: Sequence[InstanceKind], loop: Loop, part: _Slice, begun: int) -> Run:
    come = slice(begun, int(loop.issued[0]))
    parts: Any = (each[come] for each in loop.requests)
    requests = Requests(*parts)
    kind = np.where(requests.server == NOBODY, NOBODY, loop.servers.kind[requests.server])
    decodes = np.array([each.role != "prefill" for each in kinds])
    # Where nothing decodes, a request is done with its first token. Some are decoded by servers that are not simulated.
    done = requests.finished if decodes.any() else requests.arrival + requests.seen
    away = np.isfinite(requests.ready) & (kind[:, 1] == NOBODY) & ~decodes[np.maximum(kind[:, 0], 0)] & decodes.any()
    served = np.isfinite(done)
    every = loop.requests.finished if decodes.any() else loop.requests.arrival + loop.requests.seen
    missing = np.flatnonzero(~served & ~away)
    chosen = np.flatnonzero(~away[: int(missing[0]) if len(missing) else len(done)])
    began = np.fmin(requests.began, requests.joined)[chosen]
    to_decode = np.where(kind[chosen, 1] == NOBODY, 0.0, np.maximum(0.0, (requests.joined - requests.blocked)[chosen]))
    decoded = (requests.finished - requests.joined)[chosen]
    return Run(
        arrival_s=requests.arrival[chosen],
        ttft_s=requests.seen[chosen] + to_decode,
        tpot_s=decoded / requests.osl[chosen],
        waited_s=np.stack([np.maximum(0.0, began - requests.arrival[chosen]), to_decode], axis=1),
        decoded_s=decoded,
        work_s=requests.work[chosen],
        kind=kind[chosen],
        done_s=every[np.isfinite(every)],
        done_osl=loop.requests.osl[np.isfinite(every)],
        end_s=float(max(requests.arrival[-1], done[served].max(initial=0.0))),
        come=len(done),
        simulated=part.servers,
        share=part.share * part.onward,
    )
