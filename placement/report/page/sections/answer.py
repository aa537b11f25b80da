"""The answer, and why it is this one."""

from __future__ import annotations

from collections.abc import Iterator

from placement.records.plan import Plan
from placement.records.role import RolePlan
from placement.report.certainty import apart, bracket, certainty, origin
from placement.report.page.blocks import Block, Facts, Points, Prose, Section, Table
from placement.report.page.sections.certificate import certificate_words
from placement.report.page.sections.words import (
    PASS,
    against,
    counted,
    difference,
    instances,
    share,
    than_rival,
    told,
)
from placement.report.units import gb, grouped, or_dash
from placement.report.why import why


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
            *_nodes(plan),
            *_recipes(plan),
        ),
        (_why(plan),),
    )


def _to_run(plan: Plan) -> Table:
    """A row for each degree, so that the table is narrow."""
    header = ("", *(role.role for role in plan.roles))
    columns = [_degrees(role) for role in plan.roles]
    return Table("What to run", header, tuple((name, *cells) for name, *cells in zip(_DEGREES, *columns, strict=True)))


def _nodes(plan: Plan) -> Iterator[Block]:
    """What nodes hold, where instances of several kinds share them."""
    rows = []
    for group in plan.nodes:
        parts = ((part.count, plan.roles[part.instance], part.gpus) for part in group.holds)
        held = ", ".join(f"{count} {role.role} {role.degrees} ({gpus} GPUs)" for count, role, gpus in parts)
        rows.append((grouped(group.nodes), told(group.pool), held))
    if rows:
        yield Table("What nodes hold", ("nodes", "of", "each holds"), tuple(rows), words=True)


def _recipes(plan: Plan) -> Iterator[Block]:
    """The best recipes on the same GPUs, as the screen has them."""
    choice = plan.choice
    if choice is None or not choice.rivals:
        return
    mine = choice.priced_tokens_per_s
    rows = [("chosen", grouped(mine), "same", "-", "-", grouped(plan.gpus), "as above")]
    for rival in choice.rivals:
        kinds = " + ".join(f"{each.count} {each.role} {each.degrees}" for each in rival.roles)
        times = ("-" if rival.ttft_ms is None else grouped(rival.ttft_ms, 1), or_dash(rival.tpot_ms))
        rate = rival.tokens_per_s or 0.0
        runs = told(kinds or rival.why)
        beyond = apart(plan.predicted.tokens_per_s, rate / mine if mine > 0 else 0.0)
        beside = difference(rate, mine) + (" (within the interval)" if beyond is False else "")
        rows.append((told(rival.name, 80), grouped(rate), beside, *times, grouped(rival.gpus), runs))
    header = ("recipe", "tokens/s", "of plan", "TTFT ms", "TPOT ms", "GPUs", "instances")
    yield Table("Best recipes on the same GPUs", header, tuple(rows), 0)
    yield Prose("All are as they were priced before experts were placed.")


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
    rate = figures.tokens_per_s
    yield "throughput", f"{grouped(rate.value)} tokens/s{bracket(rate)}, {grouped(each, 1)} per GPU"
    if workload.kind == "serving":
        yield "TTFT", against(figures.ttft_ms, workload.ttft_ms)
        yield "TPOT", against(figures.tpot_ms, workload.tpot_ms)
    if figures.step_ms is not None:
        yield "training step", f"{figures.step_ms.value / 1e3:,.3f} s"
    if all(role.cluster is None for role in plan.roles):
        yield "GPUs", f"{grouped(plan.gpus)} of {grouped(gpus)}"
    yield "figures are", f"{origin(rate)}; MoE layers: {told(rate.moe_layer)}"
    for name, text in certainty(figures):
        yield name or "evidence", told(text, 400)


def _why(plan: Plan) -> Section:
    """What the screen says, and what the answer's figures say for it, a sentence each."""
    first = Facts(tuple((name, told(text, 400)) for name, text in why(plan)))
    each = [Points(tuple(_why_role(plan, role))) for role in plan.roles]
    if len(each) == 1:
        return Section("Why this answer", (first, *each))
    parts = tuple(Section(role.role.capitalize(), (points,)) for role, points in zip(plan.roles, each, strict=True))
    return Section("Why this answer", (first,), parts)


def _why_role(plan: Plan, role: RolePlan) -> Iterator[str]:
    if not role.binds:
        yield _nearest(plan, role)
    if parts := [part for part in role.predicted.breakdown if part.ms > 0]:
        largest, total = max(parts, key=lambda part: part.ms), sum(part.ms for part in parts)
        part = f"{told(largest.name, 60)}: {share(largest.ms, total)} of {total:,.2f} ms"
        yield f"Most of {PASS[role.role]} goes to {part}."
    if compared := than_rival(role):
        yield compared
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
