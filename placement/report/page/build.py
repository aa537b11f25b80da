"""Puts a report together: a page of sections for one plan."""

from __future__ import annotations

from collections.abc import Sequence

from placement.check.findings import Check
from placement.records.front import Front
from placement.records.plan import Plan
from placement.records.role import RolePlan
from placement.report.page.blocks import Page, Section
from placement.report.page.evidence import Evidence
from placement.report.page.sections.answer import answer, lead
from placement.report.page.sections.certificate import certificate, checks
from placement.report.page.sections.experts import balance_section, placement_section
from placement.report.page.sections.front import front_section
from placement.report.page.sections.memory import memory, step
from placement.report.page.sections.sources import assumptions, sources
from placement.report.page.sections.strategies import strategies
from placement.report.page.sections.traffic import traffic_section
from placement.report.page.sections.words import told


def plan_page(
    plan: Plan, evidence: Sequence[Evidence | None], found: Sequence[Check], why_not: str, front: Front | None = None
) -> Page:
    """The report of a plan.

    Args:
        plan: The plan.
        evidence: Of each role; None where the routing is not at hand.
        found: What was checked of the plan.
        why_not: Why evidence is missing, to follow the name of a figure.
        front: Deployments under other TPOT limits, where they were worked out.
    """
    several = len(plan.roles) > 1
    roles: list[Section] = []
    for role, of_role in zip(plan.roles, evidence, strict=True):
        parts = _role(plan, role, of_role, why_not)
        roles += [Section(f"Role: {role.role}", (), parts)] if several else parts
    fronts = () if front is None else (front_section(front),)
    closing = (assumptions(plan), checks(found), sources(plan))
    return Page(told(plan.scenario.name, 80), lead(plan), (answer(plan), *fronts, *roles, *closing))


def _role(plan: Plan, role: RolePlan, evidence: Evidence | None, why_not: str) -> tuple[Section, ...]:
    time = step(role)
    return (
        strategies(plan, role),
        memory(role),
        *([] if time is None else [time]),
        placement_section(role, evidence, why_not),
        balance_section(role, evidence, why_not),
        traffic_section(role, evidence, why_not),
        certificate(plan, role),
    )
