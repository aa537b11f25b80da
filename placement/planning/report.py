"""The report of a plan, or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from placement.check.case import PlanCase
from placement.check.findings import Check
from placement.check.plan import cases_of, findings_of
from placement.errors import ParameterError
from placement.planning.case import AnyTrace
from placement.planning.progress import OnProgress, Reporter
from placement.records.files import write_text
from placement.records.front import Front, load_front
from placement.records.plan import Plan
from placement.report.page.blocks import Page
from placement.report.page.build import plan_page
from placement.report.page.compare import comparison_page
from placement.report.page.evidence import Evidence, evidence_of
from placement.report.page.html import page_html
from placement.report.page.markdown import page_markdown
from placement.routing.holdout import load_trace
from placement.routing.trace import LoadCounts, Trace
from specs.documents import shown

Format = Literal["html", "markdown"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: Load windows that the judging part of a trace is cut into, to show how balance changes.
WINDOWS = 4


@dataclass(frozen=True)
class Report:
    """A report that can be written in several formats.

    Attributes:
        checks: What was checked of the plan; of two, each name begins with its plan's.
    """

    page: Page
    checks: tuple[Check, ...] = ()

    def html(self) -> str:
        """One self-contained HTML file.

        Raises:
            MissingExtraError: The extra `report` is not installed.
        """
        return page_html(self.page)

    def markdown(self) -> str:
        """Markdown, with charts in words."""
        return page_markdown(self.page)

    def text(self, kind: Format) -> str:
        """The report in that format.

        Raises:
            MissingExtraError: HTML without the extra `report`. ParameterError: No such format.
        """
        if kind not in FORMATS:
            raise ParameterError("format", f"{kind!r} is no format", f"choose {', '.join(FORMATS)}")
        return self.html() if kind == "html" else self.markdown()

    def save(self, path: str | Path) -> None:
        """Writes the report, as Markdown if the name ends in .md, else as HTML.

        Raises:
            InputError: The file can't be written. MissingExtraError: HTML without the extra `report`.
        """
        write_text(path, self.text("markdown" if Path(path).suffix == ".md" else "html"), "`out`")


def report_plan(
    plan: Plan, *, traces: Sequence[AnyTrace] = (), windows: int = WINDOWS, front: Front | str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> Report:  # fmt: skip
    """What a plan says, why, how sure it is, and what it rests on, for people.

    The plan is checked again. What its file does not hold (heat, balance by layer and window, traffic between nodes) is
    worked out again by the scorer, on the routing that judged it.

    Args:
        plan: The plan.
        traces: The recorded routing that it was solved on, objects or paths. Without it the sections that need it say
            so; synthetic routing is made again from its seed.
        windows: Load windows that each trace's judging part is cut into.
        front: The front of `plan_front`, or its file: what other TPOT limits would yield.
        on_progress: Called with a Progress at each step.

    Raises:
        InputError: A trace that can't be read, or is not one the plan was solved on.
    """
    if windows < 1:
        raise ParameterError("windows", f"{windows} windows", "give at least 1")
    if isinstance(front, str | Path):
        front = load_front(front)
    if front is not None and front.scenario != plan.scenario.name:
        problem = f"is of scenario {shown(front.scenario)}, the plan of {shown(plan.scenario.name)}"
        raise ParameterError("front", problem, "give the plan's own")
    report = Reporter(on_progress)
    report.stage("reading the routing")
    cases = cases_of(plan, traces)
    report.stage("checking the plan")
    checks = tuple(findings_of(plan, cases))
    why_not = _why_not(cases, checks)
    report.stage("scoring again", len(cases))
    evidence: list[Evidence | None] = []
    for case in cases:
        evidence.append(None if why_not else evidence_of(case, windows))
        report.advance()
    return Report(plan_page(plan, evidence, checks, why_not, front), checks)


def compare_plans(
    first: Plan,
    second: Plan,
    names: tuple[str, str] = ("first", "second"),
    *,
    traces: Sequence[AnyTrace] = (),
    on_progress: OnProgress | None = None,
) -> Report:
    """Two plans side by side, by what their files hold, each checked again.

    Args:
        names: What to call them.
        traces: The recorded routing that they were solved on, objects or paths; a plan's own are told by their content.
            Without them the figures of a plan on recorded routing stay unchecked.
        on_progress: Called with a Progress at each step.

    Raises:
        InputError: A trace that can't be read, or that neither was solved on.
    """
    report = Reporter(on_progress)
    report.stage("reading the routing")
    held = [each if isinstance(each, Trace | LoadCounts) else load_trace(each) for each in traces]
    wanted = [{each.sha256 for each in plan.provenance.inputs} for plan in (first, second)]
    if other := next((each for each in held if not any(each.sha256 in of for of in wanted)), None):
        raise ParameterError("traces", f"neither plan was solved on {other.name} (SHA-256 differs)", "leave it out")
    report.stage("checking the plans", 2)
    found = []
    for plan, of in zip((first, second), wanted, strict=True):
        mine = [each for each in held if each.sha256 in of]
        # Of some of a plan's files nothing can be derived.
        found.append(tuple(findings_of(plan, cases_of(plan, mine if len(mine) == len(plan.provenance.inputs) else ()))))
        report.advance()
    checks = tuple(
        replace(each, name=f"{name}: {each.name}") for name, of in zip(names, found, strict=True) for each in of
    )
    return Report(comparison_page(first, second, names, (found[0], found[1])), checks)


def _why_not(cases: Sequence[PlanCase], checks: Sequence[Check]) -> str:
    """Why nothing is derived from the routing, to follow the name of a figure; "" where it is."""
    failed = [check.name for check in checks if check.passed is False]
    if failed:
        return f"is not shown, as the plan fails its checks ({', '.join(failed)})."
    if why_not := next((case.why_not for case in cases if case.why_not), ""):
        return f"{why_not}: give it with --trace."
    return ""
