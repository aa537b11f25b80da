"""Why a plan is as it is, and what to do next, in a few lines."""

from __future__ import annotations

from placement.records.choice import ChoiceRecord, RunnerUpRecord, WhatIfRecord
from placement.records.plan import Plan
from placement.records.role import RolePlan
from placement.report.certainty import apart
from placement.report.worth import left_of_layers, left_of_plan

#: A gain that nobody would notice.
_SMALL = 0.001
_WITHIN = ", within the interval"
_BINDS = {
    "TTFT": "TTFT: a larger batch would exceed the limit",
    "TPOT": "TPOT: a larger batch would exceed the limit",
    "HBM": "HBM: a larger batch does not fit",
    "engine": "the engine: it takes no more sequences at once",
    "pin": "the pinned batch",
    "arrivals": "arrivals that vary: an instance is never planned busier than 95%",
    "prefill": "prefill: it hands over no more",
    "links": "the links: they hand over no more KV caches",
}


def why(plan: Plan) -> list[tuple[str, str]]:
    """What binds, what came next, what a constraint costs, and where expert placement can't matter."""
    rows = []
    for role in plan.roles:
        if role.binds:
            of = f" ({role.role})" if len(plan.roles) > 1 else ""
            told = "; ".join(_BINDS[limit] for limit in role.binds)
            if role.largest_batch is not None:
                told += f"; a batch of {role.largest_batch} is within the limits, and would not fill"
            rows.append((f"binds{of}", told))
    choice = plan.choice
    if choice is not None:
        if choice.runner_up is not None:
            rows.append(("runner-up", f"{choice.runner_up.kinds}: {_beside(plan, choice, choice.runner_up)}"))
        if choice.max_kinds is not None and (choice.without_max_kinds or 0) > _SMALL:
            unit = "tokens/s" if choice.goal == "rate" else "GPUs"
            rows.append(
                (
                    "kinds",
                    f"at most {choice.max_kinds} (--max-kinds); more: {choice.without_max_kinds:.1%} better in {unit}",
                )
            )
        rows += _would_buy(plan, choice)
        if choice.idle_gpus:
            told = "no further instance of the chosen kinds fits" if choice.goal == "rate" else "the rest is enough"
            rows.append(("idle", f"{choice.idle_gpus} GPUs: {told}"))
    rows += _unmatched(plan)
    for role in plan.roles:
        rows += _placement(plan, role)
    return rows


def _would_buy(plan: Plan, choice: ChoiceRecord) -> list[tuple[str, str]]:
    """What other limits buy; once for all where all of it lies within the interval."""
    told = [f"{other.change}: {_beside(plan, choice, other)}" for other in choice.what_if]
    if len(told) > 1 and all(each.endswith(_WITHIN) for each in told):
        told = [*(each.removesuffix(_WITHIN) for each in told), "all within the interval"]
    return [("would buy" if i == 0 else "", each) for i, each in enumerate(told)]


def _beside(plan: Plan, choice: ChoiceRecord, other: RunnerUpRecord | WhatIfRecord) -> str:
    """Another answer beside the plan, in what answers are compared by."""
    if choice.goal == "gpus" and other.gpus is not None:
        return "no fewer GPUs" if other.gpus == plan.gpus else f"{other.gpus:,} GPUs instead of {plan.gpus:,}"
    ratio = other.tokens_per_s / choice.priced_tokens_per_s
    within = _WITHIN if apart(plan.predicted.tokens_per_s, ratio) is False else ""
    return f"{ratio - 1:+.1%} tokens/s{within}"


def _unmatched(plan: Plan) -> list[tuple[str, str]]:
    """Roles that serve more requests than their other half."""
    workload = plan.scenario.spec.workload
    halves = {role.role: 0.0 for role in plan.roles if role.role in ("prefill", "decode")}
    if workload.kind != "serving" or len(halves) < 2:
        return []
    for role in plan.roles:
        if role.role in halves:
            halves[role.role] += role.predicted.tokens_per_s.value / workload.osl
    (few, low), (many, high) = sorted(halves.items(), key=lambda item: item[1])
    if low <= 0 or high / low - 1 < 0.02:
        return []
    told = f"{many} serves {high:,.1f} requests/s, {few} {low:,.1f}: GPUs for {few} would use the rest"
    return [("unmatched", told)]


def _placement(plan: Plan, role: RolePlan) -> list[tuple[str, str]]:
    """Where expert placement can't matter, and what it gains where it can."""
    of = f" ({role.role})" if len(plan.roles) > 1 else ""
    if role.topology.gpus == 1:
        part = "all experts" if role.split.etp == 1 else f"1/{role.split.etp} of every expert"
        where = "" if role.split.pp == 1 else " of its stage"
        return [(f"placement{of}", f"every GPU holds {part}{where}: there is nothing to place")]
    if set(role.messages.values()) == {"dense"}:
        told = "the engine sends every token to every GPU: placement buys balance alone"
    elif role.topology.gpus <= role.topology.gpus_per_node:
        told = "every instance lies inside one node: no message leaves it, placement buys balance and little traffic"
    else:
        nodes = role.topology.gpus // role.topology.gpus_per_node
        told = f"an instance spans {nodes} nodes: placement decides what crosses between them"
    best = _best_baseline(role)
    if best is not None:
        told += f"; no strategy serves more than {best}"
    if (left := left_of_layers(role)) is not None:
        told += f"; at most {left:.1%} of an MoE layer's time is left to gain"
        if (worth := left_of_plan(plan, role)) is not None:
            told += f", about {worth:.1%} of tokens/s"
            if role.stake is not None and worth < left * role.stake * (1 - _SMALL):
                told += ": the other half carries no more"
    return [(f"placement{of}", told)]


def _best_baseline(role: RolePlan) -> str | None:
    """The baseline that no search could beat by more than nobody would notice; None where one did."""
    own = role.own
    rivals = [row for row in role.strategies if row.placements is not None and row.at_own_batch is not None]
    if own is None or own.at_own_batch is None or not rivals:
        return None
    best = max(rivals, key=lambda row: row.at_own_batch.tokens_per_s if row.at_own_batch else 0.0)
    reached = best.at_own_batch.tokens_per_s if best.at_own_batch else 0.0
    return best.name if own.at_own_batch.tokens_per_s <= reached * (1 + _SMALL) else None


def next_steps(plan: Plan, out: str | None) -> list[tuple[str, str]]:
    """Commands that a user would run next."""
    if out is None:
        steps = ["add --out plan.json to keep the plan"]
    else:
        steps = [
            f"placement verify {out}",
            f"placement report {out} --out report.html",
            "  (needs pip install 'placement[report]')",
        ]
        if plan.engine.name != "generic":
            steps.insert(1, f"placement export --plan {out} --to {plan.engine.name} --out DIR")
        elif plan.scenario.spec.workload.kind == "serving":
            steps.insert(1, "plan for your engine: --engine vllm, sglang or trtllm; then export")
    if plan.provenance.routing.synthetic:
        steps.append("record your own routing: placement trace record --help")
    return [("next" if i == 0 else "", step) for i, step in enumerate(steps)]
