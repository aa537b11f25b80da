"""The command `placement migrate`: from a plan that runs to a better one on new routing, within a budget."""

from __future__ import annotations

from typing import Any

import click

from placement.cli.command import Command
from placement.cli.options import (
    current_option,
    effort_options,
    engine_option,
    library_options,
    plan_argument,
    quiet_option,
    role_option,
    trace_option,
)
from placement.cli.running import emit, note, run


@click.command("migrate", cls=Command, short_help="Move a running plan to new routing with few moves.")
@plan_argument
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
@click.option(
    "--to-gpus", type=click.IntRange(1), metavar="N", help="GPUs (expert-parallel ranks) to grow or shrink to."
)
@engine_option
@role_option
@current_option
@effort_options
@quiet_option
@click.option("--out", metavar="FILE", help="Write the migrated plan to this file; needs a budget.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(plan_path: str, out: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Show what moves buy: the front from the plan as it runs to a full re-solve, on new routing.

    A move is an expert that comes to a GPU which did not hold it. Every layer has a front of its own; a total of moves
    is shared out over the layers so that their mean objective is least. The routing of --trace is split as in solve:
    the front is made on the first half of its sequences and judged on the second.

    With --to-gpus the plan comes to another number of GPUs: those that join are filled, and what GPUs held that leave
    (the last ones) is put back, with few moves first. TP and stages stay, and a GPU's slots; the batch becomes smaller
    where it has to.

    PLAN is the plan that runs. All its roles move, each within the budget, or the one that --role names; moves are
    those of one instance. With a budget the best choice within it is marked by ">", and written by --out.
    Experts lost with failed GPUs are put back with as few moves as possible first.
    """
    from placement.cli.progress import ProgressBar
    from placement.errors import ParameterError
    from placement.planning.migrate import migrate_plan
    from placement.planning.move_budget import MoveBudget
    from placement.records.files import check_writable
    from placement.records.plan import load_plan
    from placement.report.migration import migration_json, migration_text

    budgets = {name: options[name] for name in ("max_moves", "max_moves_percent", "max_transfer_ms")}
    if out is not None:
        if not MoveBudget(**budgets).given:
            names = "`max_moves`, `max_moves_percent` or `max_transfer_ms`"
            raise ParameterError("out", "no budget is given", f"add {names}")
        check_writable(out, "`out`")
    plan = load_plan(plan_path)
    with ProgressBar(quiet=quiet) as progress:
        told = migrate_plan(plan, on_progress=progress, **library_options(options))
    if out is not None and told.plan is not None:
        told.plan.save(out)
    emit(migration_json(told, plan_path) if as_json else migration_text(told, plan_path, quiet))
    if out is not None and not as_json:
        note(f"wrote {out}")


def main() -> None:
    """Entry point of `python -m placement.migrate`."""
    run(command, "placement.migrate")


if __name__ == "__main__":
    main()
