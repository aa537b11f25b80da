"""The tables of `python -m bench run split_choice`: as text, and for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from bench.split_choice.agree import GROUPS, HIGHER, Agreement, grouped
from bench.split_choice.choose import Compared
from bench.split_choice.reason import Reason, reason, told
from bench.split_choice.recipes import LeftOut
from bench.targets import Target, target_records, target_table
from placement.report.text import columns, heading, rendered

HEADER = ("", "rows", "prefill GPUs", "exactly", "P:D ratio", "decode GPUs", "family", "gain", "higher")


def text(
    compared: Sequence[Compared],
    left: Sequence[LeftOut],
    higher: Sequence[Compared],
    reasons: int,
    targets: Sequence[Target],
) -> str:
    """The tables as text; `higher`: rows whose reason may be told, `reasons` of them."""
    questions = len({row.recipe.question for row in compared})
    unpriced = Counter(row.why for row in compared if row.theirs is None)
    parts: list[RenderableType] = [heading("rows", f"  {len(compared)} asked, {questions} different questions")]
    parts += [f"  {count:4} rows not asked: {why}" for why, count in Counter(row.reason for row in left).most_common()]
    parts += [f"  {count:4} recipes without a price: {why}" for why, count in unpriced.most_common()]
    parts += [
        "",
        heading("agreement", "  within 2x of theirs; gain: the planner's rating of its own over theirs"),
        columns(HEADER, [_cells("all", compared)]),
    ]
    for kind in GROUPS:
        parts += ["", heading(f"by {kind}"), columns(HEADER, [_cells(*group) for group in grouped(compared, kind)])]
    shown = [(row, reason(row)) for row in higher[:reasons]]
    if shown:
        parts += ["", heading("why", f"  {len(higher)} rows are rated over {HIGHER - 1:.0%} higher; the largest gains")]
        parts += [f"  {_question(row)} {row.gain:.2f}x: {why.words}" for row, why in shown]
    if targets:
        parts += ["", target_table(targets)]
    return rendered(parts)


def record(
    compared: Sequence[Compared], left: Sequence[LeftOut], higher: Sequence[Compared], targets: Sequence[Target]
) -> dict[str, Any]:
    """All rows for JSON, each that is rated higher with its reason."""
    reasons = {row.recipe.line: reason(row) for row in higher}
    return {
        "rows": len(compared),
        "questions": len({row.recipe.question for row in compared}),
        "left_out": [asdict(each) for each in left],
        "all": asdict(Agreement.of(compared)),
        "groups": {
            kind: {name: asdict(Agreement.of(rows)) for name, rows in grouped(compared, kind)} for kind in GROUPS
        },
        "answers": [_answer(row, reasons.get(row.recipe.line)) for row in compared],
        "targets": target_records(targets),
    }


def _answer(row: Compared, why: Reason | None) -> dict[str, Any]:
    return {
        "line": row.recipe.line,
        "question": asdict(row.recipe.question),
        "theirs": ", ".join(f"{each.count} {each.role} {each.layout}" for each in row.recipe.workers),
        "ours": told(row.ours) if row.ours else None,
        "requests_per_s": {
            "ours": row.ours.requests_per_s if row.ours else None,
            "theirs": row.theirs.requests_per_s if row.theirs else None,
        },
        "gain": row.gain,
        "why": row.why or (asdict(why) if why else None),
    }


def _question(row: Compared) -> str:
    asked = row.recipe.question
    return f"{asked.model} {asked.precision} {asked.gpu} {asked.isl}/{asked.osl}, {asked.clients} clients:"


def _cells(name: str, rows: Sequence[Compared]) -> list[str]:
    found = Agreement.of(rows)
    return [
        name,
        str(found.rows),
        _percent(found.prefill),
        _percent(found.prefill_exactly),
        _percent(found.ratio),
        _percent(found.decode),
        _percent(found.family),
        "-" if found.gain is None else f"{found.gain:.2f}x",
        _percent(found.higher),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
