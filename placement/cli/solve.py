"""The command `placement solve`: plans one scenario."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from placement.cli.command import Command
from placement.cli.options import (
    DEFAULT_SPEC,
    demand_asked,
    demand_options,
    explain_option,
    library_options,
    scenario_options,
    screen_options,
    solve_options,
    trace_option,
)
from placement.cli.running import Exit, emit, keeping_best, note, run


@click.command("solve", cls=Command, short_help="Plan a scenario: instances, expert placement, certificate.")
@click.option(
    "--spec",
    default=DEFAULT_SPEC,
    show_default=True,
    metavar="NAME_OR_FILE",
    help="Scenario of the catalog, or a file.",
)
@trace_option
@solve_options
@demand_options
@click.option(
    "--deployment", metavar="FILE",
    help="Keep the instances of this plan file, such as deploy writes: only experts are placed anew.",
)  # fmt: skip
@explain_option
@screen_options
@click.option("--out", metavar="FILE", help="Write the plan to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan alone, as JSON.")
@click.option("--timings", is_flag=True, help="Put wall-clock times into the plan, too.")
def command(
    spec: str,
    deployment: str | None,
    out: str | None,
    as_json: bool,
    timings: bool,
    verbose: int,
    explain: bool,
    **options: Any,
) -> Exit:
    """Plan a scenario: choose its instances, place their experts, predict what that yields, and certify how good it is.

    The same inputs and seed give the same plan, byte for byte, unless --time-limit cuts the search short.

    Ctrl-C during the search ends it; with --out the best plan so far is written, and the exit code is 130.

    Without --trace the routing is synthetic, and the output says so. By default the plan is solved on the first half
    of each trace's sequences, and all strategies are compared on the second half. The certificate is of the routing
    that was solved on.
    """
    from dataclasses import replace

    from placement.cli.progress import ProgressBar
    from placement.errors import ParameterError
    from placement.planning.case import load_scenario, make_case
    from placement.planning.demand import solve_for
    from placement.planning.explain import explained
    from placement.records.files import check_writable
    from placement.records.plan import load_plan, plan_json
    from placement.report.screen import solve_screen
    from solvers.stop import Interrupt

    context = click.get_current_context()
    if deployment is not None and context.get_parameter_source("spec") is not click.core.ParameterSource.DEFAULT:
        raise ParameterError("spec", "the scenario is that of `deployment`", "leave one of the two out")
    kept = None if deployment is None else load_plan(deployment)
    asked = demand_asked(options)
    scenario = load_scenario(spec if kept is None else kept.scenario.spec, **scenario_options(options))
    scenario = asked.at_mean_lengths(scenario)
    if out is not None:
        check_writable(out, "`out`")
    interrupt = None if out is None else Interrupt()
    with ProgressBar(quiet=verbose < 0) as progress:
        case = make_case(scenario, on_progress=progress, deployment=kept, **library_options(options))
        with nullcontext() if interrupt is None else keeping_best(interrupt):
            planned = solve_for(replace(case, effort=replace(case.effort, interrupt=interrupt)), asked, timings)
            if explain and not (interrupt and interrupt.heard):
                planned = explained(case, planned)
    if out is not None:
        planned.plan.save(out)
    if as_json:
        emit(plan_json(planned.plan))
    else:
        emit(solve_screen(planned.plan, planned.timings, out, verbose))
    if interrupt is not None and interrupt.heard:
        note(f"interrupted: wrote the best plan so far to {out}")
        return Exit.INTERRUPTED
    return Exit.DONE


def main() -> None:
    """Entry point of `python -m placement.solve`."""
    run(command, "placement.solve")


if __name__ == "__main__":
    main()
