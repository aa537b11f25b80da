"""The lab's part of `python -m bench`: which pairs are asked for, and where their results go."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import click

from bench.lab.target import EVIDENCE, LAB, PROFILES, Target

FORMATS = ("table", "markdown", "json")

_OPTIONS = (
    click.option(
        "--chapter", type=click.Choice([LAB, EVIDENCE]), default=LAB, show_default=True, help="The targets' chapter."
    ),
    click.option(
        "--targets", multiple=True, metavar="NAME ...",
        help="These targets, such as memory_budget or lab:memory_budget. Default: all of the lab.",
    ),
    click.option(
        "--profile", type=click.Choice(PROFILES), default="minimal", show_default=True,
        help="minimal: seconds a target. full: as much search as the planner does by default.",
    ),
    click.option(
        "--target-extra-arg", "extra", multiple=True, metavar='NAME="--flag value"',
        help="Arguments of one target, for both sides; 'list-targets --options' lists them. Repeatable.",
    ),
    click.option(
        "--spec", "specs", multiple=True, metavar="NAME|FILE",
        help="The scenario. Default: each target's own. Repeatable; 'all' is every scenario of the catalog.",
    ),
    click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True),
    click.option("--out", metavar="DIR", help="Also write JSON and Markdown there, of each target and of all."),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, metavar="N"),
    click.option("--workers", type=click.IntRange(0, 1024), default=0, metavar="N", help="0: one per core."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
)  # fmt: skip


def lab_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `run` and `compare`."""
    return reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), function)


def spread(args: Sequence[str]) -> list[str]:
    """`--targets a b` as `--targets a --targets b`: click takes one value an option."""
    found: list[str] = []
    several = False
    for arg in args:
        if arg.startswith("-"):
            several = arg == "--targets"
            found.append(arg)
        elif several and found[-1] != "--targets":
            found += ["--targets", arg]
        else:
            found.append(arg)
    return found


class LabCommand(click.Command):
    """A command whose --targets takes several names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's own, with --targets spread out."""
        return super().parse_args(ctx, spread(args))


def unknown(name: str, known: Sequence[str], what: str = "benchmark") -> str:
    """What is said of a name that nothing has."""
    plain = name.rpartition(":")[2]
    near = difflib.get_close_matches(plain, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(known)}"
    return f"no {what} {name!r}; {hint}"


def run_lab(
    *, targets: Sequence[str], profile: Any, extra: Sequence[str], specs: Sequence[str], form: str, out: str | None,
    seed: int, workers: int, quiet: bool, compared: bool,
) -> None:  # fmt: skip
    """Runs the lab's targets of these names, or all, and tells.

    Raises:
        InputError: A name, argument or scenario that does not fit. CheckFailedError: a check failed, or an optimized
            side is worse; everything is told and written first.
    """
    from bench.lab import render
    from bench.lab.discover import targets as every
    from bench.lab.harness import Asked, Skipped, check, named, of_chapter, read_extra
    from bench.lab.target import PairResult
    from placement.cli.progress import ProgressBar
    from placement.cli.running import emit

    known = of_chapter(every())
    chosen = tuple(dict.fromkeys(named(known, name) for name in targets)) or known
    names = _specs(specs)
    if out is not None:
        _check_folder(out)
    asked = Asked(chosen, profile, seed, workers, read_extra(known, extra), bool(targets) and len(names) == 1)
    results: list[PairResult] = []
    skipped: list[Skipped] = []
    with ProgressBar(quiet) as progress:
        for result in _pairs(asked, names, progress):
            if isinstance(result, PairResult):
                results.append(result)
                if out is not None:
                    write_pair(Path(out), result)
            else:
                skipped.append(result)
    if form == "json":
        emit(render.json_text(results, skipped))
    elif form == "markdown":
        emit(render.markdown_summary(results, skipped, whole=not compared))
    else:
        emit((render.comparison if compared else render.screen)(results, skipped))
    if out is not None:
        _put(Path(out) / "summary.json", render.json_text(results, skipped))
        _put(Path(out) / "summary.md", render.markdown_summary(results, skipped))
    check(results)


def _specs(given: Sequence[str]) -> list[str]:
    from specs.loading import list_catalog

    if "all" in given:
        return [entry.name for entry in list_catalog("scenario")]
    return list(given)


def _pairs(asked: Any, specs: Sequence[str], progress: Callable[[Any], None]) -> Iterator[Any]:
    """Each target on each scenario that it is asked of."""
    from bench.lab.arguments import read_options
    from bench.lab.sweep import Share, pairs
    from placement.planning.case import load_scenario

    for target in asked.targets:
        read_options(target, asked.extra.get(target.name, ""))  # before anything takes long
    names = specs or list(dict.fromkeys(target.spec for target in asked.targets))
    scenarios = [load_scenario(name) for name in names]
    shares = [
        Share(scenario, tuple(target for target in asked.targets if specs or target.spec == name), asked)
        for name, scenario in zip(names, scenarios, strict=True)
    ]
    yield from pairs(shares, asked, progress)


def write_pair(folder: Path, result: Any) -> None:
    """A pair's NAME.json, NAME.md and attachments, in a folder of the scenario's and the target's name.

    Raises:
        InputError: A file can't be written.
    """
    from bench.lab import render
    from placement.records.files import json_text

    own = folder / result.folder
    _put(own / f"{result.target}.json", json_text(render.record(result)))
    _put(own / f"{result.target}.md", render.markdown(result))
    for side in (result.baseline, result.optimized):
        for each in side.attachments:
            _put(own / each.name, each.content)


def _check_folder(folder: str) -> None:
    """Finds out before long work whether files can be written in a folder, which need not be there yet."""
    from placement.errors import InputError
    from placement.records.files import check_writable

    if not folder.strip():
        raise InputError("--out", "", "is empty", "name a folder")
    there = Path(folder)
    while not there.exists() and there != there.parent:
        there = there.parent
    check_writable(there / "summary.json", "--out")


def _put(path: Path, text: str) -> None:
    from placement.errors import InputError
    from placement.records.files import write_text

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", "", f"{path.parent} can't be made: {error.strerror}", "name a folder") from None
    write_text(path, text, "--out")


def list_text(form: str, chapter: str | None, options: bool) -> str:
    """The targets of a chapter, or of all: names, what they do and, with `options`, their extra arguments."""
    import json

    from bench.lab.arguments import described
    from bench.lab.discover import targets
    from bench.lab.render import markdown_table
    from bench.registry import present

    rows: list[tuple[str, str, str, Target[Any] | None]] = [(t.chapter, t.name, t.summary, t) for t in targets()]
    rows += [(EVIDENCE, each.name, each.summary, None) for each in present()]
    rows = [row for row in rows if chapter in (None, row[0])]
    if form == "json":
        data = [
            {
                "chapter": of, "name": name, "summary": summary, "spec": target.spec if target else None,
                "options": [
                    {"argument": a, "default": d, "help": h} for a, d, h in (described(target) if target else ())
                ],
            }
            for of, name, summary, target in rows
        ]  # fmt: skip
        return json.dumps(data, indent=1)
    if form == "markdown":
        return markdown_table(
            ("target", "what it shows", "a knob to turn"),
            [(f"`{of}:{name}`", s, f"`{t.example}`" if t and t.example else "") for of, name, s, t in rows],
        )
    lines = []
    for of, name, summary, target in rows:
        lines += [f"{of}:{name}", *_wrapped(summary, "    ")]
        for argument, default, told in described(target) if options and target else ():
            lines += [f"      {argument}", *_wrapped(f"{told}{f' [{default}]' if default else ''}", "          ")]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    from placement.report.text import screen_width

    return textwrap.wrap(text, screen_width(), initial_indent=indent, subsequent_indent=indent)
