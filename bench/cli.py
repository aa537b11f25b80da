"""`python -m bench`: lists the benchmarks and runs them by name."""

from __future__ import annotations

import difflib
import json

import click

from bench.registry import BENCHMARKS, present
from placement.cli.running import emit


class _Runs(click.Group):
    """`bench run`: its commands are the benchmarks, each imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The benchmarks of this installation."""
        return [each.name for each in present()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The benchmark's command, imported; None for an unknown name."""
        return BENCHMARKS[cmd_name].load() if cmd_name in self.list_commands(ctx) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, with the nearest names for an unknown one."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], names, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
            raise click.UsageError(f"no benchmark {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The benchmarks and what they measure, without importing them."""
        with formatter.section("Benchmarks"):
            formatter.write_dl([(each.name, each.summary) for each in present()])


class _Bench(click.Group):
    """`bench`: a benchmark's name alone runs it, too."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or the benchmark of that name; None for an unknown one."""
        found = super().get_command(ctx, cmd_name)
        known = BENCHMARKS.get(cmd_name)
        return found if found is not None or known is None or not known.present else known.load()


@click.group(cls=_Bench)
def cli() -> None:
    """Measure how good and how fast plans are. A benchmark's name alone is short for `run NAME`.

    Exit codes are those of `placement`: 0 done; 2 bad usage or input; 5 an optional part is not installed; 6 a check
    failed.
    """


@cli.command("list", short_help="The benchmarks and what they measure.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_command(as_json: bool) -> None:
    """The benchmarks and what they measure."""
    found = present()
    if as_json:
        emit(json.dumps([{"name": b.name, "module": b.module, "summary": b.summary} for b in found], indent=1))
        return
    width = max(len(each.name) for each in found)
    emit("\n".join(f"{each.name:{width}}  {each.summary}" for each in found))


@cli.group("run", cls=_Runs, short_help="Run one benchmark by name, with its own options.")
def run_command() -> None:
    """Run one benchmark by name, with its own options: `python -m bench run NAME --help` tells them."""
