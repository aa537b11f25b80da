"""The command `placement report`: a plan, or two, as a page to read and to pass on."""

from __future__ import annotations

import click

from placement.cli.command import Command
from placement.cli.running import emit, run

FORMATS = ("html", "markdown")


@click.command("report", cls=Command, short_help="Write a plan, or two compared, as a page.")
@click.argument("plan")
@click.argument("other", required=False)
@click.option("--out", metavar="FILE", help="Write the report to this file. Default: stdout.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="Default: markdown if the file's name ends in .md, else html.",
)
@click.option(
    "--trace", "traces", multiple=True, metavar="FILE", help="Routing the plan was solved on; repeat for each."
)
@click.option(
    "--windows",
    type=click.IntRange(1, 1000),
    default=4,
    show_default=True,
    help="Load windows that each trace's judging part is cut into.",
)
@click.option("--front", metavar="FILE", help="Add what 'placement deploy --front' found under other TPOT limits.")
def command(
    plan: str, other: str | None, out: str | None, kind: str | None, traces: tuple[str, ...], windows: int,
    front: str | None,
) -> None:  # fmt: skip
    """Write a report of the plan file PLAN: the answer and why, memory, heat of experts, balance, traffic, strategies,
    certificate, assumptions, sources, and the command that makes the plan again. With OTHER, compare two plans.

    The page is one HTML file: no scripts, nothing from the network. Each plan is checked again, as verify does. If a
    check fails the report is still written, and the exit code is 6. A plan on recorded routing needs --trace for heat,
    balance and traffic. HTML needs the extra placement[report].
    """
    from placement.cli.progress import ProgressBar
    from placement.errors import CheckFailedError, ParameterError
    from placement.planning.report import compare_plans, report_plan
    from placement.records.files import check_writable, write_text
    from placement.records.plan import load_plan

    if other is not None and front is not None:
        raise ParameterError("front", "it is of one plan, and two are compared", "leave one of them out")
    if out is not None:
        check_writable(out, "`out`")
    with ProgressBar() as progress:
        if other is not None:
            both = (load_plan(plan), load_plan(other))
            report = compare_plans(*both, (plan, other), traces=traces, on_progress=progress)
        else:
            report = report_plan(load_plan(plan), traces=traces, windows=windows, front=front, on_progress=progress)
    chosen = kind or ("markdown" if out is not None and out.endswith(".md") else "html")
    text = report.html() if chosen == "html" else report.markdown()
    if out is None:
        emit(text)
    else:
        write_text(out, text, "`out`")
    failed = [check.name for check in report.checks if check.passed is False]
    if failed:
        of = "" if other is not None else f"{plan}: "
        raise CheckFailedError(f"{of}the report says so, too: {len(failed)} checks failed: {', '.join(failed)}")


def main() -> None:
    """Entry point of `python -m placement.report`."""
    run(command, "placement.report")


if __name__ == "__main__":
    main()
