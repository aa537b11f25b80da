"""HBM of each role by line, the steps that free it, and what each frees and buys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.lab.memory.recount import cache_bytes, parameters
from bench.lab.render import shown
from bench.lab.studies import Configured, configured, role_name, shared_out, split_on
from bench.lab.target import Figure, Finding, LabCase, Outcome, Table
from placement.cost.memory.local import stored_bytes, total_of
from placement.errors import InputError
from placement.problem.engine_rules import Layout, load_problem
from placement.problem.split import Split, ep_problem, least_redundant, redundant_problem, tp_problem
from placement.records.plan import Plan
from placement.records.role import RolePlan
from specs.fields import bytes_of
from specs.overrides import overridden
from specs.parameters import count_parameters
from specs.scenario import Scenario

GB = 1e9
#: What two counts of the same may differ by.
TOLERANCE = 0.01
#: Tokens/s this near, relatively, are the same.
SAME = 1e-9
#: A step that costs balance, which is not seen where experts are taken as balanced: it is told, and never taken.
REDUNDANT = "redundant experts"


@dataclass(frozen=True)
class Asked:
    """What the study may change that changes answers: types of weights and cache; "keep" leaves them."""

    kv: str = "fp8"
    experts: str = "keep"


@dataclass(frozen=True)
class Setting:
    """A role's scenario and split."""

    scenario: Scenario
    split: Split


#: A change of a setting; None where it can't be made.
Change = Callable[[Setting], Setting | None]


@dataclass(frozen=True)
class Step:
    """One step on a role's HBM.

    Attributes:
        freed: Bytes of the fullest GPU at the plan's batch, by this step alone.
        batch, tokens_per_s: Of the role with this step alone. taken: Whether it is part of the optimized side.
    """

    role: str
    name: str
    freed: float
    batch: int
    tokens_per_s: float
    taken: bool


@dataclass(frozen=True)
class RoleMemory:
    """A role before and after its steps."""

    role: RolePlan
    before: Configured
    after: Configured
    steps: tuple[Step, ...]


def study(case: LabCase[Any], asked: Asked) -> tuple[Plan, tuple[RoleMemory, ...]]:
    """The plan and what its roles' HBM could be."""

    def make() -> tuple[Plan, tuple[RoleMemory, ...]]:
        plan = case.plan()
        return plan, tuple(_freed(plan, role, asked) for role in plan.roles)

    return case.planner.once(("memory", case.scenario.model_dump_json(), asked), make)


def _freed(plan: Plan, role: RolePlan, asked: Asked) -> RoleMemory:
    start = Setting(plan.scenario_of(role), role.split.split())
    before = _priced(role, start)
    alone: list[tuple[str, Change, Configured]] = []
    for name, change in _changes(role, start.scenario, asked):
        made = change(start)
        if made is not None:
            alone.append((name, change, _priced(role, made)))
    alone.sort(key=lambda each: each[2].memory.total_bytes)
    at, now, taken = start, before, set[str]()
    for name, change, _ in alone:
        made = change(at)
        if made is None or name.startswith(REDUNDANT):
            continue
        then = _priced(role, made)
        frees = then.memory.total_bytes < now.memory.total_bytes
        if frees and then.feasible and then.tokens_per_s >= now.tokens_per_s * (1 - SAME):
            at, now = made, then
            taken.add(name)
    steps = tuple(
        Step(
            role.role, name, before.memory.total_bytes - each.memory.total_bytes, each.fitted.batch,
            each.tokens_per_s if each.feasible else 0.0, name in taken,
        )
        for name, _, each in alone
        if each.memory.total_bytes < before.memory.total_bytes
    )  # fmt: skip
    return RoleMemory(role, before, now, steps)


def _priced(role: RolePlan, setting: Setting) -> Configured:
    return configured(setting.scenario, role.role, setting.split, role.cp)


def _changes(role: RolePlan, scenario: Scenario, asked: Asked) -> Iterator[tuple[str, Change]]:
    """Every step that might free HBM, by its name."""
    model, workload = scenario.model, scenario.workload
    split = role.split
    if workload.kind == "training":
        for stage in range(workload.zero_stage + 1, 4):
            yield f"ZeRO stage {stage}", _workload(zero_stage=stage)
        for mode in ("selective", "full"):
            yield f"recompute {mode}", _recompute(mode)
    else:
        if asked.kv != "keep" and bytes_of(asked.kv) < bytes_of(model.types.kv_cache):  # type: ignore[arg-type]
            yield f"KV cache in {asked.kv}", _types(kv_cache=asked.kv)
        if split.tp > 1:
            yield "attention by data, not tensor parallel", _degrees(role, tp=1, dp=split.dp * split.tp)
        least = least_redundant(model.moe.experts, split.ep)
        if split.redundant > least:
            yield f"{REDUNDANT} {split.redundant} -> {least}", _redundant(least)
    if asked.experts != "keep" and bytes_of(asked.experts) < bytes_of(model.types.experts):  # type: ignore[arg-type]
        yield f"experts in {asked.experts}", _types(experts=asked.experts)
    yield "experts over twice the GPUs", _degrees(role, ep=2 * split.ep, dp=2 * split.dp)
    yield "twice the pipeline stages", _degrees(role, pp=2 * split.pp)
    if split.ep < split.tp * split.dp:
        yield "whole experts (EP for expert TP)", _degrees(role, ep=split.tp * split.dp)


def _types(**types: str) -> Change:
    def change(at: Setting) -> Setting | None:
        try:
            made = overridden(at.scenario, set={f"model.types.{name}": value for name, value in types.items()})
        except InputError:  # the engine does not store it
            return None
        return Setting(made, at.split)

    return change


def _workload(**values: object) -> Change:
    def change(at: Setting) -> Setting | None:
        workload = at.scenario.workload.model_copy(update=values)
        return Setting(at.scenario.model_copy(update={"workload": workload}), at.split)

    return change


def _recompute(mode: str) -> Change:
    def change(at: Setting) -> Setting | None:
        modes = (mode,) * at.scenario.model.layers
        return Setting(at.scenario, replace(at.split, recompute=modes))  # type: ignore[arg-type]

    return change


def _redundant(count: int) -> Change:
    def change(at: Setting) -> Setting | None:
        slots = (at.scenario.model.moe.experts + count) // at.split.ep
        return Setting(at.scenario, replace(at.split, redundant=count, slots_per_gpu=slots))

    return change


def _degrees(role: RolePlan, **degrees: int) -> Change:
    """Other degrees on the role's GPUs, all of them used."""

    def change(at: Setting) -> Setting | None:
        old = at.split
        new = {name: degrees.get(name, getattr(old, name)) for name in ("tp", "ep", "pp", "dp")}
        if role.gpus % (new["tp"] * new["dp"] * new["pp"]):
            return None
        made = split_on(at.scenario, role.gpus, old.batch, new)
        if made is None or load_problem(at.scenario, Layout.of(at.scenario, made), role.role):
            return None
        same = made.pp == old.pp
        return Setting(at.scenario, replace(made, recompute=old.recompute, cut=old.cut if same else None))

    return change


def outcome(case: LabCase[Any], asked: Asked, freed: bool, validate: bool) -> Outcome:
    """One side: the plan as it is, or with the steps that pay."""
    plan, roles = study(case, asked)
    sides = [each.after if freed else each.before for each in roles]
    used = max(side.memory.total_bytes for side in sides)
    figures = [
        Figure(f"HBM of {each.role.role} at the plan's batch", side.memory.total_bytes / GB, "GB", "lower")
        for each, side in zip(roles, sides, strict=True)
    ]
    figures += [
        Figure(f"batch of {each.role.role}", float(side.fitted.batch), "sequences a rank", "higher")
        for each, side in zip(roles, sides, strict=True)
    ]
    last = sides[-1].prediction
    seconds = last.step.step_s if last.step is not None else last.tpot_s
    findings = [f for side, each in zip(sides, roles, strict=True) for f in _checks(side, each.role.role)]
    made = Outcome(
        "after the steps that pay" if freed else "the plan's HBM",
        None if seconds is None else seconds * 1e3, shared_out(plan, sides), figures=tuple(figures),
        findings=(*_recounted(sides[0].scenario), *findings) if validate else (),
    )  # fmt: skip
    if not freed:
        return made
    tables = [_lines(each) for each in roles]
    steps = sorted((step for each in roles for step in each.steps), key=lambda step: -step.freed)
    if steps:
        tables.insert(0, _steps(steps, {each.role.role: each.before for each in roles}))
    return replace(
        made, tables=tuple(tables), notes=tuple(_notes(roles, used)), tie=_tie(roles),
        production=_production(case.scenario, steps),
    )  # fmt: skip


def _steps(steps: Sequence[Step], before: dict[str, Configured]) -> Table:
    rows = []
    for step in steps:
        old = before[step.role]
        gain = f"{step.tokens_per_s / old.tokens_per_s - 1:+.1%}" if step.tokens_per_s else "breaks a limit"
        gain = "costs balance" if step.name.startswith(REDUNDANT) else gain
        rows.append(
            (
                f"{step.name} ({step.role})", f"{step.freed / GB:.2f}", f"{step.batch - old.fitted.batch:+,}", gain,
                "yes" if step.taken else "no",
            )
        )  # fmt: skip
    return Table(
        "Steps, each alone, largest first", ("step", "frees GB", "batch", "role's tokens/s", "taken"), tuple(rows)
    )


def _lines(each: RoleMemory) -> Table:
    before, after = each.before.memory, each.after.memory
    names = dict.fromkeys(line.name for memory in (before, after) for line in memory.lines)
    rows = [
        (name, f"{before.line(name) / GB:.2f}", f"{after.line(name) / GB:.2f}")
        for name in names
        if before.line(name) or after.line(name)
    ]
    for name, old, new in (
        ("total", before.total_bytes, after.total_bytes), ("of", before.capacity_bytes, after.capacity_bytes),
    ):  # fmt: skip
        rows.append((name, f"{old / GB:.2f}", f"{new / GB:.2f}"))
    title = f"{role_name(each.role)}: GB of the fullest GPU (stage {before.stage}) at the plan's batch"
    return Table(title, ("line", "before", "after"), tuple(rows))


def _notes(roles: Sequence[RoleMemory], used: float) -> Iterator[str]:
    for each in roles:
        before, after = each.before, each.after
        told = ", ".join(step.name for step in each.steps if step.taken) or "no step pays"
        yield (
            f"{each.role.role}: {', '.join(before.binds) or 'nothing'} binds before, "
            f"{', '.join(after.binds) or 'nothing'} after. Taken: {told}. "
            f"Largest line: {after.memory.largest.name}, {after.memory.largest.bytes / GB:.1f} GB."
        )
    if len(roles) > 1:
        yield (
            "Throughput is of both roles, their instances shared out anew over the plan's GPUs. A step's tokens/s are "
            "its own role's: the other role limits what the whole gains."
        )
    yield "KV in 8 bits and other weight types change a model's answers: measure its quality first."


def _tie(roles: Sequence[RoleMemory]) -> str:
    if roles[0].before.scenario.workload.kind == "training":
        return "each step that frees HBM costs step time, and the batch is the workload's: what is freed buys nothing"
    binds = ", ".join(dict.fromkeys(limit for each in roles for limit in each.before.binds)) or "nothing"
    return f"HBM is not what limits tokens/s here ({binds} binds): what is freed buys no more, and no step is free"


def _production(scenario: Scenario, steps: Sequence[Step]) -> tuple[str, ...]:
    sets = ""
    for step in steps:
        if step.taken and step.name.startswith("KV cache in "):
            sets = f" --set model.types.kv_cache={step.name.rpartition(' ')[2]}"
    return (
        f"placement solve --spec {scenario.name}{sets} -v --out plan.json     # HBM by line",
        "placement verify plan.json",
        "nvidia-smi --query-gpu=memory.used --format=csv   # under load: within 3% of the total line",
    )


def _recounted(scenario: Scenario) -> Iterator[Finding]:
    model = scenario.model
    counted, again = float(count_parameters(model).total), parameters(model)
    yield _same("parameters counted again", counted / 1e9, again / 1e9, "B")
    if model.published is not None:
        rounding = model.published.total_b
        yield _same("parameters as published", counted / 1e9, rounding, "B")
    workload = scenario.workload
    if workload.kind == "serving":
        context = workload.isl + workload.osl
        layers = [model.layout.count(kind) for kind in model.kinds]
        kept = total_of(stored_bytes(model, context, 1), layers)
        yield _same(f"KV of {context:,} tokens counted again", kept / GB, cache_bytes(model, context) / GB, "GB")


def _same(name: str, one: float, other: float, unit: str) -> Finding:
    off = abs(one / other - 1) if other else abs(one)
    return Finding(name, off <= TOLERANCE, f"{shown(one, unit)} and {shown(other, unit)}, {off:.2%} apart")


def _checks(side: Configured, role: str) -> Iterator[Finding]:
    scenario, split, model = side.scenario, side.fitted, side.scenario.model
    report = configured_memory(side)
    told = f"{report[0] / GB:.1f} of {report[1] / GB:.1f} GB at batch {split.batch}"
    yield Finding(f"{role}: capacity", report[0] <= report[1], told)
    problem = (
        tp_problem(model, split.tp)
        or ep_problem(model, scenario.cluster, split.tp * split.dp, split.ep)
        or redundant_problem(model, split.ep, split.redundant)
    )
    yield Finding(f"{role}: divisibility", not problem, problem or "every degree divides what it splits")
    problem = load_problem(scenario, Layout.of(scenario, split))
    yield Finding(f"{role}: rules of {scenario.engine.label}", not problem, problem or "loads the layout")


def configured_memory(side: Configured) -> tuple[float, float]:
    """(Bytes of the fullest GPU at the largest batch, what it has)."""
    from placement.cost.memory.hbm import memory_of

    report = memory_of(side.scenario, side.fitted)
    return report.total_bytes, report.capacity_bytes
