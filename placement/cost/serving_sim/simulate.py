"""Serves a demand with a deployment, event by event (docs/cost-model.md, "Demand")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from placement.cost.serving_sim import events
from placement.cost.serving_sim.arrivals import AtRandom, Demand
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.lengths import Lengths
from placement.cost.serving_sim.sample import Slice, requests_of, simulated_share, slice_of
from placement.cost.serving_sim.setup import LoadBalance, loop_of
from placement.cost.serving_sim.state import NOBODY, Loop, Requests
from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray


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
    part = slice_of(kinds, simulated_share(kinds, demand, requests))
    isl, osl, arrival, begun = requests_of(kinds, demand, part, seed, requests)
    lengths = Lengths.of(isl, osl)
    loop = loop_of(kinds, part, demand, load_balance, lengths, isl, osl, arrival, begun, seed)
    _check_sizes(kinds, loop, isl, osl)
    events.run(loop, arrival[-1] if isinstance(demand, AtRandom) else np.inf)
    return _outcome(kinds, loop, part, begun)


def _check_roles(kinds: Sequence[InstanceKind]) -> None:
    roles = {kind.role for kind in kinds}
    for kind in kinds:
        kind.workload  # noqa: B018  # raises for training
    if roles >= {"aggregated", "decode"} and "prefill" not in roles:
        raise InputError("deployment", "role", "has decode instances and none that prefill", "add some, or leave them")


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


def _outcome(kinds: Sequence[InstanceKind], loop: Loop, part: Slice, begun: int) -> Run:
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
