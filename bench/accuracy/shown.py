"""What a run of `python -m bench accuracy` shows: as text, and for JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType

from bench.accuracy.floor import floor_of
from bench.accuracy.intervals import Covered, coverage_parts, coverage_records
from bench.accuracy.rows import Row
from bench.accuracy.samples import Sample
from bench.accuracy.settings import Unpredicted
from bench.accuracy.tables import Table
from bench.accuracy.validate import Errors
from bench.targets import Target, target_records, target_table
from placement.report.text import columns, heading, rendered

HEADER = (
    "", "rows", "TPOT median", "mean", "bias", "rank", "TTFT median", "mean", "bias", "rank",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A report as text and for JSON, and the targets it checks."""

    text: str
    record: dict[str, Any]
    targets: tuple[Target, ...]


def measured_text(
    rows: Sequence[Row],
    samples: Sequence[Sample],
    left: Sequence[Unpredicted],
    tables: Sequence[Table],
    by_group: bool,
    inside: Sequence[Covered],
    targets: Sequence[Target],
) -> str:
    """The tables as text."""
    distinct = len({row.measurement for row in rows})
    parts: list[RenderableType] = [
        heading("rows", f"  {len(rows)}, {distinct} different measurements; {len(samples)} of them are predicted"),
    ]
    for reason, count in reasons(left):
        parts.append(f"  {count:4} rows not predicted: {reason}")
    mended = sum(row.mended for row in rows)
    if mended:
        parts.append(f"  {mended:4} rows whose degrees or batch were mended, read as those of one instance")
    queued = sum(sample.queued for sample in samples)
    if queued:
        parts.append(f"  {queued:4} measurements of more requests than HBM holds: not fitted to, and counted apart")
    for named in (True, False):
        floor = floor_of(samples, named)
        if floor is not None:
            told = "names the engine" if named else "names no engine"
            parts.append(
                f"  A plan that {told} can't tell {floor.rows} measurements of {floor.plans} plans apart; "
                f"they differ by TPOT {floor.tpot:.1%}, TTFT {floor.ttft:.1%}"
            )
    for table in tables:
        lines = []
        for each in table.judged:
            lines.append(_line(each.name, each.overall))
            if by_group:
                lines += [_line(f"  {name}", errors) for name, errors in each.groups]
            if each.queued is not None:
                lines.append(_line("  with a queue", each.queued))
        parts += ["", heading(table.title, "  (percentage errors)"), columns(HEADER, lines)]
        if table.missing:
            parts.append(table.missing)
    parts += coverage_parts(inside)
    if targets:
        parts += ["", target_table(targets)]
    return rendered(parts)


def measured_record(
    rows: Sequence[Row],
    samples: Sequence[Sample],
    left: Sequence[Unpredicted],
    tables: Sequence[Table],
    inside: Sequence[Covered],
    targets: Sequence[Target],
) -> dict[str, Any]:
    """The tables for JSON."""
    floors = {"named": floor_of(samples, True), "unnamed": floor_of(samples, False)}
    return {
        "rows": len(rows),
        "measurements": len({row.measurement for row in rows}),
        "mended": sum(row.mended for row in rows),
        "predicted": len(samples),
        "queued": sum(sample.queued for sample in samples),
        "not_predicted": [{"reason": reason, "rows": count} for reason, count in reasons(left)],
        "floor": {name: None if floor is None else asdict(floor) for name, floor in floors.items()},
        "tables": [
            {
                "held_out": table.kind,
                "fits": table.parts,
                "missing": table.missing,
                "ways": [
                    {
                        "way": each.name,
                        "overall": _finite(asdict(each.overall)),
                        "queued": None if each.queued is None else _finite(asdict(each.queued)),
                        "groups": [{"group": name, **_finite(asdict(errors))} for name, errors in each.groups],
                    }
                    for each in table.judged
                ],
            }
            for table in tables
        ],
        "intervals": coverage_records(inside),
        "targets": target_records(targets),
    }


def reasons(left: Sequence[Unpredicted]) -> list[tuple[str, int]]:
    """Why rows are not predicted, and how many each."""
    return sorted(Counter(each.reason for each in left).items(), key=lambda item: (-item[1], item[0]))


def _line(name: str, errors: Errors) -> list[str]:
    line = [name, str(errors.rows)]
    for each in (errors.tpot, errors.ttft):
        rank = "-" if math.isnan(each.rank) else f"{each.rank:.3f}"
        line += [f"{each.median:.1%}", f"{each.mean:.1%}", f"{each.bias:+.1%}", rank]
    return line


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no nan."""
    return {
        key: _finite(value) if isinstance(value, dict)
        else None if isinstance(value, float) and math.isnan(value) else value
        for key, value in record.items()
    }  # fmt: skip
