"""The command `placement migrate`: from a plan that runs to a better one on new routing, within a budget."""

from __future__ import annotations

import math
from typing import Any

import click

from placement.cli.options import MigrateOptions, effort_options, trace_option
from placement.cli.running import emit, note, run


@click.command("migrate", short_help="Move a running plan to new routing with few moves.")
@click.option("--plan", "plan_path", required=True, metavar="FILE", help="The plan that runs, as solve writes it.")
@trace_option
@click.option("--max-moves", type=click.IntRange(0), metavar="N", help="Budget: experts that come to a GPU.")
@click.option(
    "--max-moves-percent", type=click.FloatRange(0, 100), metavar="P", help="Budget: the same in percent of all slots."
)
@click.option(
    "--max-transfer-ms", type=click.FloatRange(0), metavar="MS", help="Budget: time that the busiest link is taken up."
)
@click.option(
    "--failed-gpu",
    "failed_gpus",
    type=click.IntRange(0),
    multiple=True,
    metavar="GPU",
    help="A GPU (expert-parallel rank) that is lost, beside those that the plan leaves empty. Repeatable.",
)
@click.option(
    "--fixed-gpu",
    "fixed_gpus",
    type=click.IntRange(0),
    multiple=True,
    metavar="GPU",
    help="A GPU that keeps its experts. Repeatable.",
)
@effort_options
@click.option("--out", metavar="FILE", help="Write the migrated plan to this file; needs a budget.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(plan_path: str, out: str | None, as_json: bool, **options: Any) -> None:
    """Show what moves buy: the front from the plan as it runs to a full re-solve, on new routing.

    A move is an expert that comes to a GPU which did not hold it. Every layer has a front of its own; a total of moves
    is shared out over the layers so that their mean objective is least. The routing of --trace is split as in solve:
    the front is made on the first half of its sequences and judged on the second.

    With a budget the best choice within it is shown in bold, and written by --out. Experts lost with failed GPUs are
    put back with as few moves as possible first.
    """
    from placement.cli.progress import Progress
    from placement.errors import InputError
    from placement.planning.migrate import make_migration
    from placement.records.plan import read_plan, write_plan
    from placement.report.migration import migration_json, migration_text

    asked = MigrateOptions(**options)
    for name, value in (("--max-moves-percent", asked.max_moves_percent), ("--max-transfer-ms", asked.max_transfer_ms)):
        if value is not None and not math.isfinite(value):
            raise InputError(name, "", f"{value:g} is no budget", "give a number")
    budgets = [asked.max_moves, asked.max_moves_percent, asked.max_transfer_ms]
    if sum(budget is not None for budget in budgets) > 1:
        raise InputError("--max-moves", "", "more than one budget is given", "give one of the three --max options")
    if not asked.traces:
        raise InputError("--trace", "", "there is no new routing", "give at least one trace or file of load counts")
    if out is not None and all(budget is None for budget in budgets):
        raise InputError("--out", "", "no budget is given", "add --max-moves, --max-moves-percent or --max-transfer-ms")
    plan = read_plan(plan_path)
    with Progress() as progress:
        told, migrated = make_migration(plan, plan_path, asked, progress)
    if out is not None and migrated is not None:
        write_plan(migrated, out)
    emit(migration_json(told) if as_json else migration_text(told))
    if out is not None and not as_json:
        note(f"wrote {out}")


def main() -> None:
    """Entry point of `python -m placement.migrate`."""
    run(command, "placement.migrate")


if __name__ == "__main__":
    main()
