"""Instances for a closed loop: so many clients, each with one request in flight, on so many GPUs.

Clients wait for their answers, so that most requests/s are shortest answers. Every layout of a role has a curve: how
many requests are in an instance at a rate. A deployment serves the rate at which its instances hold all clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from placement.arithmetic import FloatArray
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.hbm import MemoryModel
from placement.cost.memory.local import LocalParameters
from placement.cost.step.pass_times import PassModel
from placement.cost.step.roles import (
    MOST_BUSY,
    PrefillQueue,
    Role,
    aggregated_point,
    context_degrees,
    decode_point,
)
from placement.cost.step.throughput import ServingModel
from placement.problem.engine_rules import Layout, most_sequences, role_problem
from placement.problem.pieces import StageTable, stage_table
from placement.problem.split import Split
from solvers.deploy.layout import pack
from solvers.deploy.problem import Pool
from solvers.split.build import serving_split
from solvers.split.degrees import Degrees, list_candidates
from specs.scenario import Scenario

#: Shares of its most requests/s at which a prefill instance's curve is known.
_BUSY = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, MOST_BUSY)
#: Rates at which all deployments are compared first, from the highest down to this share of it.
_RATES, _LOWEST = 256, 1 / 64
#: Bisections of a deployment's rate, and deployments that are taken so far, best first.
_BISECTIONS, _CLOSELY = 40, 64
#: Deployments whose rates are within this share of each other count as equal.
EQUAL = 0.005


@dataclass(frozen=True)
class Server:
    """One layout in a role, as a curve.

    Attributes:
        cp: attention ranks that share a prompt.
        rates, held: requests/s of an instance, ascending from 0, and requests in it then.
        most: sequences of an attention rank at the end of the curve; 0 for prefill.
        limit: what ends the curve: "HBM", "engine" or "busy".
    """

    role: Role
    split: Split
    rates: tuple[float, ...]
    held: tuple[float, ...]
    cp: int = 1
    most: int = 0
    limit: str = "busy"

    @property
    def gpus(self) -> int:
        """GPUs of an instance."""
        return self.split.gpus_per_instance

    @cached_property
    def _curve(self) -> tuple[FloatArray, FloatArray]:
        return np.array(self.rates), np.array(self.held)

    def holds(self, rates: FloatArray | float, count: int) -> FloatArray:
        """Requests in `count` instances that serve so many requests/s together; inf beyond their most."""
        known, held = self._curve
        each = np.asarray(rates, float) / count
        return np.where(each <= known[-1] * (1 + 1e-12), count * np.interp(each, known, held), np.inf)

    def batch(self, rate: float, count: int) -> float:
        """Sequences of an attention rank at a rate; of prefill the prompts of all ranks that share one."""
        return float(self.holds(rate, count)) / count / self.split.dp


@dataclass(frozen=True)
class Serving:
    """A deployment that serves clients.

    Attributes:
        kinds: instances, and how many of each: of one that serves whole requests, or of prefill and of decode.
        requests_per_s: of all. clients: those that it holds; fewer than asked for where the rest wait.
    """

    kinds: tuple[tuple[Server, int], ...]
    requests_per_s: float
    clients: float

    @property
    def gpus(self) -> int:
        """GPUs in use."""
        return sum(server.gpus * count for server, count in self.kinds)

    def of(self, role: Role) -> tuple[Server, int] | None:
        """The instances of a role."""
        return next(((server, count) for server, count in self.kinds if server.role == role), None)


def list_servers(scenario: Scenario, roles: Sequence[Role]) -> tuple[Server, ...]:
    """Every layout that the scenario's model, GPUs, engine and pins allow, in every role that HBM does."""
    redundant = None if scenario.redundant == "auto" else int(scenario.redundant)
    found = []
    for role in roles:
        own = scenario.of_role(role)
        found += servers_of(own, list_candidates(own, own.pins, redundant).degrees, (role,))
    return tuple(found)


def servers_of(scenario: Scenario, layouts: Iterable[Degrees], roles: Sequence[Role]) -> list[Server]:
    """Layouts in roles; those that the engine does not run, or HBM not hold with one sequence, are left out."""
    workload, efficiency = scenario.workload, efficiency_of(scenario)
    if workload.kind != "serving":
        raise ValueError("clients are served; training has none")
    found: list[Server] = []
    tables: dict[int, StageTable] = {}
    shared: tuple[tuple[int, int, int, int], LocalParameters, PassModel] | None = None
    for degrees in layouts:
        split = replace(serving_split(scenario, degrees, 1), instances=1)
        key = (degrees.tp, degrees.ep, degrees.dp, degrees.redundant)
        if shared is None or shared[0] != key:
            shared = key, LocalParameters.of(scenario.model, split), PassModel(scenario, split, efficiency)
        stages = tables.setdefault(degrees.pp, stage_table(scenario.model, degrees.pp))
        memory = MemoryModel(scenario, split, efficiency, stages, shared[1])
        if memory.total_bytes(1) > memory.capacity_bytes:
            continue
        model = ServingModel(scenario, workload, split, None, efficiency, shared[2].at_depth(split, stages))
        for role in roles:
            if role_problem(scenario, Layout.of(scenario, split), role):
                continue
            found += _prefill(scenario, model) if role == "prefill" else [_decode(scenario, model, memory, role)]
    return found


def _prefill(scenario: Scenario, model: ServingModel) -> list[Server]:
    """A prefill instance with prompts on one rank, and shared between several."""
    found = []
    for cp in context_degrees(scenario, model.split):
        queue = PrefillQueue.of(model, cp)
        points = [queue.at(busy) for busy in _BUSY]
        rates = (0.0, *(point.requests_per_s for point in points))
        held = (0.0, *(point.requests_per_s * (point.ttft_s or 0.0) for point in points))
        found.append(Server("prefill", model.split, rates, held, cp))
    return found


def _decode(scenario: Scenario, model: ServingModel, memory: MemoryModel, role: Role) -> Server:
    """An instance that decodes, or serves whole requests, up to its largest batch."""
    engine = most_sequences(scenario, model.split.tp, model.split.pp)
    most, limit = int(model.efficiency.max_sequences_per_rank.value), "engine"
    most = min(most, engine or most)
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory.total_bytes(middle) <= memory.capacity_bytes else (low, middle)
    if low < most:
        limit = "HBM"
    at = aggregated_point if role == "aggregated" else decode_point
    rates, held = [0.0], [0.0]
    for batch in _batches(low):
        rate = at(model, batch).requests_per_s
        # Fewer sequences are as fast: a curve never falls.
        if rate > rates[-1]:
            rates.append(rate)
            held.append(float(batch * model.split.dp))
    return Server(role, model.split, tuple(rates), tuple(held), 1, low, limit)


def _batches(most: int) -> list[int]:
    """Batches up to `most`, each at most a quarter more than the one before."""
    found = [1]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, found[-1] * 5 // 4)))
    return found


def serve(kinds: Sequence[tuple[Server, int]], clients: float) -> Serving:
    """What given instances serve of so many clients."""
    most = min(server.rates[-1] * count for server, count in kinds)

    def held(rate: float) -> float:
        return float(sum(server.holds(rate, count) for server, count in kinds))

    low, high = 0.0, most
    if held(most) <= clients:
        low = most
    for _ in range(_BISECTIONS if low < most else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) <= clients else (low, middle)
    return Serving(tuple(kinds), low, held(low))


def best_serving(servers: Sequence[Server], clients: float, pool: Pool, gpus: int | None = None) -> Serving | None:
    """The instances that serve clients soonest: of one kind that serves whole requests, or of prefill and of decode.

    Of equals those of the smallest instances: they are added, and fail, one by one.

    Args:
        pool: nodes that hold them. gpus: at most so many GPUs in use; None: all of them.

    Returns:
        None where no instances fit the nodes together.
    """
    room = min(pool.gpus, gpus or pool.gpus)
    counted = {
        role: [(server, n) for server in servers if server.role == role for n in range(1, room // server.gpus + 1)]
        for role in ("aggregated", "prefill", "decode")
    }
    top = [
        max((server.rates[-1] * count for server, count in counted[role]), default=0.0)
        for role in ("aggregated", "prefill", "decode")
    ]
    rates = np.geomspace(1.0, _LOWEST, _RATES) * _ceiling(counted, max(top[0], min(top[1:])), clients)
    halves = [_leanest(counted[role], rates) for role in ("prefill", "decode")]
    found: list[tuple[float, int, tuple[tuple[Server, int], ...]]] = []
    for (server, count), held in _leanest(counted["aggregated"], rates):
        found.append((_reached(rates, held, clients), server.gpus * count, ((server, count),)))
    for first, before in halves[0]:
        for second, behind in halves[1]:
            used = first[0].gpus * first[1] + second[0].gpus * second[1]
            if used <= room:
                found.append((_reached(rates, before + behind, clients), used, (first, second)))
    found.sort(key=lambda each: (-each[0], each[1]))
    made: list[Serving] = []
    for _, _, kinds in found:
        if len(made) >= _CLOSELY:
            break
        if pack((pool,), [(0, server.gpus, count) for server, count in kinds]) is not None:
            made.append(serve(kinds, clients))
    most = max((each.requests_per_s for each in made), default=0.0)
    return min((each for each in made if each.requests_per_s >= most * (1 - EQUAL)), key=_size, default=None)


Counted = tuple[Server, int]


def _size(made: Serving) -> tuple[int, int, int]:
    """GPUs of an instance of each kind, their stages, and all GPUs."""
    servers = [server for server, _ in made.kinds]
    return sum(each.gpus for each in servers), sum(each.split.pp for each in servers), made.gpus


def _ceiling(counted: dict[str, list[Counted]], most: float, clients: float) -> float:
    """A rate that no deployment passes: every request takes its least time."""
    least = [
        min((server.held[1] / server.rates[1] for server, _ in counted[role]), default=0.0)
        for role in ("aggregated", "prefill", "decode")
    ]
    whole = clients / least[0] if least[0] else 0.0
    halves = clients / (least[1] + least[2]) if least[1] and least[2] else 0.0
    return min(most, max(whole, halves)) or 1.0


def _leanest(counted: Sequence[Counted], rates: FloatArray) -> list[tuple[Counted, FloatArray]]:
    """Those that no other of as few GPUs beats at every rate, each with what it holds."""
    if not counted:
        return []
    order = sorted(counted, key=lambda each: (each[0].gpus * each[1], each[0].gpus, each[0].split.pp))
    held = [server.holds(rates, count) for server, count in order]
    kept: list[int] = []
    for i, mine in enumerate(held):
        if np.isinf(mine).all():
            continue
        if not any((held[j] <= mine).all() for j in kept):
            kept.append(i)
    return [(order[i], held[i]) for i in kept]


def _reached(rates: FloatArray, held: FloatArray, clients: float) -> float:
    """The highest of the rates at which no more are held than there are clients."""
    within = held <= clients
    return float(rates[int(within.argmax())]) if within.any() else 0.0
