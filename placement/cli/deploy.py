"""The command `placement deploy`: which instances to run on a cluster, and how many of each."""

from __future__ import annotations

from typing import Any

import click

from placement.cli.command import Command
from placement.cli.options import (
    DEFAULT_SPEC,
    degrees_option,
    demand_asked,
    demand_options,
    engine_option,
    explain_option,
    instance_options,
    library_options,
    pin_options,
    positive,
    redundant_experts,
    scenario_options,
    screen_options,
    trace_option,
    variant_options,
)
from placement.cli.running import emit, run


@click.command(
    "deploy", cls=Command, short_help="Choose instances: how many of which split, with quickly placed experts."
)
@click.option("--spec", default=DEFAULT_SPEC, show_default=True, metavar="NAME_OR_FILE", help="Scenario.")
@instance_options
@demand_options
@click.option("--front", is_flag=True, help="Tokens/s per GPU against tokens/s per user: the front over TPOT limits.")
@click.option("--redundant", type=redundant_experts, metavar="N|auto", help="Redundant experts per MoE layer, or auto.")
@pin_options
@degrees_option
@engine_option
@variant_options
@trace_option
@click.option("--time-limit", type=positive, metavar="SECONDS", help="Stop solving after this many seconds.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", default=0, show_default=True)
@explain_option
@screen_options
@click.option("--out", metavar="FILE", help="Write the plan (or the front) as JSON to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    spec: str, out: str | None, as_json: bool, front: bool, verbose: int, explain: bool, **options: Any
) -> None:
    """Choose how many instances of which split serve the most tokens/s, within HBM, TTFT and TPOT.

    This is the planner of `solve` with experts placed by the load balancer, in seconds; its plan is read by every
    command that reads one of solve. Every feasible split is priced in every role; a MILP chooses among those that no
    other rules out and packs them into the nodes. Redundant experts are chosen with the split: a replica costs KV
    cache.
    """
    from placement.cli.progress import ProgressBar
    from placement.errors import ParameterError
    from placement.planning.case import load_scenario
    from placement.planning.demand import solve_for
    from placement.planning.deploy import deployment_case, front_of
    from placement.planning.explain import explained
    from placement.records.files import check_writable, write_text
    from placement.records.plan import plan_json
    from placement.report.front import front_text
    from placement.report.screen import solve_screen

    asked = demand_asked(options)
    if front and (asked.name is not None or asked.simulated):
        raise ParameterError(
            "front", f"it and `{asked.name or 'simulate'}` exclude each other", "leave one of the two out"
        )
    scenario = asked.at_mean_lengths(load_scenario(spec, **scenario_options(options)))
    if out is not None:
        check_writable(out, "`out`")
    with ProgressBar() as progress:
        case = deployment_case(scenario, on_progress=progress, **library_options(options))
        if front:
            told = front_of(case)
        else:
            planned = solve_for(case, asked)
            if explain:
                planned = explained(case, planned)
    if front:
        if out is not None:
            write_text(out, told.json() + "\n", "`out`")
        emit(told.json() if as_json else front_text(told))
        return
    if out is not None:
        planned.plan.save(out)
    emit(plan_json(planned.plan) if as_json else solve_screen(planned.plan, planned.timings, out, verbose))


def main() -> None:
    """Entry point of `python -m placement.deploy`."""
    run(command, "placement.deploy")


if __name__ == "__main__":
    main()
