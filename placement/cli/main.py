"""The console script `placement`: joins the commands, each imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib

import click

from placement import __version__
from placement.cli.running import run

#: name -> (module, attribute, summary). Summaries stand here too, so that --help imports no command; a test keeps
#: them equal to the commands' own.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "solve": ("placement.cli.solve", "command", "Plan a scenario: instances, expert placement, certificate."),
    "deploy": (
        "placement.cli.deploy",
        "command",
        "Choose instances: how many of which split, with quickly placed experts.",
    ),
    "scenario": ("placement.cli.scenario", "command", "Plan by a named way, on one screen to act on."),
    "compare": ("placement.cli.compare", "command", "Compare strategies over several scenarios."),
    "evaluate": ("placement.cli.evaluate", "command", "Score a plan on other routing."),
    "migrate": ("placement.cli.migrate", "command", "Move a running plan to new routing with few moves."),
    "export": ("placement.cli.export", "command", "Write a plan as the files that a serving engine loads."),
    "verify": ("placement.cli.verify", "command", "Re-check a plan file from outside."),
    "report": ("placement.cli.report", "command", "Write a plan, or two compared, as a page."),
    "specs": (
        "placement.cli.specs",
        "specs",
        "The models, clusters, workloads, engines and scenarios that can be planned.",
    ),
    "topology": ("placement.cli.topology", "topology", "Clusters from what machines tell of themselves."),
    "trace": ("placement.cli.trace", "trace", "Recorded routing: convert what engines record, describe, split, merge."),
    "strategies": ("placement.cli.strategies", "command", "List the solvers that --strategy takes."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, with the nearest names for an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


@click.command(cls=LazyGroup)
@click.version_option(__version__, prog_name="placement")
def cli() -> None:
    """Plan how a mixture-of-experts model is laid out on GPUs, and certify how good the plan is.

    Exit codes: 0 done; 2 bad usage or input; 3 proven infeasible; 4 nothing found within the limit; 5 an optional part
    is not installed; 6 a check failed.
    """


def main() -> None:
    """Entry point of the console script."""
    run(cli, "placement")


if __name__ == "__main__":
    main()
