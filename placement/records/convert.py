"""From figures and placements to the plan file's records, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from placement.cost.assess import Assessment, Assessor
from placement.cost.calibration.intervals import Interval
from placement.cost.figures import Placement
from placement.cost.layer.scenario_rates import topology_of
from placement.cost.memory.hbm import MemoryReport
from placement.cost.step.roles import InstancePoint, Role, RoleRate, deployment_requests_per_s, kv_bytes_per_request
from placement.cost.step.throughput import MoeTimes, Prediction
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.pieces import piece_rows
from placement.problem.split import Split
from placement.records.layout import EngineName, EngineRecord, StageRecord, TopologyRecord
from placement.records.plan import FiguresRecord, Mode
from placement.records.role import (
    Figure,
    Fractions,
    IntervalRecord,
    MemoryLineRecord,
    MemoryRecord,
    OperationRecord,
    PartRecord,
    PredictedRecord,
    RolePlan,
    StrategyRecord,
)
from specs.scenario import Scenario


def memory_record(report: MemoryReport) -> MemoryRecord:
    """HBM by line as the plan file holds it."""
    lines = tuple(MemoryLineRecord(name=line.name, bytes=line.bytes) for line in report.lines)
    names = ("stage", "total_bytes", "capacity_bytes", "headroom_bytes")
    return MemoryRecord(lines=lines, **{name: getattr(report, name) for name in names})


def stage_records(scenario: Scenario, split: Split) -> tuple[StageRecord, ...]:
    """The pieces of the model as the plan file holds them."""
    return tuple(
        StageRecord(stage=rank, first_layer=first, layers=layers, gpus=split.gpus_per_stage)
        for rank, first, layers in piece_rows(scenario, split)
    )


def topology_record(scenario: Scenario, split: Split) -> TopologyRecord:
    """The expert-parallel ranks as the plan file holds them."""
    made = topology_of(scenario, split)
    return TopologyRecord(gpus=made.gpus, gpus_per_node=made.gpus_per_node, gpus_per_tray=made.gpus_per_tray)


def predicted_record(prediction: Prediction) -> PredictedRecord:
    """A prediction as the plan file holds it."""
    provenance = {entry.figure: entry for entry in prediction.provenance}

    def figure(name: str, value: float) -> Figure:
        entry = provenance[name]
        return Figure(
            value=value, provenance=entry.provenance, moe_layer=entry.moe_layer,  # type: ignore[arg-type]
            interval=_interval(value, entry.interval),
        )  # fmt: skip

    def ms(name: str, seconds: float | None) -> Figure | None:
        found = _ms(seconds)
        return None if found is None else figure(name, found)

    step = None if prediction.step is None else prediction.step.step_s
    return PredictedRecord(
        tokens_per_s=figure("tokens_per_s", prediction.tokens_per_s),
        tokens_per_s_per_gpu=figure("tokens_per_s", prediction.tokens_per_s_per_gpu),
        ttft_ms=ms("ttft_s", prediction.ttft_s),
        tpot_ms=ms("tpot_s", prediction.tpot_s),
        step_ms=ms("step_s", step),
        breakdown=tuple(PartRecord(name=part.name, ms=part.seconds * 1e3) for part in prediction.breakdown),
    )


def _interval(value: float, told: Interval | None) -> IntervalRecord | None:
    """An interval around a figure, by its factors."""
    if told is None:
        return None
    return IntervalRecord(
        low=value * told.low, high=value * told.high, coverage=told.coverage, group=told.group, nearest=told.nearest
    )


def mode_of_roles(roles: Sequence[RolePlan]) -> Mode:
    """The mode of a plan by the roles that it has."""
    kinds = frozenset(role.role for role in roles)
    if kinds == {"prefill", "decode"}:
        return "disaggregated"
    if len(kinds) > 1:
        return "mixed"
    return "training" if "training" in kinds else "aggregated"


def engine_name(scenario: Scenario, roles: Sequence[RolePlan]) -> EngineName:
    """The engine of a plan, with what a user must know of it under any role's split."""
    records = [EngineRecord.of(scenario, role.split.split(), role.role) for role in roles]
    notes = tuple(dict.fromkeys(note for record in records for note in record.notes))
    engine = scenario.engine
    return EngineName(name=engine.name, version=engine.version, backend=engine.backend, notes=notes)


def figures_record(scenario: Scenario, roles: Sequence[RolePlan]) -> FiguresRecord:
    """The figures of all roles together: requests in two halves are as many as each half carries."""
    if len(roles) == 1:
        one = roles[0].predicted
        return FiguresRecord(**{name: getattr(one, name) for name in FiguresRecord.model_fields})
    rates = [role.predicted.tokens_per_s for role in roles]
    total = tokens_per_s(scenario, roles, dict(enumerate(rate.value for rate in rates)))

    def worst(name: str) -> Figure | None:
        told = [figure for role in roles if (figure := getattr(role.predicted, name)) is not None]
        return max(told, key=lambda figure: figure.value, default=None)

    gpus = sum({role.cluster.name: role.cluster.gpus for role in roles if role.cluster is not None}.values())
    whole = _whole(scenario, roles)
    each = scenario.cluster.gpus + gpus
    return FiguresRecord(
        tokens_per_s=rates[0].model_copy(update={"value": total, "interval": whole}),
        tokens_per_s_per_gpu=rates[0].model_copy(update={"value": total / each, "interval": _over(whole, each)}),
        ttft_ms=worst("ttft_ms"),
        tpot_ms=worst("tpot_ms"),
    )


def _whole(scenario: Scenario, roles: Sequence[RolePlan]) -> IntervalRecord | None:
    """The interval of all roles' tokens/s: where every role is at its low end, and at its high end.

    The slower half decides, so the low end is passed where either half's is.
    """
    told = [role.predicted.tokens_per_s.interval for role in roles]
    known = [each for each in told if each is not None]
    if len(known) < len(told):
        return None
    low, high = (
        tokens_per_s(scenario, roles, {i: getattr(each, end) for i, each in enumerate(known)})
        for end in ("low", "high")
    )
    words = ("; ".join(dict.fromkeys(getattr(each, name) for each in known)) for name in ("group", "nearest"))
    group, nearest = words
    return IntervalRecord(low=low, high=high, coverage=known[0].coverage, group=group, nearest=nearest)


def _over(interval: IntervalRecord | None, gpus: int) -> IntervalRecord | None:
    """An interval of tokens/s by GPU."""
    if interval is None:
        return None
    return interval.model_copy(update={"low": interval.low / gpus, "high": interval.high / gpus})


def tokens_per_s(scenario: Scenario, roles: Sequence[RolePlan], yields: Mapping[int, float]) -> float:
    """Output tokens/s of all roles, where each role by itself yields `yields` of them.

    Args:
        yields: By the role's index. A role that only prefills or decodes counts what it carries of whole requests.
    """
    workload = scenario.workload
    if workload.kind != "serving":
        return sum(yields.values())
    kinds = []
    for i, role in enumerate(roles):
        point = InstancePoint(yields[i] / workload.osl, None, None)
        kind: Role = role.role if role.role != "training" else "aggregated"
        nic = (role.cluster or scenario.cluster).slow.bytes_per_s
        kinds.append(RoleRate(kind, 1, role.gpus, point, nic))
    return deployment_requests_per_s(kinds, kv_bytes_per_request(scenario)) * workload.osl


def operation_record(prediction: Prediction, batch: int, times: MoeTimes, rate: float | None) -> OperationRecord:
    """A strategy at its own batch, or at its own requests/s of an instance, as the plan file holds it."""
    return OperationRecord(
        batch=batch, requests_per_s=rate, decode_us=_us(times.decode_s), ttft_ms=_ms(prediction.ttft_s),
        tpot_ms=_ms(prediction.tpot_s), tokens_per_s=prediction.tokens_per_s,
    )  # fmt: skip


def packed_fractions(slots: IntArray, fractions: FloatArray | None) -> Fractions | None:
    """The plan file's form of [nodes, slots] fractions: only the slots of experts that have several copies."""
    if fractions is None:
        return None
    several = _several(slots)
    return tuple(tuple(float(share) for share in row[several]) for row in fractions)


def _several(slots: IntArray) -> BoolArray:
    """[slots] whether a slot's expert has several copies."""
    used = slots != EMPTY
    return np.asarray(used & (np.bincount(slots[used])[slots] > 1))


def unpacked_fractions(slots: IntArray, packed: Fractions | None, nodes: int) -> FloatArray | None:
    """[nodes, slots] fractions of the plan file's form; a wrong shape comes back as wrong, for the scorer to refuse."""
    if packed is None:
        return None
    several = _several(slots)
    if len(packed) != nodes or any(len(row) != int(several.sum()) for row in packed):
        return np.zeros((0, 0))
    fractions = np.tile(np.where(slots == EMPTY, 0.0, 1.0), (nodes, 1))
    fractions[:, several] = np.array(packed).reshape(nodes, -1)
    return fractions


def strategy_record(
    name: str, assessment: Assessment, placement: Placement | None, own_batch: OperationRecord | None = None
) -> StrategyRecord:
    """A strategy's figures as the plan file holds them; `placement` None where the plan's layers hold it."""
    figures = assessment.figures
    fractions = None
    if placement is not None and any(part is not None for part in placement.fractions):
        fractions = tuple(
            packed_fractions(slots, part) for slots, part in zip(placement.slots, placement.fractions, strict=True)
        )
    return StrategyRecord(
        name=name,
        balancedness=figures.balancedness,
        nodes_per_token=figures.nodes_per_token,
        remote_nodes_per_token=figures.remote_nodes_per_token,
        cross_node_bytes_per_token=figures.cross_node_bytes_per_token,
        moe_layer_us=figures.moe_layer_us,
        decode_us=_us(assessment.times.decode_s),
        prefill_us=_us(assessment.times.prefill_s),
        tokens_per_s=assessment.prediction.tokens_per_s,
        at_own_batch=own_batch,
        placements=None if placement is None else tuple(tuple(slots.tolist()) for slots in placement.slots),
        dispatch_fractions=fractions,
    )


def served_record(assessor: Assessor, placement: Placement) -> StrategyRecord | None:
    """The plan's own placement as its engine serves it; None where it was made for the engine's rule."""
    served = assessor.as_served()
    if served is None:
        return None
    bare = Placement(placement.slots, (None,) * len(placement.slots))
    return strategy_record(f"as {assessor.scenario.engine.name} serves it", served.assess(bare), None)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6


def own_placement(role: RolePlan) -> Placement:
    """The plan's own placement of a role."""
    return _placement(
        role,
        [layer.physical_to_logical for layer in role.layers],
        [layer.dispatch_fractions for layer in role.layers],
    )


def placement_of(role: RolePlan, strategy: StrategyRecord) -> Placement:
    """A strategy's placement in a role of a plan file."""
    if strategy.placements is None:
        return own_placement(role)
    return _placement(role, strategy.placements, strategy.dispatch_fractions or [None] * len(role.layers))


def _placement(role: RolePlan, rows: Sequence[Sequence[int]], packed: Sequence[Fractions | None]) -> Placement:
    nodes = role.topology.gpus // role.topology.gpus_per_node
    slots = tuple(np.array(row, dtype=np.int64) for row in rows)
    fractions = tuple(unpacked_fractions(row, part, nodes) for row, part in zip(slots, packed, strict=True))
    return Placement(slots, fractions)
