"""The screen of `placement scenario`: what to deploy, what its links need, what fills HBM, how to check it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from placement.cost.step.link_needs import RoleNeeds
from placement.records.plan import Plan
from placement.report.certainty import bracket, certainty, origin
from placement.report.text import columns, command, fields, heading, rendered
from placement.report.units import grouped


def stance_screen(plan: Plan, title: str, needs: Sequence[RoleNeeds], spec: str, out: str | None) -> str:
    """The screen.

    Args:
        plan: The plan. title: Of the way it was planned. needs: Of its links. spec: As the user named it.
        out: The file that the plan was written to.
    """
    told = plan.predicted
    figures = [("tokens/s", grouped(told.tokens_per_s.value) + bracket(told.tokens_per_s))]
    for name, figure in (("TTFT ms", told.ttft_ms), ("TPOT ms", told.tpot_ms), ("step ms", told.step_ms)):
        if figure is not None:
            figures.append((name, f"{figure.value:,.1f}{bracket(figure)}"))
    figures += [("figures", origin(told.tokens_per_s)), *certainty(told)]
    parts: list[RenderableType] = [
        heading(plan.scenario.name), title, "", fields(figures), "", heading("DEPLOY"), _deployed(plan), "",
        heading("LINKS", "  GB/s of the busiest GPU, one direction; needs: to hide messages behind experts"),
        *_links(plan, needs), "", heading("HBM", "  GB of the fullest GPU"), _hbm(plan), "", heading("NEXT"),
    ]  # fmt: skip
    file = out or "plan.json"
    engine = "megatron" if plan.mode == "training" else plan.engine.name.replace("generic", "vllm")
    checks = (
        []
        if plan.mode == "training"
        else [command(f"  python -m bench run alltoall_tuning --spec {spec}   # what links should reach")]
    )
    if out is None:
        parts.append(command(f"  placement scenario ... --out {file}"))
    parts += [
        command(f"  placement verify {file}                 # the plan, re-checked from outside"),
        command(f"  placement export {file} --to {engine} --out deploy"),
        *checks,
    ]
    return rendered(parts)


def _deployed(plan: Plan) -> RenderableType:
    rows = []
    for role in plan.roles:
        own = role.own
        rows.append(
            (
                f"{role.split.instances} x {role.role} {role.degrees}", f"{role.gpus:,}", str(role.slots_per_gpu),
                str(role.split.redundant), str(role.split.batch), "-" if own is None else f"{own.balancedness:.3f}",
                "-" if own is None or own.nodes_per_token is None else f"{own.nodes_per_token:.2f}",
            )
        )  # fmt: skip
    header = ("instances", "GPUs", "experts a GPU", "redundant", "batch", "balancedness", "nodes a token")
    return columns(header, rows)


def _links(plan: Plan, needs: Sequence[RoleNeeds]) -> list[RenderableType]:
    names = {"fast": "inside a node", "slow": "NIC"}
    rows = []
    for each in needs:
        for link in each.experts:
            so = "hides" if link.has_bytes_per_s >= link.needs_bytes_per_s else "shows"
            rates = _rates(link.needs_bytes_per_s, link.has_bytes_per_s)
            rows.append((f"{each.role}: experts, {names[link.link]}", f"{link.bytes / 1e6:,.2f}", *rates, so))
        if each.kv_needs_bytes_per_s:
            rates = _rates(each.kv_needs_bytes_per_s, each.kv_has_bytes_per_s)
            so = "enough" if each.kv_has_bytes_per_s >= each.kv_needs_bytes_per_s else "too little"
            rows.append((f"{each.role}: KV caches, NIC", "-", *rates, so))
    if not rows:
        return ["Every instance has all its experts on one GPU: no expert traffic."]
    return [columns(("link", "MB a layer", "needs", "has", "so it"), rows)]


def _rates(needs: float, has: float) -> tuple[str, str]:
    return f"{needs / 1e9:,.3g}", f"{has / 1e9:,.3g}"


def _hbm(plan: Plan) -> RenderableType:
    names = dict.fromkeys(line.name for role in plan.roles for line in role.memory.lines if line.bytes >= 5e6)

    def size(lines: dict[str, float], name: str) -> str:
        return f"{lines.get(name, 0.0) / 1e9:.2f}"

    held = [{line.name: line.bytes for line in role.memory.lines} for role in plan.roles]
    rows = [(name, *(size(lines, name) for lines in held)) for name in names]
    rows.append(("in all", *(f"{role.memory.total_bytes / 1e9:.2f}" for role in plan.roles)))
    rows.append(("of", *(f"{role.memory.capacity_bytes / 1e9:.2f}" for role in plan.roles)))
    return columns(("line", *(role.role for role in plan.roles)), rows)
