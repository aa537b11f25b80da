"""The command `placement evaluate`: scores a plan, and the baselines it holds, on other routing."""

from __future__ import annotations

from typing import Any

import click

from placement.cli.command import Command
from placement.cli.options import current_option, engine_option, plan_argument, quiet_option, role_option
from placement.cli.running import emit, run

PARTS = ("all", "first-half", "second-half")


@click.command("evaluate", cls=Command, short_help="Score a plan on other routing.")
@plan_argument
@click.option(
    "--trace",
    "--loads",
    "traces",
    required=True,
    multiple=True,
    metavar="FILE",
    help="Recorded routing to score on. Repeatable.",
)
@click.option("--part", type=click.Choice(PARTS), default="all", show_default=True, help="Which sequences count.")
@click.option(
    "--windows", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Load windows of each trace."
)
@click.option(
    "--weight-levels",
    type=click.IntRange(1, 2**20),
    metavar="N",
    help="Round dispatch fractions to whole multiples of 1/N first, as engines with integer weights do.",
)
@engine_option
@role_option
@current_option
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    plan_path: str, traces: tuple[str, ...], as_json: bool, quiet: bool, engine: str | None, role: str | None,
    **options: Any,
) -> None:  # fmt: skip
    """Score the plan file PLAN, and the baselines solved beside it, on each trace.

    Every role is scored, or the one that --role names. Placements are taken from the plan file as they stand; nothing
    is solved on this routing. A plan that was solved on the first half of a trace is judged fairly by --part
    second-half.
    """
    from placement.cli.progress import ProgressBar
    from placement.planning.evaluate import evaluate_plan
    from placement.planning.other_engine import on_engine
    from placement.planning.progress import Reporter
    from placement.records.plan import load_plan
    from placement.records.role import of_role
    from placement.report.evaluation import evaluation_json, evaluation_text

    plan = on_engine(load_plan(plan_path), engine)
    results = []
    with ProgressBar(quiet=quiet) as progress:
        report = Reporter(progress)
        report.stage("scoring", len(traces))
        for trace in traces:
            results.append(evaluate_plan(plan, trace, role=role, **options))
            report.advance()
    roles = of_role(plan.roles, role)
    if as_json:
        emit(evaluation_json(plan_path, plan, roles, results))
    else:
        emit(evaluation_text(plan_path, plan, roles, results, quiet))


def main() -> None:
    """Entry point of `python -m placement.evaluate`."""
    run(command, "placement.evaluate")


if __name__ == "__main__":
    main()
