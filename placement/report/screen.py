"""The one screen that `placement solve` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import RenderableType
from rich.text import Text

from placement.records.layout import EngineName
from placement.records.plan import Plan, TimingsRecord
from placement.records.role import Figure, MemoryLineRecord, RolePlan, StrategyRecord
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import gb, grouped, kb, or_dash, us


class Dropped(Protocol):
    """Why candidates were dropped, and how many."""

    @property
    def reason(self) -> str: ...
    @property
    def count(self) -> int: ...


class SplitSearch(Protocol):
    """What a screen says of the search for the split (`SplitChoice` of the solvers)."""

    @property
    def considered(self) -> int: ...
    @property
    def dropped(self) -> Sequence[Dropped]: ...
    @property
    def idle_gpus(self) -> int: ...
    @property
    def cut_gain(self) -> float | None: ...


#: How a certificate's unit reads after its figure.
_UNITS = {
    "us": " us per MoE layer",
    "max_over_mean": " x mean GPU load",
    "bytes_per_token": " bytes between nodes per token",
}
#: Figures of a placement beside its layer times.
STRATEGY_HEADER = ("strategy", "balancedness", "nodes/token", "cross-node kB/token")


def solve_screen(
    plan: Plan, choice: SplitSearch, lowered_from: int | None, timings: TimingsRecord, out: str | None
) -> str:
    """The screen of a solve.

    Args:
        plan: the plan. choice: how its split was chosen. lowered_from: batch before it was lowered for the routing.
        timings: wall-clock seconds. out: the file the plan was written to.
    """
    role, figure = plan.roles[0], plan.predicted.tokens_per_s
    made = f"split {timings.split_s:.1f}, routing {timings.routing_s:.1f}, solving {timings.solve_s:.1f}"
    parts: list[RenderableType] = [
        heading(plan.scenario.name, f"  {plan.scenario.spec.summary}".rstrip()),
        fields([*_scenario(plan), *_split(plan, role, choice, lowered_from)]),
        Text(),
        heading("memory", _memory_title(role)),
        _memory(role.memory.lines),
        Text(),
        heading("predicted", f" ({figure.provenance}; MoE layers: {figure.moe_layer})"),
        fields(_predicted(plan)),
        Text(),
        heading("expert placement", f", {role.phase}, {_judged(plan)}"),
        strategy_table(role),
        Text(),
        fields(
            [("certificate", certificate(role)), ("made in", f"{timings.total_s:.1f} s ({made})"), *_cut_short(plan)]
        ),
    ]
    if out is not None:
        parts.append(fields([("plan", out)]))
    return rendered(parts)


def strategy_table(role: RolePlan) -> RenderableType:
    """Every strategy's figures, the plan's own in bold."""
    own = next((i for i, strategy in enumerate(role.strategies) if strategy.placements is None), None)
    return columns(strategy_header(role), [strategy_row(role, strategy) for strategy in role.strategies], own)


def strategy_header(role: RolePlan) -> tuple[str, ...]:
    """The names of `strategy_row`."""
    return (*STRATEGY_HEADER, *time_header(role), "tokens/s")


def strategy_row(role: RolePlan, strategy: StrategyRecord) -> tuple[str, ...]:
    """One strategy's figures under `strategy_header`."""
    return (
        strategy.name,
        or_dash(strategy.balancedness, 3),
        or_dash(strategy.nodes_per_token),
        kb(strategy.cross_node_bytes_per_token),
        *time_cells(role, strategy),
        grouped(strategy.tokens_per_s),
    )


def time_header(role: RolePlan) -> tuple[str, ...]:
    """The names of `time_cells`: an MoE layer's microseconds in each phase of serving, or in training."""
    return ("MoE layer us",) if role.phase == "train" else ("decode us", "prefill us")


def time_cells(role: RolePlan, strategy: StrategyRecord) -> tuple[str, ...]:
    """An MoE layer's microseconds, under `time_header`."""
    if role.phase == "train":
        return (us(strategy.moe_layer_us),)
    return tuple("-" if each is None else us(each) for each in (strategy.decode_us, strategy.prefill_us))


def engine_lines(engine: EngineName, assumes: str) -> list[tuple[str, str]]:
    """The engine with its backend, what is assumed of it, and what a user of the plan must know."""
    told = engine.label + (f" (assumed: {assumes})" if assumes else "")
    return [("engine", told), *(("", note) for note in engine.notes)]


def messages(role: RolePlan) -> str:
    """The message rule of each phase, once where it is one for all."""
    rules = role.messages
    if len(set(rules.values())) == 1:
        return next(iter(rules.values()))
    return ", ".join(f"{rule} in {phase}" for phase, rule in rules.items())


def certificate(role: RolePlan) -> str:
    """The certificate in one sentence."""
    record = role.certificate
    unit = _UNITS[record.unit]
    gap = "no bound" if record.gap is None else f"gap {record.gap:.2%}"
    proven = sum(layer.status == "optimal" for layer in role.layers)
    return (
        f"objective {record.objective:.4g}{unit}, bound {record.bound:.4g}, {gap}; {record.status}, "
        f"{proven} of {len(role.layers)} layers proven optimal (on the routing solved on)"
    )


def _scenario(plan: Plan) -> list[tuple[str, str]]:
    spec, routing = plan.scenario.spec, plan.provenance.routing
    model, cluster, workload = spec.model, spec.cluster, spec.workload
    part = "all of it" if routing.solved_on == "all" else "the first half"
    if workload.kind == "serving":
        work = f"serving ISL {grouped(workload.isl)}, OSL {grouped(workload.osl)}"
        work += f", TTFT at most {workload.ttft_ms:g} ms, TPOT at most {workload.tpot_ms:g} ms"
    else:
        work = f"training, global batch {grouped(workload.global_batch)} x {grouped(workload.sequence)} tokens"
    return [
        (
            "model",
            f"{model.name}: {len(model.moe_layers)} MoE layers of {model.moe.experts} experts, top-{model.moe.top_k}",
        ),
        ("cluster", f"{cluster.name}: {cluster.nodes} nodes x {cluster.gpus_per_node} {cluster.least_gpu.name}"),
        ("workload", work),
        *engine_lines(plan.engine, spec.engine.assumes),
        ("routing", f"{routing.source}; solved on {part} ({grouped(routing.tokens_solved)} tokens)"),
    ]


def _split(plan: Plan, role: RolePlan, choice: SplitSearch, lowered_from: int | None) -> list[tuple[str, str]]:
    split = role.split
    degrees = f"TP {split.tp} x EP {split.ep} x PP {split.pp} x DP {split.dp}"
    if split.etp > 1:
        degrees += f" (expert TP {split.etp})"
    gpus = split.tp * split.dp * split.pp
    text = f"{degrees}, {split.instances} x {gpus} GPUs, batch {split.batch} per attention rank"
    if lowered_from is not None:
        text += f" (at {lowered_from} this routing misses an objective)"
    dropped = "".join(f"; {entry.count} dropped: {entry.reason}" for entry in choice.dropped)
    considered = f"{grouped(choice.considered)} splits considered{dropped}"
    if choice.idle_gpus:
        considered += f"; {choice.idle_gpus} GPUs idle"
    experts = plan.scenario.spec.model.moe.experts
    return [
        ("split", text),
        ("", considered),
        *_stages(role, choice),
        (
            "experts",
            f"{experts} + {split.redundant} redundant in {role.slots_per_gpu} slots per GPU; dispatch {role.dispatch}, "
            f"messages {messages(role)}",
        ),
    ]


def _stages(role: RolePlan, choice: SplitSearch) -> list[tuple[str, str]]:
    """How layers are cut and what they recompute, where that was chosen."""
    split, said = role.split, []
    if split.cut is not None:
        said.append("layers " + " ".join(map(str, split.cut)))
    if split.recompute is not None:
        counts = ((mode, split.recompute.count(mode)) for mode in dict.fromkeys(split.recompute))
        said.append("recompute " + ", ".join(f"{mode} in {count}" for mode, count in counts))
    if choice.cut_gain is None:
        said.append("cut evenly it exceeds HBM")
    elif choice.cut_gain > 0:
        said.append(f"{choice.cut_gain:.1%} over the even cut with one mode for all")
    return [("stages", "; ".join(said))] if said else []


def _memory_title(role: RolePlan) -> str:
    memory = role.memory
    share = memory.total_bytes / memory.capacity_bytes
    stage = f" (stage {memory.stage})" if role.split.pp > 1 else ""
    return f" of the fullest GPU{stage}: {gb(memory.total_bytes)} of {gb(memory.capacity_bytes)} HBM ({share:.0%})"


def _memory(lines: Sequence[MemoryLineRecord]) -> RenderableType:
    """The lines that take space, in two pairs of columns."""
    cells = [(line.name, gb(line.bytes)) for line in lines if line.bytes > 0]
    half = -(-len(cells) // 2)
    rows = []
    for i in range(half):
        right = cells[half + i] if half + i < len(cells) else ("", "")
        rows.append((f"  {cells[i][0]}", cells[i][1], f"    {right[0]:<24}", right[1]))
    table = columns(("", "", "", ""), rows)
    table.show_header = False
    return table


def _predicted(plan: Plan) -> list[tuple[str, str]]:
    predicted, workload = plan.predicted, plan.scenario.spec.workload
    what = "output tokens/s" if workload.kind == "serving" else "trained tokens/s"
    rows = [
        (
            "throughput",
            f"{grouped(predicted.tokens_per_s.value)} {what} "
            f"({grouped(predicted.tokens_per_s_per_gpu.value, 1)} per GPU)",
        )
    ]
    if workload.kind == "serving":
        rows.append(("TTFT", _against(predicted.ttft_ms, workload.ttft_ms)))
        rows.append(("TPOT", _against(predicted.tpot_ms, workload.tpot_ms)))
    if predicted.step_ms is not None:
        rows.append(("step", f"{predicted.step_ms.value / 1e3:.3f} s"))
    return rows


def _against(figure: Figure | None, limit: float) -> str:
    if figure is None:
        return "-"
    verdict = "met" if figure.value <= limit else f"MISSED by {figure.value - limit:.2f} ms"
    return f"{figure.value:.2f} ms (at most {limit:g} ms: {verdict})"


def _judged(plan: Plan) -> str:
    routing = plan.provenance.routing
    if routing.judged_on == "all":
        return "judged on the routing it was solved on (nothing held out)"
    kind = "synthetic" if routing.synthetic else "recorded"
    return f"judged on held-out {kind} routing: the second half, {grouped(routing.tokens_judged)} tokens"


def _cut_short(plan: Plan) -> list[tuple[str, str]]:
    """What the time limit left undone, where it did."""
    return [("cut short", "; ".join(plan.provenance.cut_short))] if plan.provenance.cut_short else []
