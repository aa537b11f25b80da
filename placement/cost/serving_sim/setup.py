"""The event loop's arrays at the start: requests, servers, price tables, and who gets the next request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from placement.cost.serving_sim.arrivals import Demand, InFlight
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.lengths import Lengths, context_of
from placement.cost.serving_sim.queues import line_of
from placement.cost.serving_sim.sample import Slice
from placement.cost.serving_sim.state import IDLE, NOBODY, Desk, Kinds, Loop, Moving, Requests, Servers, Sizes
from placement.problem.arrays import BoolArray, FloatArray, IntArray

LoadBalance = Literal["planned", "random", "round_robin", "least_loaded"]


def loop_of(
    kinds: Sequence[InstanceKind],
    part: Slice,
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
    # Those that are prefilled already have no tokens left; of others the prefix cache has its share.
    left = np.where(np.arange(count) < begun, 0.0, isl * (1.0 - kinds[0].workload.prefix_hit))
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
        model = kind.model
        if kind.role == "aggregated":
            rows.append((model.wait * model.first_token_s, model.wait, model.wait, model.stall))
        else:
            rows.append((model.first_token_s, 1.0, 1.0, 1.0))
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
