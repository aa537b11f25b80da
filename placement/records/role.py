"""One role of a plan: its instances, their split, and where the experts of each lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeVar

from pydantic import Field

from placement.errors import ParameterError
from placement.problem.arrays import EMPTY
from placement.problem.layer import Objective
from placement.problem.limits import Limit
from placement.problem.split import cut_problem, degrees_text, layer_redundant_problem, slots_of
from placement.records.base import Amount, Number, Rank, Record, Slots, Text
from placement.records.layout import SplitRecord, StageRecord, TopologyRecord
from specs.cluster import Cluster
from specs.documents import shown
from specs.engine import Dispatch, MessageRule
from specs.fields import MAX_EXPERTS, MAX_GPUS, MAX_LAYERS, Count, Degree
from specs.scenario import Scenario
from specs.workload import Phase, PlannedPhase

#: What instances do: serve whole requests, one half of them, or train.
RoleName = Literal["aggregated", "prefill", "decode", "training"]
#: [nodes][slots of experts with several copies, ascending] share of that copy, by home node; other slots take all.
Fractions = tuple[tuple[Amount, ...], ...]
LayerStatus = Literal["optimal", "feasible"]
CertificateUnit = Literal["us", "max_over_mean", "bytes_per_token"]
#: The unit of a certificate by objective, and how many of it are one of the scorer's.
CERTIFICATE_UNITS: Mapping[Objective, tuple[CertificateUnit, float]] = {
    "time": ("us", 1e6), "load": ("max_over_mean", 1.0), "traffic": ("bytes_per_token", 1.0),
}  # fmt: skip


#: Rows of the strategy table: of a solver's placement, and of what ran before a migration.
SOLVED, RUNNING = "solved", "running"


class LayerRecord(Record):
    """One MoE layer. `layer` is the model's own index, dense layers counted; GPU = slot // slots_per_gpu."""

    layer: Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
    physical_to_logical: Slots
    dispatch_fractions: Fractions | None = None
    objective: Amount
    bound: Amount
    bound_source: Text
    gap: Amount | None
    status: LayerStatus
    #: "proven": nothing was searched, as a heuristic is proven near enough or the plan has nothing to gain.
    termination: Literal["finished", "work", "time", "interrupted", "proven"]


class MemoryLineRecord(Record):
    """One use of HBM."""

    name: Text
    bytes: Amount


class MemoryRecord(Record):
    """HBM of one GPU of the fullest stage, by line."""

    stage: Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
    lines: tuple[MemoryLineRecord, ...]
    total_bytes: Amount
    capacity_bytes: Amount
    headroom_bytes: Number


class IntervalRecord(Record):
    """Where measured values lie, at most of measurements, in the unit of the figure that it is of.

    Attributes:
        coverage: Share of measurements that lie within.
        group: The measurements that tell so. nearest: What was measured nearest to the plan. Both in words.
    """

    low: Amount
    high: Amount
    coverage: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, strict=True)]
    group: Text
    nearest: Text


#: Where a figure comes from (placement.cost.calibration.efficiency).
Provenance = Literal["roofline", "population", "calibrated", "measured"]


class Figure(Record):
    """A predicted figure in the unit that its field names."""

    value: Amount
    provenance: Provenance
    #: How the MoE layers in it were timed, such as "scored placement".
    moe_layer: Text
    #: Null where nothing measured tells how far it may be off, and in older files.
    interval: IntervalRecord | None = None


class PartRecord(Record):
    """One part of a step, over all layers."""

    name: Text
    ms: Amount


class PredictedRecord(Record):
    """Predicted figures of the plan. Serving has TTFT and TPOT, training a step time."""

    tokens_per_s: Figure
    tokens_per_s_per_gpu: Figure
    ttft_ms: Figure | None = None
    tpot_ms: Figure | None = None
    step_ms: Figure | None = None
    breakdown: tuple[PartRecord, ...] = ()


class OperationRecord(Record):
    """A strategy at the largest batch that meets TTFT and TPOT on the routing solved on, judged on the other.

    If it only decodes, and this batch carries more than prefill hands over: at the smallest batch that carries that.

    `batch`: sequences per attention rank. `requests_per_s`: of one instance, where it only prefills. `decode_us`: of an
    MoE layer at this batch. `tokens_per_s`: of all instances.
    """

    batch: Count
    requests_per_s: Amount | None = None
    decode_us: Amount | None = None
    ttft_ms: Amount | None
    tpot_ms: Amount | None
    tokens_per_s: Amount


class StrategyRecord(Record):
    """One strategy's figures: means over the MoE layers, on the routing that `routing.judged_on` names.

    All strategies are compared at the batch of the split. `at_own_batch` has the figures of each at its own.

    `nodes_per_token` and `remote_nodes_per_token` are null where only load counts are known. `moe_layer_us` is of the
    plan's phase; `decode_us` and `prefill_us` of these phases, null in training. `placements` holds one
    placement per MoE layer, in the order of `layers`; null for the plan's own, which stand in `layers`.
    """

    name: Text
    balancedness: Annotated[float, Field(ge=0, le=1 + 1e-9, allow_inf_nan=False, strict=True)]
    nodes_per_token: Amount | None
    remote_nodes_per_token: Amount | None
    cross_node_bytes_per_token: Amount
    moe_layer_us: Amount
    decode_us: Amount | None = None
    prefill_us: Amount | None = None
    tokens_per_s: Amount
    at_own_batch: OperationRecord | None = None
    placements: Annotated[tuple[Slots, ...], Field(max_length=MAX_LAYERS)] | None = None
    dispatch_fractions: tuple[Fractions | None, ...] | None = None


class CertificateRecord(Record):
    """How good the plan is: mean objective over the MoE layers, on the routing it was solved on, and a proven bound."""

    objective: Amount
    bound: Amount
    gap: Amount | None
    status: LayerStatus
    unit: CertificateUnit


class RolePlan(Record):
    """Instances of one kind: what they do, their split, and the expert placement that all of them have.

    Attributes:
        cluster: The GPUs they run on; null: the scenario's cluster.
        phase: What expert placement was priced for.
        message_rule: What the placement was made under; `messages` has the rule of each phase.
        split: Of one instance; `split.instances` says how many there are. `cp`: attention ranks that share a prompt.
        posed_batch: Sequences per attention rank that the experts were placed for.
        requests_per_s: Most that an instance is given, where it only prefills.
        binds: What a larger batch (or more requests/s) would break on the routing solved on, or what keeps it from
            filling.
        largest_batch: The largest within all limits, where a smaller one carries what the other half hands over.
        failed_gpus: GPUs of `topology` that are lost, ascending: they hold no experts and are no token's home.
        predicted: Of all instances together.
        served: The plan's own placement as the engine serves it, where it was made for another dispatch.
        stake: Share of tokens/s that a share of the MoE layers' time is worth (placement.cost: moe_stake).
    """

    role: RoleName
    cluster: Cluster | None = None
    phase: PlannedPhase
    dispatch: Dispatch
    message_rule: MessageRule
    messages: dict[Phase, MessageRule]
    split: SplitRecord
    cp: Degree = 1
    posed_batch: Count
    requests_per_s: Amount | None = None
    binds: Annotated[tuple[Limit, ...], Field(max_length=8)] = ()
    largest_batch: Count | None = None
    stages: Annotated[tuple[StageRecord, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    topology: TopologyRecord
    failed_gpus: Annotated[tuple[Rank, ...], Field(max_length=MAX_GPUS)] = ()
    slots_per_gpu: Annotated[int, Field(ge=1, le=MAX_EXPERTS, strict=True)]
    tokens_per_gpu: Amount
    layers: Annotated[tuple[LayerRecord, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    memory: MemoryRecord
    predicted: PredictedRecord
    stake: Amount | None = None
    strategies: Annotated[tuple[StrategyRecord, ...], Field(max_length=64)]
    certificate: CertificateRecord
    served: StrategyRecord | None = None

    @property
    def own(self) -> StrategyRecord | None:
        """The plan's own row among the strategies."""
        return next((strategy for strategy in self.strategies if strategy.placements is None), None)

    def strategy(self, name: str) -> StrategyRecord | None:
        """The strategy of that name, or None."""
        return next((strategy for strategy in self.strategies if strategy.name == name), None)

    @property
    def gpus(self) -> int:
        """GPUs of all its instances."""
        return self.split.tp * self.split.dp * self.split.pp * self.split.instances

    @property
    def degrees(self) -> str:
        """The degrees that are not 1, for people."""
        split = self.split
        return degrees_text(split.tp, split.ep, split.pp, split.dp, self.cp)

    @property
    def stages_of_layers(self) -> tuple[int, ...]:
        """[layers] the stage that holds each."""
        return tuple(
            next(s.stage for s in self.stages if s.first_layer <= layer.layer < s.first_layer + s.layers)
            for layer in self.layers
        )

    def widths(self, scenario: Scenario) -> tuple[int, ...]:
        """[layers] slots of a GPU in each: `slots_per_gpu`, if layers have as many experts and redundant ones."""
        model, redundant = scenario.model, self.split.redundant
        each = self.split.layer_redundant or (redundant,) * len(model.moes)
        return tuple(
            self.slots_per_gpu
            if (moe.experts, extra) == (model.moe.experts, redundant)
            else slots_of(moe.experts, extra, self.topology.gpus)
            for moe, extra in zip(model.moes, each, strict=True)
        )

    def problem(self, scenario: Scenario) -> str:
        """What does not agree in shape with a scenario; "" where all does."""
        return next(self._problems(scenario), "")

    def _problems(self, scenario: Scenario) -> Iterator[str]:
        model, gpus = scenario.model, self.topology.gpus
        if tuple(layer.layer for layer in self.layers) != model.moe_layers:
            yield f"layers are not the model's {len(model.moe_layers)} MoE layers in order"
        if gpus > MAX_GPUS or gpus != self.split.ep:
            yield f"topology.gpus {gpus} is not split.ep {self.split.ep}"
        if self.slots_per_gpu != self.split.slots_per_gpu:
            yield f"slots_per_gpu {self.slots_per_gpu} is not split.slots_per_gpu"
        if problem := cut_problem(scenario, self.split.pp, self.split.cut, self.split.recompute):
            yield f"split.{problem}"
        if problem := layer_redundant_problem(scenario.model, self.split.ep, self.split.layer_redundant):
            yield f"split.layer_redundant: {problem}"
        if list(self.failed_gpus) != sorted({gpu for gpu in self.failed_gpus if gpu < gpus}):
            yield f"failed_gpus are not GPUs below {gpus} in order"
        for where, rows in self._placements():
            if rows is not None and len(rows) != len(self.layers):
                yield f"{where} has {len(rows)} placements for {len(self.layers)} layers"
            for moe, width, row in zip(model.moes, self.widths(scenario), rows or (), strict=False):
                slots = gpus * width
                if len(row) != slots:
                    yield f"{where} has a placement of {len(row)} slots, not {slots}"
                if max(row) >= moe.experts:
                    yield f"{where} names expert {max(row)} of {moe.experts} experts"
                empty = sum(row[g * width : (g + 1) * width].count(EMPTY) for g in self.failed_gpus)
                if not len(self.failed_gpus) * width == empty == row.count(EMPTY):
                    yield f"{where}: the slots of failed_gpus, and no others, are {EMPTY}"
        for strategy in self.strategies:
            if strategy.dispatch_fractions is not None and len(strategy.dispatch_fractions) != len(self.layers):
                yield f"strategies ({shown(strategy.name)}) lacks dispatch_fractions"
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) != len(names):
            yield "strategies names a strategy twice"

    def _placements(self) -> Iterator[tuple[str, tuple[Slots, ...] | None]]:
        yield "layers", tuple(layer.physical_to_logical for layer in self.layers)
        for strategy in self.strategies:
            yield f"strategies ({shown(strategy.name)})", strategy.placements


class OfRole(Protocol):
    """What a plan, an evaluation and a migration have one of for each role."""

    @property
    def role(self) -> RoleName: ...


_OfRole = TypeVar("_OfRole", bound=OfRole)


def of_role(parts: Sequence[_OfRole], name: RoleName | str | None) -> tuple[_OfRole, ...]:
    """The parts of roles of that name; None: all.

    Raises:
        ParameterError: There is none.
    """
    found = tuple(part for part in parts if name in (None, part.role))
    if not found:
        raise ParameterError("role", f"{name!r} is no role of the plan", f"choose {_names(parts)}")
    return found


def one_of_role(parts: Sequence[_OfRole], name: RoleName | str | None) -> _OfRole:
    """The part of the role of that name, or the only one.

    Raises:
        ParameterError: There is none, or there are several.
    """
    found = of_role(parts, name)
    if len(found) > 1:
        raise ParameterError("role", f"the plan has {len(found)} ({_names(parts)})", "name one of them")
    return found[0]


def role_keys(parts: Sequence[OfRole]) -> tuple[str, ...]:
    """A name for each part: its role, with a number from the second of that role on."""
    seen: Counter[str] = Counter()
    keys = []
    for part in parts:
        seen[part.role] += 1
        keys.append(part.role if seen[part.role] == 1 else f"{part.role}-{seen[part.role]}")
    return tuple(keys)


def _names(parts: Sequence[OfRole]) -> str:
    return ", ".join(dict.fromkeys(part.role for part in parts))
