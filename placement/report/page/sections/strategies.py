"""Strategies compared: at one batch, and each at its own."""

from __future__ import annotations

from placement.records.plan import Plan
from placement.records.role import OperationRecord, RolePlan, StrategyRecord
from placement.report.page.blocks import Bars, Block, Prose, Section, Table
from placement.report.page.sections.words import at_own, difference, than_rival, tokens_per_s, told
from placement.report.strategies import strategy_header, strategy_row
from placement.report.units import grouped, or_dash


def strategies(plan: Plan, role: RolePlan) -> Section:
    """Every strategy's figures beside the plan's own."""
    rows, own, routing = role.strategies, role.own, plan.provenance.routing
    if not rows:
        return Section("Strategies compared", (Prose("The plan holds no other strategy's figures."),))
    strong = None if own is None else rows.index(own)
    judged = (
        "All are judged on the routing that the plan was solved on: nothing was held out."
        if routing.judged_on == "all"
        else f"All are judged on routing that none was solved on ({grouped(routing.tokens_judged)} tokens)."
    )
    blocks: list[Block] = [Prose(f"{judged} Each strategy places the experts under the same split. {than_rival(role)}")]
    if any(row.at_own_batch is not None for row in rows):
        blocks += _own_batches(role, strong)
    blocks += [_one_batch(role, strong), _chart(role)]
    return Section("Strategies compared", tuple(blocks))


def _chart(role: RolePlan) -> Bars:
    batches = "each at its own batch" if at_own(role) else f"all at batch {role.split.batch}"
    rows = tuple((told(row.name, 40), tokens_per_s(role, row)) for row in role.strategies)
    return Bars("Tokens/s by strategy", f"Bars start at 0; {batches}.", "tokens/s", rows)


def _one_batch(role: RolePlan, strong: int | None) -> Table:
    header = (*strategy_header(role), "of plan")
    own = role.own
    rows = tuple(
        (*_cells(role, row), "-" if own is None else difference(row.tokens_per_s, own.tokens_per_s))
        for row in role.strategies
    )
    return Table(f"At one batch: {role.split.batch} per attention rank", header, rows, strong)


def _cells(role: RolePlan, row: StrategyRecord) -> tuple[str, ...]:
    name, *figures = strategy_row(role, row)
    return (told(name, 40), *figures)


def _own_batches(role: RolePlan, strong: int | None) -> list[Block]:
    header = ("strategy", "batch", "requests/s", "TTFT ms", "TPOT ms", "tokens/s", "of plan")
    filled = "" if role.largest_batch is None else ", or the smallest that carries what prefill hands over"
    own = role.own.at_own_batch if role.own is not None else None
    rows = tuple((told(row.name, 40), *_operation(row.at_own_batch, own)) for row in role.strategies)
    return [
        Prose(
            "At its own batch a strategy runs the largest batch that meets TTFT and TPOT on the routing it was solved "
            f"on{filled}. It is judged on the other half, where it may miss them."
        ),
        Table("Each at its own batch", header, rows, strong),
    ]


def _operation(each: OperationRecord | None, own: OperationRecord | None) -> tuple[str, ...]:
    if each is None:
        return ("-",) * 6
    of_plan = "-" if own is None else difference(each.tokens_per_s, own.tokens_per_s)
    times = (or_dash(each.ttft_ms, 1), or_dash(each.tpot_ms))
    return (grouped(each.batch), or_dash(each.requests_per_s), *times, grouped(each.tokens_per_s), of_plan)
