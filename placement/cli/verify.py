"""Re-checks placements and plan files from outside, and the command `placement verify`."""

from __future__ import annotations

import click

from placement.cli.command import Command
from placement.cli.options import plan_argument, quiet_option
from placement.cli.running import emit, run


@click.command("verify", cls=Command, short_help="Re-check a plan file from outside.")
@plan_argument
@click.option(
    "--trace", "traces", multiple=True, metavar="FILE", help="Routing the plan was solved on; repeat for each."
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="Print every check as JSON.")
def command(plan_path: str, traces: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Re-check the plan file PLAN, without code of the solvers.

    "Checked" is what was derived again and compared: degrees, HBM, limits, baselines, and every figure whose routing is
    at hand. "Claimed" is what nothing but the plan says, such as a solver's bound. "Missing" needs its routing: give
    --trace. Exits with 6 if a check fails.
    """
    from placement.check.plan import verify_plan
    from placement.errors import CheckFailedError
    from placement.records.plan import load_plan
    from placement.report.checks import checks_json, checks_text

    checks = verify_plan(load_plan(plan_path), traces)
    emit(checks_json(plan_path, checks) if as_json else checks_text(plan_path, checks, quiet))
    failed = [check for check in checks if check.passed is False]
    if failed:
        names = ", ".join(check.name for check in failed)
        made = sum(check.kind == "checked" for check in checks)
        raise CheckFailedError(f"{plan_path}: {len(failed)} of {made} checks failed: {names}")


def main() -> None:
    """Entry point of `python -m placement.verify`."""
    run(command, "placement.verify")


if __name__ == "__main__":
    main()
