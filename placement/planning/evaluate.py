"""Scores a plan, and the baselines it holds, on other routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.errors import ParameterError
from placement.planning.case import AnyTrace
from placement.planning.current import current_record
from placement.planning.other_engine import on_engine
from placement.problem.data import LayerData
from placement.records.convert import placement_of, strategy_record
from placement.records.evaluation import Evaluation, RoleEvaluation, Row
from placement.records.plan import Plan
from placement.records.role import RolePlan, of_role
from placement.routing.holdout import read_sources
from placement.routing.parts import check_windows, select_part
from placement.routing.statistics import counts_statistics, layer_statistics
from placement.routing.trace import LoadCounts, Trace
from solvers.dispatch import rounded_fractions

Part = Literal["all", "first-half", "second-half"]
PARTS: tuple[Part, ...] = get_args(Part)


def evaluate_plan(
    plan: Plan, trace: AnyTrace, *, part: Part = "all", windows: int = 1, weight_levels: int | None = None,
    engine: str | None = None, role: str | None = None, current: str | Path | None = None,
) -> Evaluation:  # fmt: skip
    """The figures of a plan and of its baselines on recorded routing.

    Every placement (and, for `planned` dispatch, every fraction) is the one that stands in the plan: nothing is solved
    on this routing.

    Args:
        plan: The plan.
        trace: Recorded routing: an object of `load_trace`, or a path.
        part: Which sequences count.
        windows: Load windows.
        weight_levels: Score dispatch fractions rounded to whole multiples of 1 / weight_levels; None: as they are.
        engine: The engine that runs the plan, NAME[:BACKEND] or a file; None: the plan's own.
        role: Which role; None: all.
        current: A file of the engine that runs: its map becomes a row, "current", of the role named or the only one.

    Raises:
        InputError: Routing that can't be read, is of another model, or has no such part.
    """
    if part not in PARTS:
        raise ParameterError("part", f"{part!r} is no part", f"choose {', '.join(PARTS)}")
    plan = on_engine(plan, engine)
    roles = of_role(plan.roles, role) if current is None else (plan.role(role),)
    model = plan.scenario.spec.model
    routing = read_sources(model, [trace])[0].routing
    if isinstance(routing, LoadCounts):
        check_windows(routing, windows)
        if part != "all":
            raise ParameterError("part", "load counts have no sequences to part", "leave `part` out")
        statistics = counts_statistics(routing, model.moe.computed_top_k)
        tokens = round(float(routing.counts[:, 0].sum()) / model.moe.computed_top_k)
    else:
        chosen = select_part(routing, part)
        check_windows(chosen, windows)
        statistics, tokens = layer_statistics([chosen], windows), chosen.tokens
    told = tuple(RoleEvaluation(of.role, _rows(plan, of, statistics, weight_levels, current)) for of in roles)
    file = "" if isinstance(trace, Trace | LoadCounts) else str(trace)
    return Evaluation(routing.name, file, part, tokens, routing.synthetic, told)


def _rows(
    plan: Plan, of: RolePlan, statistics: Sequence[LayerData], weight_levels: int | None, current: str | Path | None
) -> tuple[Row, ...]:
    """A role's strategies, then what runs."""
    assessor = Assessor(
        plan.scenario_of(of), of.split.split(), of.phase, statistics, plan.objective, failed_gpus=of.failed_gpus,
        role=of.role, cp=of.cp, requests_per_s=of.requests_per_s,
    )  # fmt: skip
    rows = []
    for strategy in of.strategies:
        placed = placement_of(of, strategy)
        if weight_levels is not None:
            placed = _with_whole_weights(placed, weight_levels)
        rows.append(Row(strategy.placements is None, strategy_record(strategy.name, assessor.assess(placed), None)))
    if current is not None:
        rows.append(Row(False, current_record(plan, of, current, statistics)))
    return tuple(rows)


def _with_whole_weights(placed: Placement, levels: int) -> Placement:
    return replace(
        placed,
        fractions=tuple(
            None if fractions is None else rounded_fractions(fractions, slots, levels)
            for slots, fractions in zip(placed.slots, placed.fractions, strict=True)
        ),
    )
