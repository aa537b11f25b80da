"""A published-style layout against the solved one, both priced by the planner on the same GPUs."""

from __future__ import annotations

from typing import Any

from bench.lab.render import shown
from bench.lab.studies import missed
from bench.lab.target import Drawing, Figure, LabCase, Outcome, Table, fits_serving
from placement.errors import InfeasibleError
from placement.records.plan import Plan
from placement.records.rival import RivalRecord
from specs.scenario import Scenario

#: GPUs of a node from which on it is a rack.
RACK = 36


def fits_rack(scenario: Scenario, model: str) -> str:
    """Why a scenario is no study of a model family on racks; "" where it is."""
    if reason := fits_serving(scenario):
        return reason
    if not scenario.model.name.replace("-", "_").lower().startswith(model):
        return f"its model is {scenario.model.name}, not {model}"
    if scenario.cluster.gpus_per_node < RACK:
        return f"a node has {scenario.cluster.gpus_per_node} GPUs: it is no rack"
    return ""


def published(case: LabCase[Any]) -> Outcome:
    """The best published recipe at its best on these GPUs; whole requests in one kind of instance where none fits."""
    plan = case.plan(told=True)
    rival = _best(plan)
    if rival is None or rival.tokens_per_s is None:
        alone = _aggregated(case)
        if alone is None:
            return _solved(case, plan, "no published recipe fits; the planner's own")
        return _solved(case, alone, "aggregated instances (no published recipe fits)")
    per_gpu = Figure("tokens/s a GPU", rival.tokens_per_s / case.scenario.cluster.gpus, "", "higher")
    return Outcome(rival.name, rival.tpot_ms, rival.tokens_per_s, figures=(per_gpu, *_ttft(rival.ttft_ms)))


def solved(case: LabCase[Any]) -> Outcome:
    """The planner's choice, with what it was chosen among."""
    plan = case.plan(told=True)
    alone, choice = _aggregated(case), plan.choice
    made = _solved(case, plan, f"solved: {_kinds(plan)}")
    rows: list[tuple[str, ...]] = []
    held: list[str] = []
    for rival in choice.rivals if choice else ():
        kinds = " + ".join(f"{each.count} {each.role} {each.degrees}" for each in rival.roles)
        rows.append((rival.name, shown(rival.tokens_per_s), shown(rival.ttft_ms), shown(rival.tpot_ms)))
        held.append(f"{rival.name}\n    {kinds}")
    if alone is not None:
        rows.append(("whole requests", shown(_priced(alone)), *_times(alone)))
        held.append(f"whole requests\n    {_kinds(alone)}")
    rows.append(("solved", shown(_priced(plan)), *_times(plan)))
    held.append(f"solved\n    {_kinds(plan)}")
    header = ("layout", "tokens/s", "TTFT ms", "TPOT ms")
    against = Table("Layouts on these GPUs, priced alike", header, tuple(rows), len(rows) - 1)
    roles = tuple(
        (
            f"{role.role} {role.degrees}", str(role.split.instances), str(role.split.batch), str(role.slots_per_gpu),
            str(role.split.redundant), f"{role.own.balancedness:.3f}" if role.own else "-",
            shown(role.own.nodes_per_token if role.own else None), ", ".join(role.binds) or "-",
        )
        for role in plan.roles
    )  # fmt: skip
    placed = Table(
        "Expert placement of each role",
        ("role", "instances", "batch", "slots a GPU", "redundant", "balancedness", "nodes a token", "binds"), roles,
    )  # fmt: skip
    sources = [f"{rival.name}: {rival.source}" for rival in (choice.rivals if choice else ())]
    spec = case.scenario.name
    return Outcome(
        made.label, made.step_ms, made.throughput, figures=made.figures, tables=(against, placed),
        drawings=(Drawing("Instances of each layout", "\n".join(held)),),
        notes=(*sources, *missed(plan)), tie=why_tied(plan),
        production=(
            f"placement solve --spec {spec} --engine vllm --out plan.json",
            "placement verify plan.json",
            "placement export plan.json --to vllm --out deploy   # maps and launch files of each role",
        ),
    )  # fmt: skip


def why_tied(plan: Plan) -> str:
    """Why the best published recipe serves as much as the planner's instances."""
    rival = _best(plan)
    if rival is None:
        return "no published recipe fits: both sides are the planner's own"
    theirs = {(each.count, each.role, each.degrees) for each in rival.roles}
    ours = {(role.split.instances, role.role, role.degrees) for role in plan.roles}
    if theirs == ours:
        return "the best published recipe comes to the same instances"
    if shared := sorted(theirs & ours):
        kinds = " + ".join(f"{count} {role} {degrees}" for count, role, degrees in shared)
        return f"both have {kinds}, and these limit the whole; the other role's instances differ"
    return "its instances differ, yet are priced alike: choose by TTFT and by what you can run"


def _best(plan: Plan) -> RivalRecord | None:
    rivals = [rival for rival in (plan.choice.rivals if plan.choice else ()) if rival.feasible]
    return max(rivals, key=lambda rival: rival.tokens_per_s or 0.0, default=None)


def _aggregated(case: LabCase[Any]) -> Plan | None:
    try:
        return case.plan(mode="aggregated")
    except InfeasibleError:
        return None


def _priced(plan: Plan) -> float:
    """As instances are compared with recipes: with quickly placed experts."""
    return plan.choice.priced_tokens_per_s if plan.choice else plan.predicted.tokens_per_s.value


def _kinds(plan: Plan) -> str:
    return " + ".join(f"{role.split.instances} {role.role} {role.degrees}" for role in plan.roles)


def _times(plan: Plan) -> tuple[str, str]:
    told = plan.predicted
    return shown(told.ttft_ms.value if told.ttft_ms else None), shown(told.tpot_ms.value if told.tpot_ms else None)


def _ttft(value: float | None) -> tuple[Figure, ...]:
    return () if value is None else (Figure("TTFT", value, "ms", "lower"),)


def _solved(case: LabCase[Any], plan: Plan, label: str) -> Outcome:
    told = plan.predicted
    per_gpu = Figure("tokens/s a GPU", _priced(plan) / case.scenario.cluster.gpus, "", "higher")
    tpot = told.tpot_ms.value if told.tpot_ms else None
    ttft = told.ttft_ms.value if told.ttft_ms else None
    return Outcome(label, tpot, _priced(plan), figures=(per_gpu, *_ttft(ttft)))
