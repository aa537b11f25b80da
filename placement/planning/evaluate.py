"""Scores a plan, and the baselines it holds, on other routing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from placement.cost.figures import Placement
    from placement.records.plan import Plan
    from placement.report.evaluation import Evaluation


def evaluate_plan(
    plan: Plan,
    trace: str,
    part: Literal["all", "first-half", "second-half"] = "all",
    windows: int = 1,
    weight_levels: int | None = None,
) -> Evaluation:
    """The figures of a plan and of its baselines on one file of recorded routing.

    Every placement (and, for `planned` dispatch, every fraction) is the one that stands in the plan: nothing is solved
    on this routing.

    Args:
        trace: a trace, or load counts. part: which sequences count. windows: load windows.
        weight_levels: score dispatch fractions rounded to whole multiples of 1 / weight_levels; None: as they are.

    Raises:
        InputError: routing that can't be read, is of another model, or has no such part.
    """
    from placement.cost.assess import Assessor
    from placement.errors import InputError
    from placement.records.convert import placement_of, strategy_record
    from placement.report.evaluation import Evaluation, Row
    from placement.routing.holdout import read_sources
    from placement.routing.parts import select_part
    from placement.routing.statistics import counts_statistics, layer_statistics
    from placement.routing.trace import LoadCounts

    scenario = plan.scenario.spec
    routing = read_sources(scenario.model, [trace])[0].routing
    if isinstance(routing, LoadCounts):
        if part != "all":
            raise InputError("--part", "", "load counts have no sequences to part", "leave --part out")
        statistics = counts_statistics(routing, scenario.model.moe.top_k)
        tokens = round(float(routing.counts[:, 0].sum()) / scenario.model.moe.top_k)
    else:
        chosen = select_part(routing, part)
        statistics, tokens = layer_statistics([chosen], windows), chosen.tokens
    split = plan.split.split()
    assessor = Assessor(scenario, split, plan.phase, statistics, plan.objective, failed_gpus=plan.failed_gpus)
    rows = []
    for strategy in plan.strategies:
        placed = placement_of(plan, strategy)
        if weight_levels is not None:
            placed = _with_whole_weights(placed, weight_levels)
        assessment = assessor.assess(placed)
        rows.append(Row(strategy.placements is None, strategy_record(strategy.name, assessment, None)))
    return Evaluation(routing.name, trace, part, tokens, routing.synthetic, tuple(rows))


def _with_whole_weights(placed: Placement, levels: int) -> Placement:
    from dataclasses import replace

    from solvers.dispatch import rounded_fractions

    return replace(
        placed,
        fractions=tuple(
            None if fractions is None else rounded_fractions(fractions, slots, levels)
            for slots, fractions in zip(placed.slots, placed.fractions, strict=True)
        ),
    )
