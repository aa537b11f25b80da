"""Where a GPU's memory goes, and where a step's time goes."""

from __future__ import annotations

from placement.records.role import RolePlan
from placement.report.page.blocks import Bars, Block, Prose, Section, Table
from placement.report.page.sections.words import PASS, share, told
from placement.report.units import gb, grouped


def memory(role: RolePlan) -> Section:
    """HBM of the fullest GPU by line."""
    record = role.memory
    lines = [(told(line.name, 60), line.bytes) for line in record.lines if line.bytes > 0]
    lines.sort(key=lambda line: -line[1])
    stage = f" of stage {record.stage}" if role.split.pp > 1 else ""
    used = (
        f"{gb(record.total_bytes)} of {gb(record.capacity_bytes)} ({share(record.total_bytes, record.capacity_bytes)})"
    )
    rows = [(name, gb(size), share(size, record.capacity_bytes)) for name, size in lines]
    rows.append(("in all", gb(record.total_bytes), share(record.total_bytes, record.capacity_bytes)))
    rows.append(("left free", gb(record.headroom_bytes), share(record.headroom_bytes, record.capacity_bytes)))
    largest = f" Most of it is {lines[0][0]}." if lines else ""
    chart = Bars(
        "Memory by line",
        f"The fullest GPU{stage} uses {used} of HBM.{largest}",
        "GB",
        tuple((name, size / 1e9) for name, size in lines),
    )
    drawn = [chart] if lines else []
    return Section("Memory", (*drawn, Table(f"HBM of the fullest GPU{stage}", ("line", "size", "of HBM"), tuple(rows))))


def step(role: RolePlan) -> Section | None:
    """Parts of a step; None where the plan has none."""
    parts = [(told(part.name, 60), part.ms) for part in role.predicted.breakdown if part.ms > 0]
    parts.sort(key=lambda part: -part[1])
    if not parts:
        return None
    total = sum(ms for _, ms in parts)
    pieces: list[Block] = [
        Bars(
            "Time by part",
            f"Most goes to {parts[0][0]}: {share(parts[0][1], total)} of {grouped(total, 2)} ms.",
            "ms", tuple(parts),
        ),
        Table(
            f"Parts of {PASS[role.role]}, over all layers and stages", ("part", "ms", "share"),
            tuple((name, grouped(ms, 3), share(ms, total)) for name, ms in parts),
        ),
    ]  # fmt: skip
    if role.role == "aggregated":
        pieces.append(Prose("TPOT is longer than a decode step: prefill passes of other requests come in between."))
    return Section("Time", tuple(pieces))
