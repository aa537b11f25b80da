"""Where a GPU's memory goes, and where a step's time goes."""

from __future__ import annotations

from placement.records.role import RolePlan
from placement.report.page.blocks import Bars, Prose, Section, Table
from placement.report.page.sections.words import PASS, share
from placement.report.units import gb, grouped


def memory(role: RolePlan) -> Section:
    """HBM of the fullest GPU by line."""
    record = role.memory
    lines = sorted((line for line in record.lines if line.bytes > 0), key=lambda line: -line.bytes)
    stage = f" of stage {record.stage}" if role.split.pp > 1 else ""
    used = (
        f"{gb(record.total_bytes)} of {gb(record.capacity_bytes)} ({share(record.total_bytes, record.capacity_bytes)})"
    )
    rows = [(line.name, gb(line.bytes), share(line.bytes, record.capacity_bytes)) for line in lines]
    rows.append(("in all", gb(record.total_bytes), share(record.total_bytes, record.capacity_bytes)))
    rows.append(("left free", gb(record.headroom_bytes), share(record.headroom_bytes, record.capacity_bytes)))
    largest = f" Most of it is {lines[0].name}." if lines else ""
    chart = Bars(
        "Memory by line",
        f"The fullest GPU{stage} uses {used} of HBM.{largest}",
        "GB",
        tuple((line.name, line.bytes / 1e9) for line in lines),
    )
    return Section("Memory", (chart, Table(f"HBM of the fullest GPU{stage}", ("line", "size", "of HBM"), tuple(rows))))


def step(role: RolePlan) -> Section | None:
    """Parts of a step; None where the plan has none."""
    parts = sorted((part for part in role.predicted.breakdown if part.ms > 0), key=lambda part: -part.ms)
    if not parts:
        return None
    total = sum(part.ms for part in parts)
    pieces = [
        Bars(
            "Time by part",
            f"Most goes to {parts[0].name}: {share(parts[0].ms, total)} of {grouped(total, 2)} ms.",
            "ms", tuple((part.name, part.ms) for part in parts),
        ),
        Table(
            f"Parts of {PASS[role.role]}, over all layers and stages", ("part", "ms", "share"),
            tuple((part.name, grouped(part.ms, 3), share(part.ms, total)) for part in parts),
        ),
    ]  # fmt: skip
    more = Prose("TPOT is longer than a decode step: prefill passes of other requests come in between.")
    return Section("Time", (*pieces, *([more] if role.role == "aggregated" else [])))
