"""The command `placement scenario`: one named way to plan, as something to act on."""

from __future__ import annotations

from typing import Any

import click

from placement.cli.command import Command
from placement.cli.options import (
    DEFAULT_SPEC,
    effort_options,
    engine_option,
    library_options,
    pin_options,
    scenario_options,
    variant_options,
)
from placement.cli.running import emit, run


@click.command("scenario", cls=Command, short_help="Plan by a named way, on one screen to act on.")
@click.option(
    "--scenario", "scenario", metavar="NAME", default="solved", show_default=True,
    help="hash, grouped, locality, balanced, solved, disaggregated or training.",
)  # fmt: skip
@click.option(
    "--spec", default=DEFAULT_SPEC, show_default=True, metavar="NAME_OR_FILE",
    help="Scenario of the catalog, or a file.",
)  # fmt: skip
@pin_options
@engine_option
@effort_options
@variant_options
@click.option("--out", metavar="FILE", help="Write the plan to this file.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(scenario: str, spec: str, out: str | None, quiet: bool, **options: Any) -> None:
    """Plan by a named way: experts a GPU, what each link needs, HBM by line, what to deploy and how to check it.

    \b
    placement scenario --scenario locality --spec deepseek_v2_lite_h100_ib
    placement scenario --scenario training --spec dgx_a100_175b --out plan.json
    """
    from placement.cli.progress import ProgressBar
    from placement.planning.case import load_scenario
    from placement.planning.needs import needs_of
    from placement.planning.stances import plan_stance, stance
    from placement.records.files import check_writable
    from placement.report.stance import stance_screen

    told = stance(scenario)
    loaded = load_scenario(spec, **scenario_options(options))
    if out is not None:
        check_writable(out, "`out`")
    with ProgressBar(quiet) as progress:
        plan = plan_stance(scenario, loaded, on_progress=progress, **library_options(options))
    if out is not None:
        plan.save(out)
    emit(stance_screen(plan, f"{scenario}: {told.summary}", needs_of(plan), spec, out))


def main() -> None:
    """Entry point of `python -m placement.scenario`."""
    run(command, "placement.scenario")


if __name__ == "__main__":
    main()
