"""A placement's figures over all MoE layers, by the scorer of placement.cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from placement.cost.layer.score import LayerScore, score_layer
from placement.cost.step.throughput import MoeTimes
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from specs.workload import Phase


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
