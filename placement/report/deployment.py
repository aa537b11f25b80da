"""A deployment as text."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from placement.records.deployment import AnswerRecord, Deployment, InstanceRecord
from placement.report.demand import demand_parts
from placement.report.screen import engine_lines
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import grouped
from specs.scenario import Scenario

HEADER = (
    "role", "instances", "GPUs each", "TP", "EP", "PP", "DP", "CP", "batch", "redundant", "TTFT ms", "TPOT ms", "pool",
)  # fmt: skip


def deployment_text(deployment: Deployment, scenario: Scenario, seconds: float, out: str | None) -> str:
    """The screen of `placement deploy`.

    Args:
        seconds: Wall clock. out: the file that the deployment was written to.
    """
    workload, last = scenario.workload, deployment.answers[-1]
    parts: list[RenderableType] = [heading(scenario.name, f"  {scenario.summary}".rstrip())]
    if workload.kind == "serving":
        objectives = (
            f"ISL {workload.isl}, OSL {workload.osl}, TTFT {workload.ttft_ms:g} ms, TPOT {workload.tpot_ms:g} ms"
        )
        pools = ", ".join(f"{pool.name} ({pool.nodes} x {pool.gpus_per_node} GPUs)" for pool in deployment.pools)
        parts.append(
            fields(
                [
                    ("workload", objectives),
                    *engine_lines(deployment.engine, scenario.engine.assumes),
                    ("pools", pools),
                    ("mode", deployment.mode),
                ]
            )
        )
    if len(deployment.answers) > 1:
        parts += [Text(), heading("front", ", tokens/s per GPU against tokens/s per user"), _front(deployment)]
    else:
        parts += [Text(), heading("instances"), columns(HEADER, [_row(each) for each in last.instances])]
        parts += [Text(), heading("nodes"), *(Text(f"  {line}") for line in _nodes(last))]
    if deployment.demand is not None:
        parts += [Text(), *demand_parts(deployment.demand, last.gpus)]
    considered = deployment.columns
    thinned = ", some degrees left out" if considered.thinned else ""
    told = f"  {considered.considered:,} priced, {considered.kept} not dominated{thinned}"
    parts += [Text(), fields(_figures(deployment, last, seconds)), Text(), heading("columns", told)]
    parts += [Text(f"  {each.count:6,} {each.role}: {each.reason}") for each in considered.dropped]
    if out is not None:
        parts.append(fields([("deployment", out)]))
    return rendered(parts)


def _row(each: InstanceRecord) -> tuple[str, ...]:
    batch = "-" if each.role == "prefill" else str(each.batch)
    degrees = (each.count, each.gpus, each.tp, each.ep, each.pp, each.dp, each.cp)
    times = ("-" if ms is None else f"{ms:,.1f}" for ms in (each.ttft_ms, each.tpot_ms))
    return (each.role, *map(str, degrees), batch, str(each.redundant), *times, each.pool)


def _nodes(answer: AnswerRecord) -> list[str]:
    """What each node holds, nodes that hold the same in one line."""
    lines = []
    for group in answer.nodes:
        held = ", ".join(
            f"{part.count} {answer.instances[part.instance].role} {answer.instances[part.instance].degrees} "
            f"({part.gpus} GPUs)"
            for part in group.holds
        )
        lines.append(f"{group.nodes} of {group.pool}: {held}")
    return lines


def _front(deployment: Deployment) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
    for name in ("TPOT at most", "tokens/s/user", "tokens/s/GPU"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("instances", overflow="fold")
    for answer in deployment.answers:
        user = 1e3 / answer.tpot_ms if answer.tpot_ms else float("nan")
        kinds = "; ".join(f"{each.count} {each.role} {each.degrees}" for each in answer.instances)
        limit = f"{answer.tpot_limit_ms:g} ms"
        table.add_row(limit, f"{user:,.1f}", grouped(answer.tokens_per_s_per_gpu), kinds)
    return table


def _figures(deployment: Deployment, answer: AnswerRecord, seconds: float) -> list[tuple[str, str]]:
    certificate = answer.certificate
    proof = "proven optimal" if certificate.status == "optimal" else f"gap {certificate.gap:.2%}"
    bound = f"{grouped(certificate.bound)} {'tokens/s' if certificate.goal == 'rate' else 'GPUs'}"
    return [
        ("tokens/s", f"{grouped(answer.tokens_per_s)} ({grouped(answer.tokens_per_s_per_gpu)} per GPU in use)"),
        ("GPUs", f"{answer.gpus} of {deployment.gpus}"),
        ("certificate", f"bound {bound}, {proof} by {certificate.solver} among the columns priced"),
        ("experts", "placed quickly, by split" if deployment.placed else "taken as balanced"),
        ("MoE layers", ", ".join(sorted({each.moe_layer for each in answer.instances}))),
        ("made in", f"{seconds:.1f} s"),
    ]
