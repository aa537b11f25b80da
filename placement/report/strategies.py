"""Strategies of a plan's role as rows of tables, and what is said of its certificate."""

from __future__ import annotations

from placement.records.plan import Plan
from placement.records.role import RolePlan, StrategyRecord
from placement.report.text import Columns, columns
from placement.report.units import grouped, kb, or_dash, us
from placement.report.worth import left_of_plan

#: How a certificate's unit reads after its figure.
_UNITS = {
    "us": " us per MoE layer",
    "max_over_mean": " x the mean GPU load",
    "bytes_per_token": " bytes between nodes per token",
}
#: Figures of a placement beside its layer times.
STRATEGY_HEADER = ("strategy", "balancedness", "nodes/ token", "cross-node kB/token")


def strategy_table(role: RolePlan) -> Columns:
    """Every strategy's figures, the plan's own marked; the last row is what the engine makes of that, if it differs."""
    rows = [strategy_row(role, strategy) for strategy in (*role.strategies, *([role.served] if role.served else []))]
    return columns(strategy_header(role), rows, own_row(role))


def own_row(role: RolePlan) -> int | None:
    """The place of the plan's own row."""
    return next((i for i, strategy in enumerate(role.strategies) if strategy.placements is None), None)


def strategy_header(role: RolePlan) -> tuple[str, ...]:
    """The names of `strategy_row`."""
    return (*STRATEGY_HEADER, *time_header(role), "tokens/s at one batch")


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
    """The names of `time_cells`: microseconds of an MoE layer in each phase of the role."""
    if role.phase == "train":
        return ("MoE layer us",)
    return tuple(f"{phase} us/layer" for phase in ("decode", "prefill") if phase in role.messages)


def time_cells(role: RolePlan, strategy: StrategyRecord) -> tuple[str, ...]:
    """Microseconds of an MoE layer, under `time_header`."""
    if role.phase == "train":
        return (us(strategy.moe_layer_us),)
    times = {"decode": strategy.decode_us, "prefill": strategy.prefill_us}
    return tuple("-" if times[phase] is None else us(times[phase]) for phase in times if phase in role.messages)  # type: ignore[arg-type]


def certificate(plan: Plan, role: RolePlan) -> str:
    """The certificate in one sentence."""
    record = role.certificate
    unit = _UNITS[record.unit]
    proven = sum(layer.status == "optimal" for layer in role.layers)
    if record.status == "optimal":
        told = f"proven optimal: no placement has less than {record.objective:.4g}{unit}"
    elif record.gap is None:
        told = f"nothing is proven of its {record.objective:.4g}{unit}"
    else:
        least = f"{record.bound:.4g}{unit}; this one has {record.objective:.4g}, a gap of {record.gap:.2%}"
        told = f"proven: no placement has less than {least}"
        if proven:
            told += f"; {proven} of {len(role.layers)} layers are optimal"
    return f"{told} (on the routing solved on){_unsearched(plan, role)}"


def _unsearched(plan: Plan, role: RolePlan) -> str:
    """In how many layers nothing was searched, and how near the optimum a heuristic is proven there."""
    settled = [layer for layer in role.layers if layer.termination == "proven"]
    if not settled or role.certificate.status == "optimal":
        return ""
    if len(settled) < len(role.layers):
        where = f"in {len(settled)} of {len(role.layers)} layers"
        return f"; a heuristic is proven near enough {where}: nothing to search there"
    left = left_of_plan(plan, role)
    near = "near enough" if left is None else f"within {left:.1%} of the plan's tokens/s"
    return f"; a heuristic is proven {near}: nothing to search"


def totals(plan: Plan) -> Columns | None:
    """Tokens/s of all roles under each strategy, at its own batch; None of plans that don't hold them."""
    from placement.records.convert import tokens_per_s

    names = [row.name for row in plan.roles[0].strategies]
    rows: list[tuple[str, ...]] = []
    yields: dict[str, float] = {}
    batches: dict[str, str] = {}
    for name in names:
        found = [role.strategy(name) for role in plan.roles]
        at = [row.at_own_batch for row in found if row is not None]
        if len(at) < len(plan.roles) or any(each is None for each in at):
            return None
        each = {i: operation.tokens_per_s for i, operation in enumerate(at) if operation is not None}
        yields[name] = tokens_per_s(plan.scenario.spec, plan.roles, each)
        told = [
            str(operation.batch)
            for role, operation in zip(plan.roles, at, strict=True)
            if operation is not None and role.role != "prefill"
        ]
        batches[name] = ", ".join(told)
    mark = own_row(plan.roles[0])
    own = yields[names[mark]] if mark is not None else max(yields.values())
    for name in names:
        missed = sorted({limit for role in plan.roles for limit in _missed(plan, role, name)})
        rows.append(
            (
                name, batches[name] or "-", grouped(yields[name]), f"{yields[name] / own:.1%}" if own else "-",
                ", ".join(missed) or "no",
            )
        )  # fmt: skip
    header = ("strategy", "batch of its own", "tokens/s at it", "of answer", "misses")
    return columns(header, rows, mark)


def _missed(plan: Plan, role: RolePlan, name: str) -> list[str]:
    """Limits that a strategy misses at its own batch on the routing that judges, and by how much."""
    workload, row = plan.scenario.spec.workload, role.strategy(name)
    if workload.kind != "serving" or row is None or row.at_own_batch is None:
        return []
    pairs = (
        ("TTFT", row.at_own_batch.ttft_ms, workload.ttft_ms),
        ("TPOT", row.at_own_batch.tpot_ms, workload.tpot_ms),
    )
    return [
        f"{limit} by {figure / most - 1:.1%}"
        for limit, figure, most in pairs
        if figure is not None and figure > most * (1 + 1e-9)
    ]
