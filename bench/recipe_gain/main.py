"""`python -m bench run recipe_gain`: what a planned deployment gains over the best recipe, over many scenarios."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.recipe_gain.measure import Answer, Row
    from bench.targets import Target

#: The planner may not be below the best recipe by more than this share.
TOLERANCE = 1e-9
#: Seconds that all recipes of a scenario may take.
SECONDS = 2.0
#: Solving is called worth it from this gain on.
PAYS = 1.01


@click.command("recipe_gain", cls=Command)
@click.option("--scenario", "names", multiple=True, help="One of them. Repeatable. Default: all.")
@click.option("--check", is_flag=True, help="Exit with 6 if a recipe beats the planner.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every recipe of every scenario.")
@click.option("--markdown", is_flag=True, help="Print Markdown tables.")
def command(names: tuple[str, ...], check: bool, as_json: bool, markdown: bool) -> None:
    """Predicted tokens/s of the planned deployment over the best recipe's, in one cost model, and why they differ.

    Recipes have what the planner has: their layouts are priced by the same model with the same expert placement, at
    their largest batch, and the same master problem chooses counts. Routing is synthetic.
    """
    from bench.recipe_gain.cases import CASES, catalog_cases
    from bench.recipe_gain.measure import measure
    from bench.targets import check_targets
    from specs.loading import load_scenario

    cases = [(name, "catalog", name) for name in catalog_cases()]
    own = {case.name: case for case in CASES}
    cases += [(case.name, case.kind, "") for case in CASES]
    unknown = set(names) - {name for name, _, _ in cases}
    if unknown:
        raise click.BadParameter(f"no scenario {', '.join(sorted(unknown))}", param_hint="--scenario")
    rows = []
    for name, kind, catalog in cases:
        if names and name not in names:
            continue
        note(name)
        pools = (load_scenario(catalog),) if catalog else own[name].scenarios()
        rows.append(measure(name, kind, pools))
    if as_json:
        emit(json.dumps([_record(row) for row in rows], indent=1))
    else:
        emit(_markdown(rows) if markdown else _text(rows))
    if check:
        check_targets(_targets(rows))


def _targets(rows: Sequence[Row]) -> list[Target]:
    from bench.targets import Target

    targets = []
    for row in rows:
        for answer, label in ((row.few, "two kinds"), (row.any, "any kinds")):
            if answer.gain is not None:
                name = f"{row.name}, {label}: planner over the best recipe"
                targets.append(Target(name, answer.gain, 1 - TOLERANCE, "x", True))
        targets.append(Target(f"{row.name}: all recipes", row.rivals_s, SECONDS, "s"))
    return targets


def _cells(row: Row) -> list[str]:
    best = row.few.best
    return [
        row.name,
        row.kind,
        f"{row.gpus:,}",
        f"{row.few.requests_per_s * row.osl:,.0f}" if row.few.kinds else "-",
        f"{best.requests_per_s * row.osl:,.0f}" if best else "-",
        _gain(row.few),
        _gain(row.any),
        best.name if best else "none is feasible",
    ]


def _gain(answer: Answer) -> str:
    if answer.gain is None:
        return "only" if answer.kinds else "-"
    return f"{answer.gain:.3f}x"


def _paying(rows: Sequence[Row]) -> list[Row]:
    """Scenarios in which solving is worth it, the largest gain first; those that no recipe serves at all in front."""
    found = [row for row in rows if row.few.kinds and (row.few.gain is None or row.few.gain >= PAYS)]
    return sorted(found, key=lambda row: -(row.few.gain or float("inf")))


def _summary(rows: Sequence[Row]) -> str:
    gains = [row.few.gain for row in rows if row.few.gain is not None]
    free = [row.any.gain for row in rows if row.any.gain is not None]
    if not gains:
        return "No recipe is feasible."
    level = sum(gain < PAYS for gain in gains)
    return (
        f"{len(rows)} scenarios; a recipe serves {len(gains)}. Gain over the best recipe, at most two kinds of "
        f"instances: median {statistics.median(gains):.3f}x, mean {statistics.mean(gains):.3f}x, largest "
        f"{max(gains):.2f}x, smallest {min(gains):.4f}x; under 1% in {level}. With any number of kinds: median "
        f"{statistics.median(free):.3f}x."
    )


def _text(rows: Sequence[Row]) -> str:
    from rich.text import Text

    from bench.recipe_gain.measure import reason
    from bench.targets import target_table
    from placement.report.text import columns, rendered

    table = [_cells(row)[:7] for row in rows]
    head = ("scenario", "kind", "GPUs", "planner tokens/s", "best recipe", "gain", "any kinds")
    why = [Text(f"  {row.name} {_gain(row.few)}: {reason(row.few)}") for row in _paying(rows)]
    missed = [target for target in _targets(rows) if not target.met]
    parts: list[RenderableType] = [
        columns(head, table),
        Text(),
        Text(_summary(rows)),
        Text("Where solving pays:"),
        *why,
    ]
    return rendered([*parts, *([target_table(missed)] if missed else [])])


def _markdown(rows: Sequence[Row]) -> str:
    from bench.recipe_gain.measure import reason

    head = (
        "scenario", "kind", "GPUs", "planner, tokens/s", "best recipe, tokens/s", "gain", "any kinds", "best recipe",
    )  # fmt: skip
    lines = [_summary(rows), "", _line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(row)) for row in rows]
    lines += ["", "Where solving pays, and why:", ""]
    lines += [f"- `{row.name}`, {_gain(row.few)}: {reason(row.few)}" for row in _paying(rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _record(row: Row) -> dict[str, Any]:
    return {
        "scenario": row.name,
        "kind": row.kind,
        "gpus": row.gpus,
        "seconds": {"plan": row.plan_s, "rivals": row.rivals_s},
        "two_kinds": _answer(row, row.few),
        "any_kinds": _answer(row, row.any),
    }


def _answer(row: Row, answer: Answer) -> dict[str, Any]:
    from bench.recipe_gain.measure import reason, told

    return {
        "tokens_per_s": answer.requests_per_s * row.osl,
        "gpus": answer.gpus,
        "how": told(answer.kinds),
        "gain": answer.gain,
        "why": reason(answer),
        "recipes": [
            {
                "name": rival.name,
                "source": rival.source,
                "tokens_per_s": rival.requests_per_s * row.osl if rival.feasible else None,
                "gpus": rival.gpus,
                "how": told(rival.kinds),
                "why_not": rival.why,
            }
            for rival in answer.rivals
        ],
    }
