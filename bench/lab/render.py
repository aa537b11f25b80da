"""Results as a screen, as Markdown and as JSON: records in, text out."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.lab.harness import Skipped, verdict
from bench.lab.target import Figure, Outcome, PairResult, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "placement.lab/1"


def shown(value: float | None, unit: str = "") -> str:
    """A figure for people: four digits, thousands apart."""
    if value is None:
        return "-"
    size = abs(value)
    text = f"{value:,.0f}" if size >= 1000 or value == int(value) else f"{value:.4g}"
    return f"{text} {unit}".strip()


def ratio(before: Figure | None, after: Figure | None) -> str:
    """The optimized figure over the baseline's."""
    if before is None or after is None or not before.value:
        return "-"
    return f"{after.value / before.value:.3f}x"


def figure_rows(result: PairResult) -> list[list[str]]:
    """Each figure of either side: name, baseline, optimized, ratio."""
    names = dict.fromkeys(each.name for side in (result.baseline, result.optimized) for each in side.compared)
    rows = []
    for name in names:
        pair = result.baseline.figure(name), result.optimized.figure(name)
        unit = next(each.unit for each in pair if each is not None)
        told = f"{name} ({unit})" if unit and name != "step_ms" else name
        rows.append([told, *(shown(each.value if each else None) for each in pair), ratio(*pair)])
    return rows


def verdict_text(result: PairResult) -> str:
    """The outcome in a sentence."""
    told = verdict(result)
    figure = told.figure.replace("_", " ")
    if told.kind == "tie":
        return f"Tie by {figure}: {told.reason or 'no reason given'}"
    return f"{told.gain:+.1%} by {figure}: {result.optimized.label} against {result.baseline.label}."


def screen(results: Sequence[PairResult], skipped: Sequence[Skipped]) -> str:
    """All of it, in 80 columns."""
    from placement.report.text import columns, command, heading, rendered, screen_width

    parts: list[RenderableType] = []
    for result in results:
        before, after = result.baseline, result.optimized
        parts += [heading(result.target, f" · {result.scenario} · {result.profile}"), result.summary, ""]
        parts += [columns(["figure", "baseline", "optimized", "ratio"], figure_rows(result))]
        parts += [f"baseline: {before.label}; optimized: {after.label}", verdict_text(result), ""]
        for table in after.tables:
            parts += [heading(table.title), columns(table.header, table.rows, table.marked), ""]
        for drawing in after.drawings:
            parts += [heading(drawing.title), *(command(line) for line in drawing.text.splitlines()), ""]
        for name, side in (("baseline", before), ("optimized", after)):
            told = [f"{'ok  ' if each.passed else 'FAIL'} {each.name}: {each.detail}" for each in side.findings]
            parts += [heading(f"Checks of the {name}"), *told, ""] if told else []
        parts += [*after.notes]
        if after.production:
            parts += [heading("IN PRODUCTION"), *_steps(after.production, screen_width())]
        parts += [""]
    parts += [f"left out: {each.target} on {each.scenario}: {each.reason}" for each in skipped]
    return rendered(parts)


def _is_command(step: str) -> bool:
    """Whether a step in production is to be copied; a sentence is to be read."""
    return not step.endswith(".")


def _steps(production: Sequence[str], width: int) -> list[RenderableType]:
    """Steps in production: sentences in lines, a command on one, below its comment where both do not fit beside."""
    from placement.report.text import command

    parts: list[RenderableType] = []
    for step in production:
        if not _is_command(step):
            parts += textwrap.wrap(step, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
            continue
        line, mark, comment = step.partition(" # ")
        if mark and len(step) + 2 > width:
            parts += textwrap.wrap(comment, width, initial_indent="  # ", subsequent_indent="  # ")
            step = line.rstrip()
        parts.append(command(f"  {step}"))
    return parts


def comparison_rows(results: Sequence[PairResult]) -> list[list[str]]:
    """One row a pair: step and throughput of both sides, and the ratio of the figure that judges."""
    rows = []
    for result in results:
        sides = (result.baseline, result.optimized)
        judged = ratio(*(side.figure(result.judged_by) for side in sides))
        rows.append(
            [
                result.target, *(shown(side.step_ms) for side in sides), *(shown(side.throughput) for side in sides),
                judged, result.judged_by.replace("_", " "), verdict(result).kind,
            ]
        )  # fmt: skip
    return rows


COMPARISON = ("target", "step_ms base", "step_ms opt", "throughput base", "throughput opt", "ratio", "of", "verdict")


def comparison(results: Sequence[PairResult], skipped: Sequence[Skipped]) -> str:
    """The table of `bench compare`."""
    from placement.report.text import columns, rendered

    scenarios = list(dict.fromkeys(result.scenario for result in results))
    parts: list[RenderableType] = []
    for scenario in scenarios:
        own = [result for result in results if result.scenario == scenario]
        parts += [scenario, columns(COMPARISON, comparison_rows(own)), ""]
        parts += [f"{r.target}: {verdict_text(r)}" for r in own]
        parts += [""]
    parts += [f"left out: {each.target} on {each.scenario}: {each.reason}" for each in skipped]
    return rendered(parts)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns of figures, which have no blanks, are flush right."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def figures(column: int) -> bool:
        return column > 0 and not any(" " in row[column] or row[column].startswith("`") for row in rows)

    rule = "|" + "|".join(" ---: " if figures(i) else " --- " for i in range(len(header))) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def markdown(result: PairResult, level: int = 1, folder: str = "") -> str:
    """One pair as a document; `level` is of its heading, `folder` what its attachments lie in."""
    mark, after = "#" * level, result.optimized
    extra = f", `{result.extra}`" if result.extra else ""
    parts = [
        f"{mark} {result.target}",
        f"{result.summary} Scenario `{result.scenario}`, profile {result.profile}{extra}.",
        markdown_table(["figure", f"baseline: {result.baseline.label}", f"optimized: {after.label}", "ratio"],
                       figure_rows(result)),
        f"**{verdict_text(result)}**",
    ]  # fmt: skip
    parts += [part for table in after.tables for part in _table(table, mark)]
    for drawing in after.drawings:
        parts += [f"{mark}# {drawing.title}", f"```text\n{drawing.text.rstrip()}\n```"]
    for side in (result.baseline, after):
        parts += [
            f"{'!' if each.name.endswith('.svg') else ''}[{each.title}]({folder}{each.name})"
            for each in side.attachments
        ]
    for name, side in (("baseline", result.baseline), ("optimized", after)):
        rows = [[each.name, "passed" if each.passed else "FAILED", each.detail] for each in side.findings]
        if rows:
            parts += [f"{mark}# Checks of the {name}", markdown_table(["check", "result", "compared"], rows)]
    if after.notes:
        parts += ["\n".join(f"- {note}" for note in after.notes)]
    if after.production:
        lines = [step if _is_command(step) else f"# {step}" for step in after.production]
        parts += [f"{mark}# In production", "```bash\n" + "\n".join(lines) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _table(table: Table, mark: str) -> list[str]:
    rows = [
        [f"**{cell}**" if i == table.marked else cell for cell in row] if i == table.marked else list(row)
        for i, row in enumerate(table.rows)
    ]
    return [f"{mark}# {table.title}", markdown_table(table.header, rows)]


def markdown_summary(results: Sequence[PairResult], skipped: Sequence[Skipped], whole: bool = True) -> str:
    """All pairs as a document: the comparison first, then each."""
    parts = ["# Planning lab"]
    for scenario in dict.fromkeys(result.scenario for result in results):
        own = [result for result in results if result.scenario == scenario]
        parts += [f"## {scenario}", markdown_table(COMPARISON, comparison_rows(own))]
        parts += ["\n".join(f"- `{result.target}`: {verdict_text(result)}" for result in own)]
        if whole:
            parts += [markdown(result, 3, f"{result.folder}/").rstrip() for result in own]
    if skipped:
        parts += ["\n".join(f"- left out: `{s.target}` on `{s.scenario}`: {s.reason}" for s in skipped)]
    return "\n\n".join(parts) + "\n"


def record(result: PairResult) -> dict[str, Any]:
    """A pair for JSON: what attachments hold stands in files of their own."""
    told = verdict(result)
    data: dict[str, Any] = {"schema": SCHEMA, **asdict(result), "verdict": asdict(told)}
    del data["seconds"]
    for side in ("baseline", "optimized"):
        own: Outcome = getattr(result, side)
        data[side]["attachments"] = [{"name": each.name, "title": each.title} for each in own.attachments]
    return data


def json_text(results: Sequence[PairResult], skipped: Sequence[Skipped]) -> str:
    """All pairs as JSON."""
    data = {"schema": SCHEMA, "results": [record(r) for r in results], "skipped": [asdict(s) for s in skipped]}
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
