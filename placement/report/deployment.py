"""A deployment as text and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from placement.report.text import columns, fields, heading, rendered
from placement.report.units import grouped

if TYPE_CHECKING:
    from placement.planning.deploy import Answer, DeploymentReport, Part

SCHEMA = "placement.deployment/1"
HEADER = (
    "role",
    "instances",
    "GPUs each",
    "TP",
    "EP",
    "PP",
    "DP",
    "CP",
    "batch",
    "redundant",
    "TTFT ms",
    "TPOT ms",
    "pool",
)


def deployment_text(report: DeploymentReport, out: str | None) -> str:
    """The screen of `placement deploy`."""
    scenario, last = report.scenario, report.answers[-1]
    workload = scenario.workload
    parts: list[RenderableType] = [heading(scenario.name, f"  {scenario.summary}".rstrip())]
    if workload.kind == "serving":
        objectives = (
            f"ISL {workload.isl}, OSL {workload.osl}, TTFT {workload.ttft_ms:g} ms, TPOT {workload.tpot_ms:g} ms"
        )
        parts.append(fields([("workload", objectives), ("pools", _pools(report)), ("mode", report.mode)]))
    if len(report.answers) > 1:
        parts += [Text(), heading("front", ", tokens/s per GPU against tokens/s per user"), _front(report)]
    else:
        parts += [Text(), heading("instances"), columns(HEADER, [_row(part) for part in last.parts])]
        parts += [Text(), heading("nodes"), *(Text(f"  {line}") for line in _nodes(last))]
    parts += [Text(), fields(_figures(report, last)), Text(), heading("columns", _considered(report))]
    parts += [Text(f"  {each.count:6,} {each.role}: {each.reason}") for each in report.columns.dropped]
    if out is not None:
        parts.append(fields([("deployment", out)]))
    return rendered(parts)


def deployment_json(report: DeploymentReport) -> str:
    """The deployment as one JSON document (docs/formats.md)."""
    second = report.second
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "scenario": report.scenario.name,
        "mode": report.mode,
        "target_tokens_per_s": report.target_rate,
        "placed": report.placed,
        "pools": [
            {"name": p.name, "nodes": p.nodes, "gpus_per_node": p.gpus_per_node, "gpus": p.gpus} for p in report.pools
        ],
        "answers": [_answer(answer) for answer in report.answers],
        "columns": {
            "considered": report.columns.considered,
            "kept": len(report.columns.columns),
            "thinned": report.columns.thinned,
            "dropped": [{"role": d.role, "reason": d.reason, "count": d.count} for d in report.columns.dropped],
        },
        "second_opinion": None
        if second is None
        else {
            "solver": second.deployment.solver,
            "requests_per_s": second.deployment.requests_per_s,
            "gpus": second.deployment.gpus,
            "optimal": second.deployment.optimal,
            "agrees": second.agrees,
        },
    }
    return json.dumps(record, indent=1)


def _answer(answer: Answer) -> dict[str, Any]:
    deployment = answer.deployment
    return {
        "tpot_limit_ms": answer.tpot_ms,
        "tokens_per_s": answer.tokens_per_s,
        "tokens_per_s_per_gpu": answer.tokens_per_s_per_gpu,
        "requests_per_s": deployment.requests_per_s,
        "gpus": deployment.gpus,
        "ttft_ms": _ms(answer.slowest_ttft_s),
        "tpot_ms": _ms(answer.slowest_tpot_s),
        "certificate": {
            "goal": deployment.goal,
            "bound": answer.bound,
            "gap": deployment.gap,
            "status": "optimal" if deployment.optimal else "feasible",
            "solver": deployment.solver,
        },
        "instances": [_instance(part) for part in answer.parts],
        "nodes": [
            {
                "pool": answer.parts[group.held[0][0]].pool.name,
                "nodes": group.nodes,
                "holds": [{"instance": i, "gpus": gpus, "count": n} for i, gpus, n in group.held],
            }
            for group in answer.nodes
        ],
    }


def _instance(part: Part) -> dict[str, Any]:
    split, point = part.column.split, part.column.point
    return {
        "role": part.column.role, "pool": part.pool.name, "count": part.count, "gpus": part.column.gpus,
        "tp": split.tp, "ep": split.ep, "etp": split.etp, "pp": split.pp, "dp": split.dp, "cp": part.column.cp,
        "batch": split.batch,
        "redundant": split.redundant, "slots_per_gpu": split.slots_per_gpu, "requests_per_s": point.requests_per_s,
        "ttft_ms": _ms(point.ttft_s), "tpot_ms": _ms(point.tpot_s), "moe_layer": part.column.moe_source,
    }  # fmt: skip


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _pools(report: DeploymentReport) -> str:
    return ", ".join(f"{pool.name} ({pool.nodes} x {pool.gpus_per_node} GPUs)" for pool in report.pools)


def _row(part: Part) -> tuple[str, ...]:
    split, point = part.column.split, part.column.point
    batch = "-" if part.column.role == "prefill" else str(split.batch)
    return (
        part.column.role, str(part.count), str(part.column.gpus), str(split.tp), str(split.ep), str(split.pp),
        str(split.dp), str(part.column.cp), batch, str(split.redundant), _milliseconds(point.ttft_s),
        _milliseconds(point.tpot_s),
        part.pool.name,
    )  # fmt: skip


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.1f}"


def _nodes(answer: Answer) -> list[str]:
    """What each node holds, nodes that hold the same in one line."""
    lines = []
    for group in answer.nodes:
        held = ", ".join(
            f"{n} {answer.parts[i].column.role} {_degrees(answer.parts[i])} ({gpus} GPUs)" for i, gpus, n in group.held
        )
        lines.append(f"{group.nodes} of {answer.parts[group.held[0][0]].pool.name}: {held}")
    return lines


def _front(report: DeploymentReport) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
    for name in ("TPOT at most", "tokens/s/user", "tokens/s/GPU"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("instances", overflow="fold")
    for answer in report.answers:
        user = 1.0 / answer.slowest_tpot_s if answer.slowest_tpot_s else float("nan")
        kinds = "; ".join(f"{part.count} {part.column.role} {_degrees(part)}" for part in answer.parts)
        table.add_row(f"{answer.tpot_ms:g} ms", f"{user:,.1f}", grouped(answer.tokens_per_s_per_gpu), kinds)
    return table


def _degrees(part: Part) -> str:
    """The degrees of an instance that are not 1."""
    split = part.column.split
    named = (("TP", split.tp), ("EP", split.ep), ("PP", split.pp), ("DP", split.dp), ("CP", part.column.cp))
    return " ".join(f"{name}{degree}" for name, degree in named if degree > 1) or "on one GPU"


def _figures(report: DeploymentReport, answer: Answer) -> list[tuple[str, str]]:
    deployment = answer.deployment
    proof = "proven optimal" if deployment.optimal else f"gap {deployment.gap:.2%}"
    bound = f"{grouped(answer.bound)} {'tokens/s' if deployment.goal == 'rate' else 'GPUs'}"
    lines = [
        ("tokens/s", f"{grouped(answer.tokens_per_s)} ({grouped(answer.tokens_per_s_per_gpu)} per GPU in use)"),
        ("GPUs", f"{deployment.gpus} of {report.gpus}"),
        ("certificate", f"bound {bound}, {proof} by {deployment.solver} among the columns priced"),
        ("experts", "placed quickly, by split" if report.placed else "taken as balanced"),
        ("MoE layers", ", ".join(sorted({part.column.moe_source for part in answer.parts}))),
    ]
    if report.second is not None:
        other = report.second.deployment
        word = "agrees" if report.second.agrees else "DISAGREES"
        rate = other.requests_per_s * (
            report.scenario.workload.osl if report.scenario.workload.kind == "serving" else 1
        )
        lines.append(("second opinion", f"{other.solver} {word}: {grouped(rate)} tokens/s with {other.gpus} GPUs"))
    return [*lines, ("made in", f"{report.seconds:.1f} s")]


def _considered(report: DeploymentReport) -> str:
    kept = len(report.columns.columns)
    thinned = ", some degrees left out" if report.columns.thinned else ""
    return f"  {report.columns.considered:,} priced, {kept} not dominated{thinned}"
