"""`python -m bench run split_quality`: solved training splits against hand recipes, and a rival planner's cases."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from bench.options import check_option, json_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.split_quality.recipes import Yield
    from bench.split_quality.rival import Compared
    from bench.targets import Target

SCENARIOS = ("dgx_a100_175b",)
#: Seconds that a split may take on two cores.
SECONDS = 20.0


@dataclass(frozen=True)
class Row:
    """One scenario: every recipe, the solved split, seconds of the solve, and why it wins."""

    scenario: str
    recipes: tuple[Yield, ...]
    solved: Yield
    seconds: float
    why: str

    @property
    def best_recipe(self) -> Yield | None:
        """The recipe of the highest rate."""
        feasible = [each for each in self.recipes if each.tokens_per_s is not None]
        return max(feasible, key=lambda each: each.tokens_per_s or 0.0, default=None)


@click.command("split_quality", cls=Command)
@click.option("--scenario", "names", multiple=True, help="Training scenario. Repeatable. Default: the catalog's 175B.")
@click.option("--rival/--no-rival", default=True, show_default=True, help="The rival planner's cases, too.")
@check_option
@json_option
def command(names: tuple[str, ...], rival: bool, check: bool, as_json: bool) -> None:
    """Tokens/s of solved training splits over the best hand recipe, in one cost model, and why they differ.

    Recipes of serving scenarios: `recipe_gain`.
    """
    from bench.split_quality.rival import CASES, compare
    from bench.targets import check_targets

    rows = []
    for name in names or SCENARIOS:
        note(f"{name}")
        rows.append(run_scenario(name))
    compared = []
    for case in CASES if rival else ():
        note(case.name)
        compared.append(compare(case))
    targets = _targets(rows)
    emit(json.dumps(_record(rows, compared), indent=1) if as_json else _text(rows, compared, targets))
    if check:
        check_targets(targets)


def run_scenario(name: str) -> Row:
    """All recipes and the solved split of one scenario.

    Raises:
        InputError: it does not train.
    """
    from bench.split_quality.costs import explanation
    from bench.split_quality.recipes import best_of, recipes_of
    from placement.errors import InputError
    from specs.loading import load_scenario

    scenario = load_scenario(name)
    if scenario.workload.kind != "training":
        raise InputError(name, "workload", "is served, not trained", "use `python -m bench run recipe_gain`")
    recipes = tuple(best_of(scenario, recipe.name, recipe.pins) for recipe in recipes_of(scenario))
    started = time.perf_counter()
    solved = best_of(scenario, "solved", (scenario.pins,))
    row = Row(name, recipes, solved, time.perf_counter() - started, "")
    best = row.best_recipe
    if best is None or best.split is None or solved.split is None:
        return row
    return replace(row, why=explanation(scenario, solved.split, best.split, best.name))


def _targets(rows: Sequence[Row]) -> list[Target]:
    from bench.targets import Target

    targets = []
    for row in rows:
        best, solved = row.best_recipe, row.solved
        if best is not None and best.tokens_per_s and solved.tokens_per_s:
            ratio = solved.tokens_per_s / best.tokens_per_s
            targets.append(Target(f"{row.scenario}, solved over the best recipe", ratio, 1.0, "x", True))
        targets.append(Target(f"{row.scenario}, solved", row.seconds, SECONDS, "s"))
    return targets


def _text(rows: Sequence[Row], compared: Sequence[Compared], targets: Sequence[Target]) -> str:
    from rich.text import Text

    from bench.split_quality.rival import told
    from bench.targets import target_table
    from placement.report.text import columns, heading, rendered

    parts: list[RenderableType] = []
    for row in rows:
        best = row.best_recipe
        table = []
        for each in (*row.recipes, row.solved):
            rate = "-" if each.tokens_per_s is None else f"{each.tokens_per_s:,.0f}"
            over = (
                f"{each.tokens_per_s / best.tokens_per_s:.2f}x"
                if best is not None and best.tokens_per_s and each.tokens_per_s
                else "-"
            )
            table.append([each.name, rate, over])
        parts += [heading(row.scenario), columns(("", "tokens/s", "over the best recipe"), table)]
        for each in (*row.recipes, row.solved):
            parts.append(Text(f"  {each.name}: {_how(each)}"))
        parts += [Text(f"  why: {row.why}"), Text()]
    for each_case in compared:
        case = each_case.case
        table = [
            [
                f"aiconfigurator 0.12: DP{case.dp} EP{case.ep} batch {case.batch}, its own figure",
                f"{case.per_gpu:,.0f}",
            ],
            ["the same split in this cost model", f"{each_case.its_split_here:,.0f}"],
        ]
        for ours in each_case.ours:
            table.append([f"{ours.name}: {told(ours.kinds)}"[:100], f"{ours.tokens_per_s / case.gpus:,.0f}"])
        parts += [
            heading(case.name, "  tokens/s per GPU"),
            columns(("", "tokens/s/GPU"), table),
            Text(f"  its split here: TTFT {each_case.its_ttft_ms:,.0f} ms, TPOT {each_case.its_tpot_ms:.1f} ms"),
            Text(),
        ]
    if targets:
        parts.append(target_table(targets))
    return rendered(parts)


def _how(each: Yield) -> str:
    if each.split is None:
        return f"not feasible: {each.why}"
    s = each.split
    return f"TP{s.tp} EP{s.ep} PP{s.pp} DP{s.dp}, {s.instances} instances"


def _record(rows: Sequence[Row], compared: Sequence[Compared]) -> dict[str, Any]:
    from bench.split_quality.rival import told

    return {
        "scenarios": [
            {
                "scenario": row.scenario,
                "ways": [
                    {"name": each.name, "tokens_per_s": each.tokens_per_s, "how": _how(each)}
                    for each in (*row.recipes, row.solved)
                ],
                "seconds": row.seconds,
                "why": row.why,
            }
            for row in rows
        ],
        "rival": [
            {
                "case": each.case.name,
                "claimed_per_gpu": each.case.per_gpu,
                "its_split_here_per_gpu": each.its_split_here,
                "ours": [
                    {
                        "mode": ours.name,
                        "per_gpu": ours.tokens_per_s / each.case.gpus,
                        "how": told(ours.kinds),
                    }
                    for ours in each.ours
                ],
            }
            for each in compared
        ],
    }
