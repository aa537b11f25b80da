"""Runs pairs: chooses targets by name, gives both sides the same case, and judges one against the other."""

from __future__ import annotations

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.lab.arguments import flag_of, read_options
from bench.lab.planner import Planner
from bench.lab.target import LAB, LabCase, PairResult, Profile, Target
from placement.errors import CheckFailedError, InputError
from specs.scenario import Scenario

#: Figures this near, relatively, are a tie.
TIE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """How the optimized side stands to the baseline by the figure that judges.

    Attributes:
        gain: Share by which it is better; below 0 where it is worse, None where a side lacks the figure.
        kind: "better", "tie" or "worse".
    """

    figure: str
    gain: float | None
    kind: Literal["better", "tie", "worse"]
    reason: str


@dataclass(frozen=True)
class Skipped:
    """A target that a scenario does not fit."""

    target: str
    scenario: str
    reason: str


@dataclass(frozen=True)
class Asked:
    """What a run is asked.

    Attributes:
        extra: Extra arguments by target.
        named: Whether the user named the targets and one scenario: then a target that does not fit is an error.
    """

    targets: tuple[Target[Any], ...]
    profile: Profile = "minimal"
    seed: int = 0
    workers: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)
    named: bool = False


def named(known: Sequence[Target[Any]], name: str) -> Target[Any]:
    """The target of a name, with its chapter before it or without: "memory_budget", "lab:memory_budget".

    Raises:
        InputError: There is none; the message names those that there are.
    """
    chapter, _, plain = name.rpartition(":")
    for target in known:
        if target.name == plain and chapter in ("", target.chapter):
            return target
    names = [target.name for target in known]
    near = difflib.get_close_matches(plain, names, n=2)
    mend = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
    raise InputError("--targets", "", f"no target {name!r}", mend)


def run_pair(target: Target[Any], scenario: Scenario, asked: Asked, planner: Planner) -> PairResult | Skipped:
    """Both sides of a target on a scenario.

    Raises:
        InputError: Extra arguments that the target does not take, or a scenario that a named target does not fit.
    """
    text = asked.extra.get(target.name, "")
    options = read_options(target, text)
    if reason := target.fits(scenario):
        if asked.named:
            raise InputError(scenario.name, "", f"does not fit {target.name}: {reason}", "give another --spec")
        return Skipped(target.name, scenario.name, reason)
    began = time.perf_counter()
    case: LabCase[Any] = LabCase(scenario, options, asked.profile, planner)
    try:
        baseline = target.baseline(case)
        optimized = target.optimized(case)
    except InputError as error:
        if (flag := flag_of(target, error.source)) is None:
            raise
        where = f"--target-extra-arg {target.name}: {flag}"
        raise InputError(where, error.field, error.problem, error.mend) from None
    return PairResult(
        target.name, target.chapter, target.summary, scenario.name, asked.profile, target.judged_by, text,
        baseline, optimized, time.perf_counter() - began,
    )  # fmt: skip


def verdict(result: PairResult) -> Verdict:
    """How the optimized side stands to the baseline."""
    before, after = result.baseline.figure(result.judged_by), result.optimized.figure(result.judged_by)
    if before is None or after is None:
        return Verdict(result.judged_by, None, "tie", result.optimized.tie)
    better = after.value - before.value if after.better != "lower" else before.value - after.value
    if abs(better) <= TIE * max(abs(before.value), abs(after.value)):
        return Verdict(result.judged_by, 0.0, "tie", result.optimized.tie)
    gain = better / before.value if before.value else float("inf")
    return Verdict(result.judged_by, gain, "better" if better > 0 else "worse", "")


def faults(result: PairResult) -> list[str]:
    """What is wrong with a pair: checks that failed, an optimized side that is worse, a tie without a reason."""
    told = verdict(result)
    found = [
        f"{result.target} ({side}): {each.name}: {each.detail}"
        for side, outcome in (("baseline", result.baseline), ("optimized", result.optimized))
        for each in outcome.findings
        if not each.passed
    ]
    if told.kind == "worse" and told.gain is not None:
        found.append(f"{result.target}: {told.figure} is {-told.gain:.3%} worse than the baseline's")
    if told.kind == "tie" and not told.reason:
        found.append(f"{result.target}: the sides tie by {told.figure} and nothing says why")
    return found


def check(results: Sequence[PairResult]) -> None:
    """Raises CheckFailedError, which names what is wrong, if anything is."""
    found = [fault for result in results for fault in faults(result)]
    if found:
        raise CheckFailedError("; ".join(found))


def read_extra(known: Sequence[Target[Any]], given: Sequence[str], others: Sequence[str] = ()) -> dict[str, str]:
    """`NAME=TEXT` of --target-extra-arg by the target's plain name; several of one target are joined.

    Raises:
        InputError: No such target, or no "=".
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise InputError("--target-extra-arg", "", f"{each!r} has no '='", 'write NAME="--flag value"')
        plain = name.rpartition(":")[2]
        plain = plain if plain in others else named(known, name).name
        found[plain] = f"{found.get(plain, '')} {text}".strip()
    return found


def of_chapter(known: Sequence[Target[Any]], chapter: str = LAB) -> tuple[Target[Any], ...]:
    """The targets of a chapter."""
    return tuple(target for target in known if target.chapter == chapter)
