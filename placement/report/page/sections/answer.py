"""The answer, and why it is this one."""

from __future__ import annotations

from collections.abc import Iterator

from placement.records.plan import Plan
from placement.records.role import RolePlan
from placement.report.page.blocks import Facts, Points, Section, Table
from placement.report.page.sections.certificate import certificate_words
from placement.report.page.sections.words import (
    PASS,
    against,
    counted,
    instances,
    share,
    than_rival,
    told,
)
from placement.report.units import gb, grouped


def lead(plan: Plan) -> str:
    """The answer in one sentence."""
    several = len(plan.roles) > 1
    kinds = " and ".join(instances(role, f"{role.role} " if several else "") for role in plan.roles)
    what = "output tokens/s" if plan.scenario.spec.workload.kind == "serving" else "trained tokens/s"
    return f"{grouped(plan.predicted.tokens_per_s.value)} {what} on {counted(plan.gpus, 'GPU')}: {kinds}."


def answer(plan: Plan) -> Section:
    """What to run, what that yields, and why."""
    return Section(
        "Answer",
        (
            Facts((*_question(plan), *_figures(plan))),
            _to_run(plan),
        ),
        (_why(plan),),
    )


def _to_run(plan: Plan) -> Table:
    """A row for each degree, so that the table is narrow."""
    header = ("", *(role.role for role in plan.roles))
    columns = [_degrees(role) for role in plan.roles]
    return Table("What to run", header, tuple((name, *cells) for name, *cells in zip(_DEGREES, *columns, strict=True)))


_DEGREES = (
    "instances", "GPUs each", "TP", "EP", "PP", "DP", "CP", "batch per attention rank", "redundant experts",
    "slots per GPU",
)  # fmt: skip


def _degrees(role: RolePlan) -> tuple[str, ...]:
    split = role.split
    degrees = (split.tp, split.ep, split.pp, split.dp, role.cp, split.batch, split.redundant, role.slots_per_gpu)
    return (grouped(split.instances), grouped(split.tp * split.dp * split.pp), *map(grouped, degrees))


def _question(plan: Plan) -> Iterator[tuple[str, str]]:
    spec = plan.scenario.spec
    model, cluster, workload = spec.model, spec.cluster, spec.workload
    experts = f"{len(model.moe_layers)} MoE layers of {model.moe.experts} experts, top-{model.moe.top_k}"
    yield "model", f"{told(model.name)}: {experts}"
    yield (
        "cluster",
        f"{told(cluster.name)}: {cluster.nodes} nodes of {cluster.gpus_per_node} {told(cluster.least_gpu.name)}",
    )
    if workload.kind == "serving":
        yield "workload", f"requests of {grouped(workload.isl)} input and {grouped(workload.osl)} output tokens"
    else:
        batch = f"a global batch of {grouped(workload.global_batch)} sequences of {grouped(workload.sequence)} tokens"
        yield "workload", f"training steps of {batch}"
    yield "engine", told(plan.engine.label)


def _figures(plan: Plan) -> Iterator[tuple[str, str]]:
    figures, workload, gpus = plan.predicted, plan.scenario.spec.workload, plan.scenario.spec.cluster.gpus
    each = figures.tokens_per_s_per_gpu.value
    yield "throughput", f"{grouped(figures.tokens_per_s.value)} tokens/s, {grouped(each, 1)} per GPU"
    if workload.kind == "serving":
        yield "TTFT", against(figures.ttft_ms, workload.ttft_ms)
        yield "TPOT", against(figures.tpot_ms, workload.tpot_ms)
    if figures.step_ms is not None:
        yield "training step", f"{figures.step_ms.value / 1e3:,.3f} s"
    if all(role.cluster is None for role in plan.roles):
        yield "GPUs", f"{grouped(plan.gpus)} of {grouped(gpus)}"
    yield "figures are", f"{figures.tokens_per_s.provenance}; MoE layers: {told(figures.tokens_per_s.moe_layer)}"


def _why(plan: Plan) -> Section:
    """What the answer's figures say for it, a sentence each."""
    each = [Points(tuple(_why_role(plan, role))) for role in plan.roles]
    if len(each) == 1:
        return Section("Why this answer", tuple(each))
    parts = tuple(Section(role.role.capitalize(), (points,)) for role, points in zip(plan.roles, each, strict=True))
    return Section("Why this answer", (), parts)


def _why_role(plan: Plan, role: RolePlan) -> Iterator[str]:
    yield _nearest(plan, role)
    if parts := [part for part in role.predicted.breakdown if part.ms > 0]:
        largest, total = max(parts, key=lambda part: part.ms), sum(part.ms for part in parts)
        part = f"{told(largest.name, 60)}: {share(largest.ms, total)} of {total:,.2f} ms"
        yield f"Most of {PASS[role.role]} goes to {part}."
    if compared := than_rival(role):
        yield compared
    yield from _little_to_place(role)
    yield certificate_words(plan, role)


def _nearest(plan: Plan, role: RolePlan) -> str:
    """What is nearest its limit."""
    memory, workload = role.memory, plan.scenario.spec.workload
    used = [("HBM", memory.total_bytes / memory.capacity_bytes)]
    if workload.kind == "serving":
        limits = (
            ("TTFT", role.predicted.ttft_ms, workload.ttft_ms),
            ("TPOT", role.predicted.tpot_ms, workload.tpot_ms),
        )
        used += [(name, figure.value / limit) for name, figure, limit in limits if figure is not None]
    used.sort(key=lambda each: -each[1])
    (name, most), *rest = used
    others = " and ".join(f"{other} at {part:.1%}" for other, part in rest)
    over = f"{gb(memory.total_bytes)} of {gb(memory.capacity_bytes)}" if name == "HBM" else ""
    told_by = f" ({over})" if over else ""
    return f"{name} is nearest its limit, at {most:.1%}{told_by}" + (f"; {others}." if others else ".")


def _little_to_place(role: RolePlan) -> Iterator[str]:
    """Why placement can't matter, where it can't."""
    topology, rules = role.topology, set(role.messages.values())
    if topology.gpus == 1:
        yield "Each GPU holds all experts: there is nothing to place."
    elif topology.gpus == topology.gpus_per_node:
        yield "All experts of an instance lie inside one node: no placement sends a byte between nodes."
    if rules == {"dense"}:
        yield "The backend sends every token to every GPU: no placement changes a message, only the balance."
