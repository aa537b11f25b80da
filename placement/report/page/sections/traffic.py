"""Bytes that nodes send each other."""

from __future__ import annotations

import numpy as np

from placement.problem.arrays import FloatArray
from placement.records.role import RolePlan
from placement.report.page.blocks import Block, Heat, Prose, Section, Warn
from placement.report.page.evidence import Evidence, PhaseTraffic
from placement.report.units import grouped

#: Cells of larger matrices hold no figures.
MOST_FIGURES = 10


def traffic_section(role: RolePlan, evidence: Evidence | None, why_not: str) -> Section:
    """A matrix from node to node for each phase."""
    if role.topology.gpus == role.topology.gpus_per_node:
        alone = Prose("All experts of an instance lie inside one node: MoE layers send nothing between nodes.")
        return Section("Traffic between nodes", (alone,))
    if evidence is None:
        return Section("Traffic between nodes", (Warn(f"The traffic matrix {why_not}"),))
    blocks: list[Block] = [
        Prose(
            "A row sends, a column receives: hidden states in dispatch and results in combine, in one MoE layer and "
            "one pass, mean over the layers. The busiest node's link decides the time, so rows and columns should be "
            "even."
        ),
        *map(_matrix, evidence.traffic),
    ]
    return Section("Traffic between nodes", tuple(blocks))


def _matrix(phase: PhaseTraffic) -> Heat:
    size, unit = _scale(float(phase.between.max()))
    values = phase.between / size
    into, out = values.sum(axis=0), values.sum(axis=1)
    busiest, direction = max(((into, "receives"), (out, "sends")), key=lambda each: float(each[0].max()))
    node = int(busiest.argmax())
    # Of pairs of nodes that send the mean all have the middle colour.
    middle = float(values.sum()) / (len(values) * (len(values) - 1))
    mean = float(values.sum()) / len(values)
    excess = f", {busiest[node] / mean:.2f} times the mean node" if mean > 0 else ""
    off_diagonal = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    return Heat(
        f"Traffic in {phase.phase if phase.phase != 'train' else 'training'}",
        f"Node {node} {direction} most: {busiest[node]:,.3g} {unit}{excess}. A pass has {grouped(phase.tokens)} tokens "
        "of each GPU.",
        "from node", "to node", unit, off_diagonal,
        digits=_digits(values) if len(values) <= MOST_FIGURES else None,
        least=0.0, most=max(2 * middle, float(values.max())),
    )  # fmt: skip


def _scale(most: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in ((1e9, "GB"), (1e6, "MB")) if most >= size), (1e3, "kB"))


def _digits(values: FloatArray) -> int:
    """Decimals with which the largest value has three digits."""
    return max(0, 2 - int(f"{max(1e-9, float(values.max())):e}".split("e")[1]))
