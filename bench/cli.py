"""`python -m bench`: lists the lab's targets and the benchmarks, and runs them by name."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click

from bench.lab.command import FORMATS, LabCommand, lab_options, list_text, run_lab, spread, unknown
from bench.lab.discover import targets
from bench.lab.target import EVIDENCE, LAB
from bench.registry import BENCHMARKS, present
from placement.cli.running import emit


class _Runs(click.Group):
    """`bench run`: targets of the lab by --targets, or one benchmark by its name, which is imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The benchmarks of this installation."""
        return [each.name for each in present()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The benchmark's command, imported; None for an unknown name."""
        return BENCHMARKS[cmd_name].load() if cmd_name in self.list_commands(ctx) else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's own; `run NAME` of a lab's target is `run --targets NAME`."""
        if args and not args[0].startswith("-") and args[0] in _lab_names():
            args = ["--targets", *args]
        return super().parse_args(ctx, spread(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own, with the nearest names for an unknown one."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-"):
            args = [args[0].removeprefix(f"{EVIDENCE}:"), *args[1:]]
            if args[0] not in names:
                raise click.UsageError(unknown(args[0], [*names, *_lab_names()]), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The targets and what they measure, without importing what they need."""
        with formatter.section("Targets of the lab"):
            formatter.write_dl([(each.name, each.summary) for each in targets()])
        with formatter.section("Benchmarks"):
            formatter.write_dl([(each.name, each.summary) for each in present()])


def _lab_names() -> list[str]:
    return [name for each in targets() for name in (each.name, f"{LAB}:{each.name}")]


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


@cli.command("list-targets", short_help="The lab's targets and the benchmarks, by chapter.")
@click.option("--chapter", type=click.Choice([LAB, EVIDENCE]), help="These alone.")
@click.option("--options", is_flag=True, help="Also the extra arguments that a target takes.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def list_targets_command(chapter: str | None, options: bool, form: str) -> None:
    """The lab's targets and the benchmarks that stand by themselves, as names that `run` takes."""
    emit(list_text(form, chapter, options))


@cli.group("run", cls=_Runs, invoke_without_command=True, short_help="Run targets of the lab, or one benchmark.")
@lab_options
def run_command(chapter: str, **options: Any) -> None:
    """Run targets of the lab, each as a pair of a baseline and an optimized side; without --targets all of them.

    \b
    python -m bench run --targets memory_budget moe_grouping --out results
    python -m bench run memory_budget --target-extra-arg memory_budget=--validate
    python -m bench run experts --help       (a benchmark that stands by itself)

    Exit code 6 if a check fails or an optimized side is worse than its baseline.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None:
        return
    names = options["targets"]
    plain = [name.removeprefix(f"{EVIDENCE}:") for name in names]
    evidence = [name for name in plain if name in BENCHMARKS and BENCHMARKS[name].present]
    if chapter == EVIDENCE and not evidence:
        raise click.UsageError(f"name the benchmarks: --targets {' '.join(each.name for each in present())}", ctx)
    for name in evidence:
        found = [each.partition("=") for each in options["extra"]]
        text = " ".join(value for of, _, value in found if of.rpartition(":")[2] == name)
        BENCHMARKS[name].load().main(shlex.split(text), prog_name=f"bench run {name}", standalone_mode=False)
    options["targets"] = [name for name, each in zip(names, plain, strict=True) if each not in evidence]
    options["extra"] = [each for each in options["extra"] if each.partition("=")[0].rpartition(":")[2] not in evidence]
    if options["targets"] or not evidence:
        run_lab(**options, compared=False)


@cli.command("compare", cls=LabCommand, short_help="The lab's pairs side by side: step, throughput, ratio.")
@lab_options
def compare_command(chapter: str, **options: Any) -> None:
    """Run pairs of the lab and print one line each: step_ms, throughput and the ratio of what judges.

    \b
    python -m bench compare --targets gpt_gb200 deepseek_gb200
    """
    if chapter != LAB:
        raise click.UsageError("evidence has no pairs; choose --chapter lab", click.get_current_context())
    run_lab(**options, compared=True)
