"""The command `placement compare`: heuristics against the solved plan, over several scenarios."""

from __future__ import annotations

from typing import Any

import click

from placement.cli.options import SolveOptions, solve_options, trace_option
from placement.cli.running import emit, run


@click.command("compare", short_help="Compare strategies over several scenarios.")
@click.option(
    "--spec",
    "specs",
    multiple=True,
    required=True,
    metavar="NAME_OR_FILE",
    help="Scenario of the catalog, or a file. Repeatable.",
)
@trace_option
@solve_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(specs: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Solve each scenario and compare every strategy on it, on held-out routing where there is some.

    All options are as for solve, and hold for every scenario; so do the traces, which must be of its model.
    """
    from placement.cli.progress import Progress
    from placement.planning.solve import make_plan
    from placement.report.comparison import comparison_json, comparison_text
    from specs.loading import load_scenario

    asked = SolveOptions(**options)
    scenarios = [load_scenario(spec) for spec in specs]
    with Progress() as progress:
        plans = [make_plan(scenario, asked, progress).plan for scenario in scenarios]
    emit(comparison_json(plans) if as_json else comparison_text(plans))


def main() -> None:
    """Entry point of `python -m placement.compare`."""
    run(command, "placement.compare")


if __name__ == "__main__":
    main()
