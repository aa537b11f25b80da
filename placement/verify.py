"""Re-checks placements and plan files from outside, and the command `placement verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from placement.commands.running import emit, run

if TYPE_CHECKING:
    from placement.checks.plan import Check
    from placement.plan import Plan
    from placement.problem import IntArray, LayerProblem


def check_layer(problem: LayerProblem, slots: IntArray) -> tuple[str, ...]:
    """Every hard rule of `problem` that a placement breaks, one line each; empty if it is valid.

    Length, ids, capacities (EMPTY in the slots beyond them only), a copy of every expert, copies on distinct GPUs,
    groups, fixed experts, the budget of moves.

    Args:
        slots: [slots] logical expert of each slot, or EMPTY.
    """
    from placement.checks.layer import layer_faults

    return layer_faults(problem, slots)


def verify_plan(plan: Plan, traces: Sequence[str] = ()) -> tuple[Check, ...]:
    """Re-derives everything a plan claims, from the plan alone and, if given, the traces it was solved on.

    Args:
        traces: paths of the recorded routing. Without them the figures of a plan on recorded routing are not
            recomputed; synthetic routing is made again from its seed.

    Raises:
        InputError: a trace that can't be read.
    """
    from placement.checks.plan import plan_checks

    return plan_checks(plan, traces)


@click.command("verify", short_help="Re-check a plan file from outside.")
@click.argument("plan")
@click.option(
    "--trace", "traces", multiple=True, metavar="FILE", help="Routing the plan was solved on; repeat for each."
)
@click.option("--json", "as_json", is_flag=True, help="Print every check as JSON.")
def command(plan: str, traces: tuple[str, ...], as_json: bool) -> None:
    """Re-check the plan file PLAN: shapes, HBM, degrees, certificate, and every figure whose routing is at hand.

    Exits with 6 if a check fails. Shares no code with the solvers.
    """
    from placement.errors import CheckFailedError
    from placement.plan import read_plan
    from placement.report.checks import checks_json, checks_text

    checks = verify_plan(read_plan(plan), traces)
    emit(checks_json(plan, checks) if as_json else checks_text(plan, checks))
    failed = [check for check in checks if check.passed is False]
    if failed:
        names = ", ".join(check.name for check in failed)
        raise CheckFailedError(f"{plan}: {len(failed)} of {len(checks)} checks failed: {names}")


def main() -> None:
    """Entry point of `python -m placement.verify`."""
    run(command, "placement.verify")


if __name__ == "__main__":
    main()
