"""From figures and placements to the plan file's records, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.cost.assess import Assessment
from placement.cost.figures import Placement
from placement.cost.memory.hbm import MemoryReport
from placement.cost.step.throughput import Prediction
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
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


def predicted_record(prediction: Prediction) -> PredictedRecord:
    """A prediction as the plan file holds it."""
    provenance = {entry.figure: entry for entry in prediction.provenance}

    def figure(name: str, value: float | None) -> Figure | None:
        if value is None:
            return None
        entry = provenance[name]
        return Figure(value=value, provenance=entry.provenance, moe_layer=entry.moe_layer)  # type: ignore[arg-type]

    def rate(value: float) -> Figure:
        entry = provenance["tokens_per_s"]
        return Figure(value=value, provenance=entry.provenance, moe_layer=entry.moe_layer)  # type: ignore[arg-type]

    def ms(value: float | None) -> float | None:
        return None if value is None else value * 1e3

    step = None if prediction.step is None else prediction.step.step_s
    return PredictedRecord(
        tokens_per_s=rate(prediction.tokens_per_s),
        tokens_per_s_per_gpu=rate(prediction.tokens_per_s_per_gpu),
        ttft_ms=figure("ttft_s", ms(prediction.ttft_s)),
        tpot_ms=figure("tpot_s", ms(prediction.tpot_s)),
        step_ms=figure("step_s", ms(step)),
        breakdown=tuple(PartRecord(name=part.name, ms=part.seconds * 1e3) for part in prediction.breakdown),
    )


def memory_record(report: MemoryReport) -> MemoryRecord:
    """A GPU's HBM by line as the plan file holds it."""
    return MemoryRecord(
        stage=report.stage,
        lines=tuple(MemoryLineRecord(name=line.name, bytes=line.bytes) for line in report.lines),
        total_bytes=report.total_bytes,
        capacity_bytes=report.capacity_bytes,
        headroom_bytes=report.headroom_bytes,
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
