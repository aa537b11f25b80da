"""What a target of the lab is: the contract between a target's file and the harness.

A file of `bench/lab/targets` defines `TARGET`, a Target, under the file's own name. At its top it imports this module
and the standard library alone, so that listing is quick; its functions import what they need. Longer work lies in a
package beside (`bench/lab/NAME/`); one study of several targets has a function there that makes them (`rack_target`).

    @dataclass(frozen=True)
    class Options:
        fabric: Literal["ib", "ethernet"] = option("ib", "Between nodes.")

    def baseline(case: LabCase[Options]) -> Outcome:
        plan = case.plan(strategy="hash")
        return Outcome("hash placement", step_ms=..., throughput=plan.predicted.tokens_per_s)

    TARGET = Target("custom_cluster", "A cluster of one's own.", baseline, optimized, options=Options)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from placement.cli.options import DEFAULT_SPEC

if TYPE_CHECKING:
    from bench.lab.planner import Planner
    from placement.records.plan import Plan
    from specs.scenario import Scenario

#: minimal: seconds a target, a little search. full: as the planner does by default.
Profile = Literal["minimal", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

#: The lab's own chapter, and that of the benchmarks which stand by themselves.
LAB, EVIDENCE = "lab", "evidence"


@dataclass(frozen=True)
class NoOptions:
    """Of a target that takes no extra arguments."""


O = TypeVar("O")  # noqa: E741 - the target's own class of options


def option(default: Any, told: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a target's Options, which becomes the extra argument `--name`.

    Its annotation says what it takes: bool (a flag), int, float, str, a Literal of texts (a choice), or one of these or
    None. Underscores become dashes.

    Args:
        default: The value where it is not given.
        told: One line of help.
        least: Least number. most: Largest number.
    """
    return field(default=default, metadata={"told": told, "least": least, "most": most})


@dataclass(frozen=True)
class LabCase(Generic[O]):
    """What a side of a pair is given; both sides get the same.

    Attributes:
        scenario: What is planned.
        options: The target's extra arguments.
        profile: How much is searched.
        planner: Plans with the profile's budgets, and remembers what it planned in this run.
    """

    scenario: Scenario
    options: O
    profile: Profile
    planner: Planner

    def plan(self, scenario: Scenario | None = None, **asked: Any) -> Plan:
        """A plan of the scenario (or another one), with the profile's budget; see Planner.plan."""
        return self.planner.plan(scenario or self.scenario, **asked)


@dataclass(frozen=True)
class Figure:
    """A figure that both sides have, or one of them.

    Attributes:
        better: Which way is better; "" where neither is.
    """

    name: str
    value: float
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""


@dataclass(frozen=True)
class Table:
    """A table of text: the first column is words, the others are figures.

    Attributes:
        marked: The row that is the answer, or None.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: int | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure as text of at most 80 columns, such as a chart of bars or a Gantt chart."""

    title: str
    text: str


@dataclass(frozen=True)
class Attachment:
    """A file that `--out` writes beside the summaries; an .svg is shown in Markdown.

    Attributes:
        name: The file's name, unique in its target, with its ending: gantt.svg, env.sh.
        content: The whole text.
    """

    name: str
    title: str
    content: str


@dataclass(frozen=True)
class Finding:
    """A check of the answer by another way; one that fails ends the run with exit code 6.

    Attributes:
        detail: What was compared: both figures, or the rule that was broken.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What one side comes to. Every figure is computed by the planner's scorer, or counted; none is written down.

    Attributes:
        label: What the side is, in a few words: "hash placement".
        step_ms: Milliseconds of a step: a decode step, or a training step; None where the study has none.
        throughput: Of the cluster; None where the study has none.
        throughput_unit: Such as "tokens/s", which are output tokens/s of serving.
        figures: The study's other key figures, in order.
        tables: Details.
        drawings: Charts as text.
        notes: What to know, a sentence or two each.
        attachments: Files.
        findings: Checks.
        tie: Of an optimized side that is no better: why.
        production: What to do outside the lab, in order: commands, with " # why" after them, and sentences, which end
            with a period.
    """

    label: str
    step_ms: float | None = None
    throughput: float | None = None
    throughput_unit: str = "tokens/s"
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    notes: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    findings: tuple[Finding, ...] = ()
    tie: str = ""
    production: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[Figure, ...]:
        """Every figure that two sides are compared by."""
        own: Sequence[Figure | None] = (
            None if self.step_ms is None else Figure("step_ms", self.step_ms, "ms", "lower"),
            None if self.throughput is None else Figure("throughput", self.throughput, self.throughput_unit, "higher"),
        )
        return (*(each for each in own if each is not None), *self.figures)

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, "step_ms" and "throughput" among them."""
        return next((each for each in self.compared if each.name == name), None)


def fits_any(scenario: Scenario) -> str:
    """Every scenario fits."""
    return ""


def fits_serving(scenario: Scenario) -> str:
    """Why a scenario does not fit a study of serving, or ""."""
    return "" if scenario.workload.kind == "serving" else f"the workload {scenario.workload.name} is training"


def fits_training(scenario: Scenario) -> str:
    """Why a scenario does not fit a study of training, or ""."""
    return "" if scenario.workload.kind == "training" else f"the workload {scenario.workload.name} is serving"


@dataclass(frozen=True)
class Target(Generic[O]):
    """A study.

    Attributes:
        name: Also the file's.
        summary: One line: what the optimized side does that the baseline does not.
        baseline: The side that is compared with.
        optimized: The planner's side.
        options: The class of its extra arguments: a frozen dataclass whose fields are made by `option`.
        judged_by: The figure by which the optimized side is never worse: "throughput", "step_ms", or one of `figures`
            that says which way is better.
        fits: Why a scenario can't be studied, in a few words; "" where it can.
        spec: The scenario that is taken where none is named.
        example: Extra arguments to try first, such as "--fabric ethernet": the knob of its documentation.
        chapter: What `list-targets --chapter` sorts by.
    """

    name: str
    summary: str
    baseline: Callable[[LabCase[O]], Outcome]
    optimized: Callable[[LabCase[O]], Outcome]
    options: type[O] = NoOptions  # type: ignore[assignment]
    judged_by: str = "throughput"
    fits: Callable[[Scenario], str] = fits_any
    spec: str = DEFAULT_SPEC
    example: str = ""
    chapter: str = LAB

    @property
    def option_fields(self) -> tuple[dataclasses.Field[Any], ...]:
        """The fields of its options."""
        return dataclasses.fields(self.options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PairResult:
    """Both sides of a target on a scenario: what is written as JSON, as it stands.

    Attributes:
        extra: Extra arguments, as given.
        seconds: Wall-clock time of both sides; not written.
    """

    target: str
    chapter: str
    summary: str
    scenario: str
    profile: Profile
    judged_by: str
    extra: str
    baseline: Outcome
    optimized: Outcome
    seconds: float = field(default=0.0, compare=False)

    @property
    def folder(self) -> str:
        """Where its files lie below --out. A scenario of any name has one folder there, and none elsewhere."""
        plain = re.sub(r"[^\w.+-]+", "_", self.scenario)
        return f"{plain if plain.strip('.') else '_'}/{self.target}"
