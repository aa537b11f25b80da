"""From figures and placements to the plan file's records, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.cost.assess import Assessment
from placement.cost.figures import Placement
from placement.cost.layer.scenario_rates import topology_of
from placement.cost.memory.hbm import MemoryReport
from placement.cost.step.throughput import Prediction
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.pieces import piece_rows
from placement.problem.split import Split
from placement.records.layout import StageRecord, TopologyRecord
from placement.records.plan import (
    Figure,
    Fractions,
    MemoryLineRecord,
    MemoryRecord,
    PartRecord,
    Plan,
    PredictedRecord,
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
        return Figure(value=value, provenance=entry.provenance, moe_layer=entry.moe_layer)  # type: ignore[arg-type]

    def ms(name: str, seconds: float | None) -> Figure | None:
        return None if seconds is None else figure(name, seconds * 1e3)

    step = None if prediction.step is None else prediction.step.step_s
    return PredictedRecord(
        tokens_per_s=figure("tokens_per_s", prediction.tokens_per_s),
        tokens_per_s_per_gpu=figure("tokens_per_s", prediction.tokens_per_s_per_gpu),
        ttft_ms=ms("ttft_s", prediction.ttft_s),
        tpot_ms=ms("tpot_s", prediction.tpot_s),
        step_ms=ms("step_s", step),
        breakdown=tuple(PartRecord(name=part.name, ms=part.seconds * 1e3) for part in prediction.breakdown),
    )


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


def strategy_record(name: str, assessment: Assessment, placement: Placement | None) -> StrategyRecord:
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
        placements=None if placement is None else tuple(tuple(slots.tolist()) for slots in placement.slots),
        dispatch_fractions=fractions,
    )


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6


def own_placement(plan: Plan) -> Placement:
    """The plan's own placement."""
    return _placement(
        plan,
        [layer.physical_to_logical for layer in plan.layers],
        [layer.dispatch_fractions for layer in plan.layers],
    )


def placement_of(plan: Plan, strategy: StrategyRecord) -> Placement:
    """A strategy's placement in a plan file."""
    if strategy.placements is None:
        return own_placement(plan)
    return _placement(plan, strategy.placements, strategy.dispatch_fractions or [None] * len(plan.layers))


def _placement(plan: Plan, rows: Sequence[Sequence[int]], packed: Sequence[Fractions | None]) -> Placement:
    nodes = plan.topology.gpus // plan.topology.gpus_per_node
    slots = tuple(np.array(row, dtype=np.int64) for row in rows)
    fractions = tuple(unpacked_fractions(row, part, nodes) for row, part in zip(slots, packed, strict=True))
    return Placement(slots, fractions)
