"""The command `placement compare`: heuristics against the solved plan, over several scenarios."""

from __future__ import annotations

from typing import Any

import click

from placement.cli.command import Command
from placement.cli.options import (
    current_option,
    library_options,
    quiet_option,
    role_option,
    scenario_options,
    solve_options,
    trace_option,
)
from placement.cli.running import emit, run


@click.command("compare", cls=Command, short_help="Compare strategies over several scenarios.")
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
@current_option
@role_option
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(specs: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Solve each scenario and compare every strategy on it, on held-out routing where there is some.

    All options are as for solve, and hold for every scenario; so do the traces, which must be of its model. With
    --current the engine's own map becomes a row, too; --role says whose it is.
    """
    from placement.cli.progress import ProgressBar
    from placement.planning.case import load_scenario
    from placement.planning.compare import compare_strategies

    overrides = scenario_options(options)
    scenarios = [load_scenario(spec, **overrides) for spec in specs]
    with ProgressBar(quiet=quiet) as progress:
        found = compare_strategies(scenarios, on_progress=progress, **library_options(options))
    emit(found.json() if as_json else found.text(quiet))


def main() -> None:
    """Entry point of `python -m placement.compare`."""
    run(command, "placement.compare")


if __name__ == "__main__":
    main()
