"""Checks of a whole plan file: what can be derived again is derived, the rest is called a claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from placement.check.case import TOLERANCE, MissingError, PlanCase, sources_of
from placement.check.certificate import witnesses_of
from placement.check.deployment import HeldGpus, Kind, deployment_faults
from placement.check.failure import FailureError, require, same
from placement.check.findings import Check as Check
from placement.check.findings import claims
from placement.check.role import BASE, CHECKS
from placement.errors import InputError
from placement.records.convert import engine_name, figures_record, mode_of_roles
from placement.records.plan import Plan
from placement.records.simulated import simulated_again
from placement.routing.trace import LoadCounts, Trace
from specs.documents import shown
from specs.scenario import Scenario

#: Fields of the plan itself; all others that checks name are of a role.
_OF_PLAN = ("provenance", "timings", "scenario", "tail")


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
    (sources, why_not), witnesses = sources_of(plan, traces), witnesses_of(plan)
    return tuple(PlanCase(plan, i, sources, why_not, witnesses) for i in range(len(plan.roles)))


def findings_of(plan: Plan, cases: Sequence[PlanCase]) -> Iterator[Check]:
    """The findings of a plan whose roles are at hand with their routing."""
    told: list[Check] = []
    for case in cases:
        for check in _of_role(case, told):
            yield _placed(check, case)
    if plan.witness is not None:
        yield _made("witness", partial(_check_witness, cases[0]), ("witness",))
    yield _made("nodes", partial(_check_nodes, plan))
    yield _made("total", partial(_check_total, plan))
    if plan.demand is not None:
        yield _made("demand", partial(_check_demand, plan), ("demand",))
    yield from dict.fromkeys(told)
    if plan.choice is not None:
        yield Check(
            "choice", "claimed", None, "how the instances were chosen, its bound and what came next", ("choice",)
        )
    if plan.demand is not None and plan.demand.hold is not None:
        yield Check("hold", "claimed", None, "up to which load p95 holds, and with how many GPUs", ("demand.hold",))


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
    proofs = () if case.why_not or "bounds" in failed else case.proofs
    told += [_placed(claim, case) for claim in claims(case, proofs)]


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


def _check_witness(case: PlanCase) -> str:
    """The file beside the plan is the one that the plan names."""
    witnesses = case.witnesses
    require(not witnesses.fault, witnesses.fault)
    if witnesses.roles is None:
        raise MissingError(witnesses.why_not)
    return f"{witnesses.size / 1e3:,.0f} kB of prices, as the plan names them"


def _check_total(plan: Plan) -> str:
    """The mode, the engine and the figures of all roles together."""
    same("mode", plan.mode, mode_of_roles(plan.roles))
    choice = plan.choice
    if choice is not None:
        require(choice.kept <= choice.considered, f"choice.kept {choice.kept} is more than {choice.considered}")
        if choice.goal == "rate" and choice.bound is not None:
            over = choice.bound / choice.priced_tokens_per_s - 1.0 if choice.priced_tokens_per_s else 0.0
            require(over >= -TOLERANCE, "choice.bound is below what was found")
            wanted = 0.0 if choice.status == "optimal" else over
            require(
                abs((choice.gap or 0.0) - wanted) <= TOLERANCE, f"choice.gap is not {wanted:g}, as the bound gives it"
            )
        for i, rival in enumerate(choice.rivals):
            sizes = [each.tp * each.dp * each.pp for each in rival.roles]
            require(sizes == [each.gpus for each in rival.roles], f"choice.rivals[{i}] has instances of other degrees")
            total = sum(size * each.count for size, each in zip(sizes, rival.roles, strict=True))
            require(rival.gpus == total, f"choice.rivals[{i}].gpus {rival.gpus} is not {total}, as its instances take")
    same("engine", plan.engine, engine_name(plan.scenario.spec, plan.roles))
    same("predicted", plan.predicted, figures_record(plan.scenario.spec, plan.roles))
    return f"{plan.predicted.tokens_per_s.value:,.0f} tokens/s follow from the figures of the roles"


def _check_demand(plan: Plan) -> str:
    """The simulation, made again with its seed."""
    again = simulated_again(plan)
    if again is None or plan.demand is None:
        raise MissingError("needs the record of requests, which the plan does not hold")
    same("demand", plan.demand.model_copy(update={"hold": None}), again)
    if plan.demand.hold is not None and again.holds_p95:
        raise FailureError("demand.hold says what it takes to hold the 95th percentile, which holds")
    return f"{again.simulated:,} requests, simulated again, fare as the plan says"


def _check_nodes(plan: Plan) -> str:
    """Instances lie on the nodes of their pools, each whole; of one kind, in order."""
    if len(plan.roles) == 1:
        role = plan.roles[0]
        cluster = plan.scenario_of(role).cluster
        if plan.nodes or role.gpus > cluster.gpus:
            raise FailureError(f"instances of one kind lie on the {cluster.gpus} GPUs in order; nodes are not listed")
        return f"{role.gpus} of {cluster.gpus} GPUs, in order"
    pools: dict[str, Scenario] = {plan.scenario.spec.cluster.name: plan.scenario.spec}
    for role in plan.roles:
        scenario = plan.scenario_of(role)
        pools.setdefault(scenario.cluster.name, scenario)
    order = list(pools)
    unknown = next((group.pool for group in plan.nodes if group.pool not in pools), None)
    if unknown is not None:
        raise FailureError(f"nodes are of pool {shown(unknown)}, which no role runs on")
    kinds = [
        Kind(
            order.index(plan.scenario_of(role).cluster.name),
            role.role,
            role.split.split(),
            role.split.instances,
            None,
            None,
        )
        for role in plan.roles
    ]
    held = [
        HeldGpus(order.index(group.pool), group.nodes, {part.instance: part.gpus for part in group.holds})
        for group in plan.nodes
    ]
    faults = deployment_faults(list(pools.values()), kinds, held)
    if faults:
        raise FailureError("; ".join(faults))
    for group in plan.nodes:
        if len({part.instance for part in group.holds}) < len(group.holds):
            raise FailureError("a node lists instances of one role twice")
        for part in group.holds:
            size = kinds[part.instance].split.gpus_per_instance
            room = pools[group.pool].cluster.gpus_per_node
            if part.gpus % part.count or part.gpus // part.count not in (size % room, min(size, room)):
                raise FailureError(f"{part.count} instances of {size} GPUs don't take {part.gpus} of a node")
    return f"{sum(group.nodes for group in plan.nodes)} nodes hold every instance whole"
