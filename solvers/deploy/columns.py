"""Columns of the master problem: every feasible instance configuration in every role, less those that can't help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.hbm import MemoryModel
from placement.cost.memory.local import LocalParameters
from placement.cost.step.kernels import KernelTables
from placement.cost.step.pass_times import PassModel
from placement.cost.step.roles import (
    InstancePoint,
    Role,
    aggregated_point,
    context_degrees,
    decode_point,
    most_prefill_requests_per_s,
    prefill_point,
    prompt_alone_s,
)
from placement.cost.step.throughput import MoeTimes, ServingModel
from placement.errors import InputError
from placement.problem.engine_rules import Layout, most_sequences, role_problem, slots_problem
from placement.problem.pieces import StageTable, stage_table
from placement.problem.split import Split
from solvers.deploy.dominance import by_rate, undominated
from solvers.deploy.problem import Column, Pool
from solvers.split.build import serving_split
from solvers.split.degrees import Degrees, list_candidates, sparse_first
from solvers.split.largest import Tried, largest_batch
from solvers.stop import DEFAULT, Stop
from specs.scenario import Pins, Scenario

#: Columns of each role and size that are tried with more redundant experts, and slots per GPU that are added.
REPLICATED = 4
MORE_SLOTS = (1, 2, 4)

#: Sharing prompts between more ranks has to gain this much.
LEAST_CONTEXT_GAIN = 1e-6

#: Ratios of placed MoE layers to the balanced estimate, by split; none for the estimate itself.
Placed = Callable[[Scenario, Split], MoeTimes]


@dataclass(frozen=True)
class Dropped:
    """Configurations of a role that were dropped for one reason."""

    role: Role
    reason: str
    count: int


@dataclass(frozen=True)
class Reach:
    """The best that any configuration within HBM reaches, for the message where none is feasible; inf for none."""

    ttft_s: float = float("inf")
    tpot_s: float = float("inf")
    prefill_ttft_s: float = float("inf")

    def or_better(self, other: Reach) -> Reach:
        """The better of each figure."""
        return Reach(
            min(self.ttft_s, other.ttft_s), min(self.tpot_s, other.tpot_s),
            min(self.prefill_ttft_s, other.prefill_ttft_s),
        )  # fmt: skip


@dataclass(frozen=True)
class ColumnSet:
    """What the master chooses among.

    Attributes:
        columns: not dominated. considered: configurations that were priced, over all roles and pools.
        dropped: what was left out, by role and reason, most first.
        thinned: some degrees were left out to bound the search.
        fits: whether any configuration fits HBM; reach: the best figures of those that do.
        listed: configurations of the fewest redundant experts that there are, over all roles and pools; some are not
            priced where time ends.
    """

    columns: tuple[Column, ...]
    considered: int
    dropped: tuple[Dropped, ...]
    thinned: bool
    fits: bool
    reach: Reach
    listed: int = 0


def pool_of(scenario: Scenario) -> Pool:
    """A scenario's cluster as a pool."""
    cluster = scenario.cluster
    return Pool(cluster.name, cluster.nodes, cluster.gpus_per_node, cluster.slow.bytes_per_s)


def list_columns(
    pools: Sequence[Scenario],
    roles: Sequence[Role],
    pins: Pins,
    redundant: int | None,
    placed: Placed | None = None,
    kernels: KernelTables | None = None,
    stop: Stop = DEFAULT,
) -> ColumnSet:
    """Columns of every pool and role.

    Args:
        pools: the scenario on each pool's cluster.
        redundant: redundant experts, or None for the smallest count that divides.
        placed: how placed MoE layers compare with the balanced estimate.
        kernels: measured expert times, used where they cover a split.
        stop: its deadline ends the search once whole requests can be served; a sparse grid of degrees then comes first.

    Raises:
        InputError: a training scenario.
    """
    found: list[Column] = []
    dropped: Counter[tuple[Role, str]] = Counter()
    considered, listed, thinned, fits, reach = 0, 0, False, False, Reach()
    for index, scenario in enumerate(pools):
        search = _PoolSearch(index, scenario, pins, redundant, placed, kernels, stop)
        mine = search.run(roles)
        listed += search.listed
        if placed is not None and redundant is None and not stop.expired:
            mine += search.with_replicas(mine, roles)
        kept = undominated(mine, scenario.cluster.gpus_per_node, dropped)
        found += kept
        dropped.update(search.dropped)
        considered += search.considered
        thinned |= search.thinned
        fits |= search.fits
        reach = reach.or_better(search.reach)
    lines = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return ColumnSet(
        tuple(found), considered, tuple(Dropped(role, reason, count) for (role, reason), count in lines), thinned, fits,
        reach, listed,
    )  # fmt: skip


def price(scenario: Scenario, degrees: Sequence[Degrees], pins: Pins, placed: Placed) -> list[Column]:
    """Aggregated columns of given degrees, each at its largest batch; those that a faster one of their size rules out,
    HBM or an objective forbids are left out.

    Raises:
        InputError: a training scenario.
    """
    return _PoolSearch(0, scenario, pins, None, placed).price(degrees, ("aggregated",))


@dataclass(frozen=True)
class Priced:
    """Columns of one layout in some roles, and why others of them have none: (role, reason).

    Attributes:
        fits: whether it fits HBM with one sequence.
    """

    columns: tuple[Column, ...]
    lacking: tuple[tuple[Role, str], ...]
    fits: bool


def price_layout(
    pool: int,
    scenario: Scenario,
    degrees: Degrees,
    pins: Pins,
    roles: Sequence[Role],
    placed: Placed | None = None,
    kernels: KernelTables | None = None,
) -> Priced:
    """One layout in given roles as `list_columns` would price it, with more redundant experts, too, unless they are
    given.

    Raises:
        InputError: a training scenario.
    """
    redundant = None if scenario.redundant == "auto" else int(scenario.redundant)
    search = _PoolSearch(pool, scenario, pins, redundant, placed, kernels)
    found = search.price((degrees,), roles)
    had = {column.role for column in found}
    lacking = tuple((role, reason) for role, reason in search.dropped if role not in had)
    if placed is not None and redundant is None:
        found += search.with_replicas(found, roles)
    return Priced(tuple(found), lacking, search.fits)


class _PoolSearch:
    """Prices every configuration of one pool in every role."""

    def __init__(
        self,
        pool: int,
        scenario: Scenario,
        pins: Pins,
        redundant: int | None,
        placed: Placed | None,
        kernels: KernelTables | None = None,
        stop: Stop = DEFAULT,
    ) -> None:
        workload = scenario.workload
        if workload.kind != "serving":
            raise InputError(scenario.name, "workload", "is training; only serving is deployed", "use solve")
        self.pool, self.scenario, self.workload, self.kernels, self.stop = pool, scenario, workload, kernels, stop
        self.listed = 0
        self.asked, self.redundant, self.placed = pins, redundant, placed
        #: Of the roles that are priced now.
        self.pins = pins
        self.efficiency = efficiency_of(scenario)
        self.ttft_s, self.tpot_s = workload.ttft_ms * 1e-3, workload.tpot_ms * 1e-3
        self.dropped: Counter[tuple[Role, str]] = Counter()
        self.considered, self.thinned, self.fits, self.reach = 0, False, False, Reach()
        self.stages: dict[int, StageTable] = {}
        #: Ranks that share a prompt in the prefill column priced last.
        self.shared_by = 1
        #: Best rate found of each role and size, which a candidate must beat.
        self.best: dict[tuple[Role, int], float] = {}

    def run(self, roles: Sequence[Role]) -> list[Column]:
        """Every configuration with the fewest redundant experts, or as many as are asked for.

        Roles that are pinned alike are priced together.
        """
        found: list[Column] = []
        for pins, same in self._alike(roles).items():
            candidates = list_candidates(self.scenario, pins, self.redundant)
            self.thinned |= candidates.thinned
            self.listed += len(candidates.degrees) * len(same)
            order = candidates.degrees if self.stop.deadline is None else sparse_first(candidates.degrees)
            self.pins = pins
            found += self.price(order, same)
        return found

    def _alike(self, roles: Sequence[Role]) -> dict[Pins, list[Role]]:
        """The roles by what is pinned of them."""
        pinned = self.scenario.model_copy(update={"pins": self.asked})
        alike: dict[Pins, list[Role]] = {}
        for role in roles:
            alike.setdefault(pinned.of_role(role).pins, []).append(role)
        return alike

    def with_replicas(self, columns: Sequence[Column], roles: Sequence[Role]) -> list[Column]:
        """The fastest columns of each role and size again with more redundant experts: balance and traffic for KV.

        What is fast in one role is tried in every role that is pinned alike.
        """
        found: list[Column] = []
        for pins, same in self._alike(roles).items():
            self.pins = pins
            found += self.price(self._replicated([column for column in columns if column.role in same]), same)
        return found

    def _replicated(self, columns: Sequence[Column]) -> list[Degrees]:
        ranked: dict[tuple[Role, int], list[Column]] = {}
        for column in sorted(columns, key=by_rate):
            ranked.setdefault((column.role, column.gpus), []).append(column)
        chosen = {column.split for group in ranked.values() for column in group[:REPLICATED]}
        degrees = {
            Degrees(s.tp, s.ep, s.pp, s.dp, s.redundant + more * s.ep)
            for s in chosen
            if s.ep > 1
            for more in MORE_SLOTS
            if not slots_problem(self.scenario, s, s.redundant + more * s.ep)
        }
        return sorted(degrees, key=lambda d: (d.tp, d.ep, d.dp, d.redundant, d.pp))

    def price(self, degrees_list: Sequence[Degrees], roles: Sequence[Role]) -> list[Column]:
        """Columns of given degrees in every role."""
        found: list[Column] = []
        shared: tuple[tuple[int, int, int, int], LocalParameters, PassModel] | None = None
        for degrees in degrees_list:
            if found and self.stop.expired:
                break
            split = replace(serving_split(self.scenario, degrees, self.pins.batch or 1), instances=1)
            key = (degrees.tp, degrees.ep, degrees.dp, degrees.redundant)
            if shared is None or shared[0] != key:
                # Candidates of like degrees follow each other, deepest last: they share all that is counted per layer.
                local = LocalParameters.of(self.scenario.model, split)
                shared = (key, local, PassModel(self.scenario, split, self.efficiency, self.kernels))
            found += self._columns(degrees, split, roles, shared[1], shared[2])
        return found

    def _columns(
        self, degrees: Degrees, split: Split, roles: Sequence[Role], local: LocalParameters, like: PassModel
    ) -> list[Column]:
        if degrees.pp not in self.stages:
            self.stages[degrees.pp] = stage_table(self.scenario.model, degrees.pp)
        stages = self.stages[degrees.pp]
        memory = MemoryModel(self.scenario, split, self.efficiency, stages, local)
        self.considered += len(roles)
        if memory.total_bytes(split.batch) > memory.capacity_bytes:
            self.dropped.update((role, "exceeds HBM") for role in roles)
            return []
        self.fits = True
        moe = None if self.placed is None else self.placed(self.scenario, split)
        model = ServingModel(self.scenario, self.workload, split, moe, self.efficiency, like.at_depth(split, stages))
        columns = []
        for role in roles:
            if role_problem(self.scenario, Layout.of(self.scenario, split), role):
                self.dropped[(role, "is not run in this role by the engine")] += 1
                continue
            point, batch = self._point(role, split, model, memory)
            if point is not None:
                rated = replace(split, batch=batch, microbatches=min(split.pp, batch))
                cp = self.shared_by if role == "prefill" else 1
                columns.append(Column(self.pool, role, rated, point, model.passes.moe_source, cp))
        return columns

    def _point(
        self, role: Role, split: Split, model: ServingModel, memory: MemoryModel
    ) -> tuple[InstancePoint | None, int]:
        if role == "prefill":
            degrees = context_degrees(self.scenario.model_copy(update={"pins": self.pins}), split)
            point = self._prefill(degrees, model)
            if point is None:
                self.dropped[(role, "misses TTFT" if degrees else "has no such context parallelism")] += 1
            return point, split.batch
        at = aggregated_point if role == "aggregated" else decode_point
        first = at(model, split.batch)
        late, slow = (first.ttft_s or 0.0) > self.ttft_s, (first.tpot_s or 0.0) > self.tpot_s
        self.reach = self.reach.or_better(Reach(first.ttft_s or float("inf"), first.tpot_s or float("inf")))
        if late or slow:
            self.dropped[(role, "misses " + ("TTFT and TPOT" if late and slow else "TTFT" if late else "TPOT"))] += 1
            return None, split.batch
        if self.pins.batch is not None:
            if split.batch > (most_sequences(self.scenario, split.tp, split.pp) or split.batch):
                self.dropped[(role, "exceeds what the engine takes at once")] += 1
                return None, split.batch
            return first, split.batch
        key = (role, split.gpus_per_instance)
        batch = self._largest(at, first, key, model, memory)
        if batch is None:
            self.dropped[(role, "slower than another of as many GPUs")] += 1
            return None, split.batch
        point = at(model, batch)
        self.best[key] = max(self.best.get(key, 0.0), point.requests_per_s)
        return point, batch

    def _prefill(self, degrees: Sequence[int], model: ServingModel) -> InstancePoint | None:
        """The fastest of prompts on one rank and prompts shared between several; sets `shared_by`."""
        best, self.shared_by = None, 1
        most = most_prefill_requests_per_s(model)
        for cp in degrees:
            if best is not None and most <= best.requests_per_s * (1 + LEAST_CONTEXT_GAIN):
                break
            point = prefill_point(model, self.ttft_s, cp)
            if point is None:
                self.reach = self.reach.or_better(Reach(prefill_ttft_s=prompt_alone_s(model, cp)))
            elif best is None or point.requests_per_s > best.requests_per_s * (1 + LEAST_CONTEXT_GAIN):
                best, self.shared_by = point, cp
        return best

    def _largest(
        self,
        at: Callable[[ServingModel, int], InstancePoint],
        first: InstancePoint,
        key: tuple[Role, int],
        model: ServingModel,
        memory: MemoryModel,
    ) -> int | None:
        """The largest batch within HBM and the objectives, None where a column as large is faster.

        Args:
            first: with a batch of 1.
        """
        most = int(self.efficiency.max_sequences_per_rank.value)
        most = min(most, most_sequences(self.scenario, model.split.tp, model.split.pp) or most)

        def tried(point: InstancePoint) -> Tried:
            return Tried.of(
                point.requests_per_s, (point.ttft_s or 0.0, self.ttft_s), (point.tpot_s or 0.0, self.tpot_s)
            )

        return largest_batch(lambda n: tried(at(model, n)), tried(first), memory, most, self.best.get(key, 0.0))
