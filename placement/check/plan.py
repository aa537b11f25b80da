"""Checks of a whole plan file: what can be derived again is derived, the rest is called a claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from placement.check.case import MissingError, PlanCase, sources_of
from placement.check.findings import Check as Check
from placement.check.findings import claims
from placement.check.role import BASE, CHECKS, FailureError, same
from placement.errors import InputError
from placement.records.convert import engine_name, figures_record
from placement.records.plan import Mode, Plan
from placement.routing.trace import LoadCounts, Trace

#: Fields of the plan itself; all others that checks name are of a role.
_OF_PLAN = ("provenance", "timings", "scenario", "tail")

#: The mode of a plan by the roles that it has.
_MODES: dict[frozenset[str], Mode] = {
    frozenset({"aggregated"}): "aggregated",
    frozenset({"training"}): "training",
    frozenset({"prefill", "decode"}): "disaggregated",
}


def verify_plan(plan: Plan, traces: Sequence[Trace | LoadCounts | str | Path] = ()) -> tuple[Check, ...]:
    """Derives again what can be derived of a plan, and names what nothing but the plan says.

    Args:
        plan: The plan.
        traces: The recorded routing, objects or paths, in any order. Without them the figures of a plan on
            recorded routing are missing; synthetic routing is made again from its seed.

    Returns:
        Checks that passed, failed or could not be made, then claims; see `Check`.

    Raises:
        InputError: A trace that can't be read, or is not one the plan was solved on.
    """
    return tuple(findings(plan, traces))


def findings(plan: Plan, traces: Sequence[Trace | LoadCounts | str | Path]) -> Iterator[Check]:
    """Every check of `plan`, made when it is asked for, then every claim in it."""
    yield from findings_of(plan, cases_of(plan, traces))


def cases_of(plan: Plan, traces: Sequence[Trace | LoadCounts | str | Path]) -> tuple[PlanCase, ...]:
    """Every role of `plan` with its routing; see `sources_of`."""
    sources, why_not = sources_of(plan, traces)
    return tuple(PlanCase(plan, i, sources, why_not) for i in range(len(plan.roles)))


def findings_of(plan: Plan, cases: Sequence[PlanCase]) -> Iterator[Check]:
    """The findings of a plan whose roles are at hand with their routing."""
    told: list[Check] = []
    for case in cases:
        for check in _of_role(case, told):
            yield _placed(check, case)
    yield _made("total", partial(_check_total, plan))
    yield from dict.fromkeys(told)


def _of_role(case: PlanCase, told: list[Check]) -> Iterator[Check]:
    """The checks of one role; `told` gathers what it claims."""
    failed = set()
    for name, check, fields in CHECKS:
        if "split" in failed:
            yield Check(name, "missing", None, case.why_not, fields)
            continue
        made = _made(name, partial(check, case), fields)
        yield made
        if made.passed is False:
            failed.add(name)
            if name in BASE:
                case = replace(case, why_not=f"not made: {name} failed")
    known = () if case.why_not or "bounds" in failed else case.proven
    told += [_placed(claim, case) for claim in claims(case, known)]


def _made(name: str, check: Callable[[], str], fields: tuple[str, ...] = ()) -> Check:
    try:
        return Check(name, "checked", True, check())
    except MissingError as why:
        return Check(name, "missing", None, str(why), fields)
    except (FailureError, InputError) as failure:
        return Check(name, "checked", False, str(failure))


def _placed(check: Check, case: PlanCase) -> Check:
    """The finding under its role's name, where there are several, with the paths of its fields in the file."""
    fields = tuple(
        field if field.split(".")[0] in _OF_PLAN else f"roles[{case.index}].{field}" for field in check.fields
    )
    several = len(case.plan.roles) > 1 and any(field.startswith("roles") for field in fields or ("roles",))
    return replace(check, name=f"{case.role.role} {check.name}" if several else check.name, fields=fields)


def _check_total(plan: Plan) -> str:
    """The mode, the engine and the figures of all roles together."""
    kinds = {role.role for role in plan.roles}
    same("mode", plan.mode, _MODES.get(frozenset(kinds), "mixed"))
    same("engine", plan.engine, engine_name(plan.scenario.spec, plan.roles))
    same("predicted", plan.predicted, figures_record(plan.scenario.spec, plan.roles))
    return f"{plan.predicted.tokens_per_s.value:,.0f} tokens/s follow from the figures of the roles"
