"""A placement's figures over all MoE layers, by the scorer of placement.cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from placement.cost.moe_layer import LayerScore, score_layer
from placement.cost.throughput import MoeTimes, Prediction
from placement.plan import Figure, Fractions, PartRecord, PredictedRecord
from placement.problem import EMPTY, BoolArray, FloatArray, IntArray, LayerProblem
from specs.schema import Phase


@dataclass(frozen=True)
class Placement:
    """A whole model's placement: per MoE layer its slots, and the fractions of `planned` dispatch (else None)."""

    slots: tuple[IntArray, ...]
    fractions: tuple[FloatArray | None, ...]


@dataclass(frozen=True)
class Figures:
    """Means over the MoE layers, on one routing and phase. nodes and remote nodes are None without token sets."""

    balancedness: float
    nodes_per_token: float | None
    remote_nodes_per_token: float | None
    cross_node_bytes_per_token: float
    moe_layer_s: float
    objective: float

    @property
    def moe_layer_us(self) -> float:
        return self.moe_layer_s * 1e6


def score_placement(problems: Sequence[LayerProblem], placement: Placement) -> tuple[LayerScore, ...]:
    """Each layer's score."""
    return tuple(
        score_layer(problem, slots, fractions)
        for problem, slots, fractions in zip(problems, placement.slots, placement.fractions, strict=True)
    )


def figures_of(scores: Sequence[LayerScore]) -> Figures:
    """Means of layer scores."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(score, name) for score in scores]))

    def mean_or_none(name: str) -> float | None:
        value = mean(name)
        return None if np.isnan(value) else value

    return Figures(
        balancedness=min(1.0, mean("balancedness")),
        nodes_per_token=mean_or_none("nodes_per_token"),
        remote_nodes_per_token=mean_or_none("remote_nodes_per_token"),
        cross_node_bytes_per_token=mean("cross_node_bytes_per_token"),
        moe_layer_s=mean("time_s"),
        objective=mean("objective"),
    )


def moe_times(seconds: Mapping[Phase, float]) -> MoeTimes:
    """The scorer's mean MoE-layer seconds by phase, as the step model takes them."""
    return MoeTimes(prefill_s=seconds.get("prefill"), decode_s=seconds.get("decode"), train_s=seconds.get("train"))


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
