"""The one screen that `placement solve` and `placement deploy` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from placement.records.layout import EngineName
from placement.records.plan import Plan, TimingsRecord
from placement.records.role import Figure, MemoryLineRecord, RolePlan
from placement.report.certainty import apart, bracket, certainty, ends, origin
from placement.report.demand import demand_parts
from placement.report.levers import left_out, lever_lines, types_in_words
from placement.report.strategies import certificate, strategy_table, totals
from placement.report.text import Columns, Fields, columns, command, fields, heading, rendered
from placement.report.units import counted, gb, grouped
from placement.report.why import next_steps, why

_BLANK = Text()


def solve_screen(plan: Plan, timings: TimingsRecord, out: str | None, verbose: int = 0) -> str:
    """The screen of a plan.

    Args:
        plan: The plan. timings: Wall-clock seconds. out: The file that the plan was written to.
        verbose: Above 0: memory by line, stages, what was left out, and where the time went; below 0: the answer alone.
    """
    parts: list[RenderableType] = [heading(plan.scenario.name, f"  {plan.scenario.spec.summary}".rstrip())]
    if verbose >= 0:
        parts += [fields(_scenario(plan)), _BLANK]
    parts += [heading("ANSWER"), _roles(plan), fields(_answer(plan))]
    if plan.demand is not None:
        parts += [_BLANK, *demand_parts(plan.demand, plan.gpus)]
    if verbose > 0:
        for role in plan.roles:
            parts += [_BLANK, heading("memory", _memory_title(plan, role)), _memory(role.memory.lines)]
    if verbose >= 0:
        parts += [*_against(plan), *_strategies(plan)]
        parts += [_BLANK, heading("WHY"), fields(why(plan))]
        if verbose > 0:
            parts += [_BLANK, fields(_details(plan, timings))]
        parts += [_BLANK, _last(plan, timings, out)]
    return rendered(parts)


def engine_lines(engine: EngineName, assumes: str) -> list[tuple[str, str]]:
    """The engine with its backend, what is assumed of it, and what a user of the plan must know."""
    told = engine.label + (f" (assumed: {assumes})" if assumes else "")
    return [("engine", told), *(("", note) for note in engine.notes)]


def nominal_links(plan: Plan) -> list[tuple[str, str]]:
    """Links that are taken at their nominal rate, which none reaches: an efficiency of 1 is what a file that says none
    has.
    """
    clusters = [plan.scenario.spec.cluster, *(role.cluster for role in plan.roles if role.cluster is not None)]
    rows = []
    for cluster in {each.name: each for each in clusters}.values():
        links = {"fast": cluster.fast, "slow": cluster.slow, **{each.name: each for each in cluster.inner}}
        if full := [name for name, link in links.items() if link.efficiency == 1.0]:
            told = f"{cluster.name}: {', '.join(full)} assumed to reach all of gb_per_s; give their `efficiency`"
            rows.append(("links", told))
    return rows


def messages(role: RolePlan) -> str:
    """The message rule of each phase, once where it is one for all."""
    rules = role.messages
    if len(set(rules.values())) == 1:
        return next(iter(rules.values()))
    return ", ".join(f"{rule} in {phase}" for phase, rule in rules.items())


def _scenario(plan: Plan) -> list[tuple[str, str]]:
    spec, routing = plan.scenario.spec, plan.provenance.routing
    model, cluster, workload = spec.model, spec.cluster, spec.workload
    if workload.kind == "serving":
        work = f"{grouped(workload.isl)} tokens in, {grouped(workload.osl)} out; "
        work += f"TTFT at most {workload.ttft_ms:g} ms, TPOT at most {workload.tpot_ms:g} ms"
    else:
        work = f"training, global batch of {grouped(workload.global_batch)} x {grouped(workload.sequence)} tokens"
    layers = f"{model.name}: {len(model.moe_layers)} MoE layers of {model.moe.experts} experts, top-{model.moe.top_k}"
    left = [("left out", ", ".join(parts))] if (parts := left_out(spec)) else []
    levers = [("levers" if i == 0 else "", line) for i, line in enumerate(lever_lines(spec))]
    pools = list(dict.fromkeys(role.cluster.name for role in plan.roles if role.cluster is not None))
    more = f"; also {', '.join(pools)}" if pools else ""
    part = "all of it" if routing.solved_on == "all" else "the first half"
    return [
        ("model", layers),
        *left,
        ("runs in", types_in_words(spec)),
        (
            "cluster",
            f"{cluster.name}: {counted(cluster.nodes, 'node')} x {cluster.gpus_per_node} "
            f"{cluster.least_gpu.name}{more}",
        ),
        *nominal_links(plan),
        ("workload", work),
        *levers,
        *engine_lines(plan.engine, spec.engine.assumes),
        ("routing", f"{routing.source}; solved on {part} ({grouped(routing.tokens_solved)} tokens)"),
    ]


def _roles(plan: Plan) -> Columns:
    """A row for each kind of instance."""
    rows = []
    for role in plan.roles:
        split, predicted = role.split, role.predicted
        batch = "-" if role.role == "prefill" else str(split.batch)
        name = role.role if role.cluster is None else f"{role.role} on {role.cluster.name}"
        rows.append(
            (
                name, str(split.instances), str(role.gpus // split.instances), _split(role), batch,
                f"+{split.redundant}", _ms(predicted.ttft_ms), _ms(predicted.tpot_ms), ", ".join(role.binds) or "-",
            )
        )  # fmt: skip
    header = ("instances of", "count", "GPUs each", "split", "batch", "copies", "TTFT ms", "TPOT ms", "binds")
    return columns(header, rows)


def _split(role: RolePlan) -> str:
    """The degrees, without blanks: a cell is never cut."""
    return role.degrees.replace(" ", "·")


def _ms(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.value:,.2f}"


def _answer(plan: Plan) -> list[tuple[str, str]]:
    predicted, workload = plan.predicted, plan.scenario.spec.workload
    figure = predicted.tokens_per_s
    what = "output tokens/s" if workload.kind == "serving" else "trained tokens/s"
    per_gpu = grouped(predicted.tokens_per_s_per_gpu.value)
    requests = f", {grouped(figure.value / workload.osl, 1)} requests/s" if workload.kind == "serving" else ""
    rows = [("throughput", f"{grouped(figure.value)} {what}{bracket(figure)}, {per_gpu} per GPU")]
    if workload.kind == "serving":
        rows += [
            (name, _limit(told, limit))
            for name, told, limit in (
                ("TTFT", predicted.ttft_ms, workload.ttft_ms),
                ("TPOT", predicted.tpot_ms, workload.tpot_ms),
            )
        ]
    if predicted.step_ms is not None:
        rows.append(("step", f"{predicted.step_ms.value / 1e3:.3f} s"))
    idle = 0 if plan.choice is None else plan.choice.idle_gpus
    gpus = f"{grouped(plan.gpus)} of {grouped(plan.gpus + idle)}" if plan.choice is not None else grouped(plan.gpus)
    rows.append(("GPUs", gpus + (f"; {idle} idle" if idle else "") + requests))
    rows += _experts(plan)
    rows.append(("figures", f"{origin(figure)}; MoE layers: {figure.moe_layer}, {_judged(plan)}"))
    return rows + certainty(predicted)


def _of(plan: Plan, role: RolePlan) -> str:
    """The role's name, where there are several."""
    return f" {role.role}" if len(plan.roles) > 1 else ""


def _experts(plan: Plan) -> list[tuple[str, str]]:
    """Slots, dispatch and messages of each role that spreads experts."""
    experts = plan.scenario.spec.model.moe.experts
    return [
        (
            f"experts{_of(plan, role)}",
            f"{experts} + {_redundant(role)}; dispatch {role.dispatch}, messages {messages(role)}",
        )
        for role in plan.roles
        if role.topology.gpus > 1
    ]


def _redundant(role: RolePlan) -> str:
    """Redundant experts of a layer, and the slots; or the range, where layers share them."""
    split = role.split
    if split.layer_redundant is None:
        return f"{split.redundant} redundant in {role.slots_per_gpu} slots per GPU"
    low, high = min(split.layer_redundant), max(split.layer_redundant)
    return f"{low} to {high} redundant by layer, which share {split.redundant} each"


def _limit(figure: Figure | None, limit: float) -> str:
    if figure is None:
        return "-"
    verdict = "met" if figure.value <= limit else f"MISSED by {figure.value / limit - 1:.2%} on the routing that judges"
    interval = "" if figure.interval is None else f"{ends(figure.interval)}; "
    return f"{figure.value:,.2f} ms ({interval}at most {limit:g} ms: {verdict})"


def _judged(plan: Plan) -> str:
    routing = plan.provenance.routing
    if routing.judged_on == "all":
        return "judged on the routing solved on (nothing held out)"
    kind = "synthetic" if routing.synthetic else "recorded"
    return f"judged on held-out {kind} routing ({grouped(routing.tokens_judged)} tokens)"


def _against(plan: Plan) -> list[RenderableType]:
    """The best recipes on the same GPUs."""
    choice = plan.choice
    if choice is None or not choice.rivals:
        return []
    rows = [("this plan", grouped(choice.priced_tokens_per_s), "100.0%", "-")]
    own = {(role.split.instances, role.role, role.degrees) for role in plan.roles}
    kinds = []
    for rival in choice.rivals:
        rate = rival.tokens_per_s or 0.0
        ratio = rate / choice.priced_tokens_per_s
        beyond = apart(plan.predicted.tokens_per_s, ratio)
        rows.append((rival.name, grouped(rate), f"{ratio:.1%}", "outside" if beyond else "within"))
        told = {
            (each.count, each.role, each.degrees): f"{each.count} {each.role} {each.degrees}" for each in rival.roles
        }
        same = ", as in this plan" if told.keys() == own else ""
        kinds.append((rival.name, " + ".join(told.values()) + same))
    title = heading("AGAINST", " the best recipes, each with experts placed by the load balancer")
    shown = 3 if plan.predicted.tokens_per_s.interval is None else 4
    table = columns(("", "tokens/s", "of plan", "interval")[:shown], [row[:shown] for row in rows], 0)
    return [_BLANK, title, table, fields(kinds)]


def _strategies(plan: Plan) -> list[RenderableType]:
    """Strategies over all roles at batches of their own, and each role's at one batch."""
    parts: list[RenderableType] = []
    table = totals(plan)
    if table is not None:
        filled = " and prefill fills" if any(role.largest_batch for role in plan.roles) else ""
        parts += [_BLANK, heading("STRATEGIES", f", each at the largest batch that it can hold{filled}"), table]
    for role in plan.roles:
        if role.topology.gpus == 1:
            continue
        of = f", {role.role}" if len(plan.roles) > 1 else ""
        batch = "" if role.role == "prefill" else f" at batch {role.split.batch}"
        parts += [_BLANK, heading("EXPERT PLACEMENT", f"{of}, priced for {role.phase}{batch}"), strategy_table(role)]
        parts.append(fields([("certificate", certificate(plan, role))]))
    return parts


def _memory_title(plan: Plan, role: RolePlan) -> str:
    memory = role.memory
    share = memory.total_bytes / memory.capacity_bytes
    stage = f" (stage {memory.stage})" if role.split.pp > 1 else ""
    of = f" {role.role}" if len(plan.roles) > 1 else ""
    return f" of the fullest{of} GPU{stage}: {gb(memory.total_bytes)} of {gb(memory.capacity_bytes)} HBM ({share:.0%})"


def _memory(lines: Sequence[MemoryLineRecord]) -> RenderableType:
    """The lines that take space."""
    return fields([(f"  {line.name}", f"{gb(line.bytes):>9}") for line in lines if line.bytes > 0])


def _details(plan: Plan, timings: TimingsRecord) -> list[tuple[str, str]]:
    """What few look at."""
    rows = []
    for role in plan.roles:
        split, of = role.split, _of(plan, role)
        said = [] if split.cut is None else ["layers " + " ".join(map(str, split.cut))]
        if split.recompute is not None:
            counts = ((mode, split.recompute.count(mode)) for mode in dict.fromkeys(split.recompute))
            said.append("recompute " + ", ".join(f"{mode} in {count}" for mode, count in counts))
        if said:
            rows.append((f"stages{of}", "; ".join(said)))
    for group in plan.nodes:
        held = ", ".join(
            f"{part.count} {plan.roles[part.instance].role} {plan.roles[part.instance].degrees} ({part.gpus} GPUs)"
            for part in group.holds
        )
        rows.append(("nodes", f"{group.nodes} of {group.pool}: {held}"))
    if plan.choice is not None:
        dropped = "".join(f"; {each.count:,} {each.role}: {each.reason}" for each in plan.choice.dropped)
        rows.append(("splits", f"{plan.choice.considered:,} priced, {plan.choice.kept} kept{dropped}"))
    made = f"routing {timings.routing_s:.1f}, split {timings.split_s:.1f}, solving {timings.solve_s:.1f}"
    return [*rows, ("seconds", made)]


def _last(plan: Plan, timings: TimingsRecord, out: str | None) -> Fields:
    """What was cut short, what to do next, and how long it took."""
    steps = [(name, command(step)) for name, step in next_steps(plan, out)]
    return fields([*_left_open(plan), *steps, ("made in", f"{timings.total_s:.1f} s")])


def _left_open(plan: Plan) -> list[tuple[str, str]]:
    """What the time limit left undone, and what the routing leaves open, where they did."""
    told = (("cut short", plan.provenance.cut_short), ("caution", plan.provenance.cautions))
    return [(name, "; ".join(parts)) for name, parts in told if parts]
