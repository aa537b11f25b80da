"""Checks of the strategies that a role is held against: which there are, and that baselines are as built again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from placement.check.baselines import greedy, hash_order, in_turn, round_robin
from placement.check.case import PlanCase
from placement.check.failure import require
from placement.problem.arrays import IntArray
from placement.records.convert import placement_of
from placement.records.role import RUNNING, SOLVED, RolePlan

#: Strategies that every plan is held against, in the order of their rows.
BASELINES = ("hash", "linear", "round_robin", "greedy", "eplb")


def check_baselines(case: PlanCase) -> str:
    """The rows and their order; hash and linear hang on nothing but the experts."""
    role, asked = case.role, case.plan.provenance.strategy
    names = [row.name for row in role.strategies]
    own = asked if asked in BASELINES else SOLVED
    ran = [RUNNING] if asked == "migrate" and RUNNING in names else []
    wanted = [*BASELINES, *ran, *([] if own in BASELINES else [own])]
    require(names == wanted, f"strategies are {', '.join(names) or 'none'}, not {', '.join(wanted)}")
    alone = [row.name for row in role.strategies if row.placements is None]
    require(alone == [own], f"the plan's own placement stands for {', '.join(alone) or 'none'}, not {own}")
    orders: tuple[tuple[str, Callable[[int], IntArray]], ...] = (("hash", hash_order), ("linear", np.arange))
    for name, order in orders:
        built = [
            in_turn(order(moe.experts), case.capacity(i), case.widths[i])
            for i, moe in enumerate(case.scenario.model.moes)
        ]
        _check_rebuilt(role, name, built)
    return f"{len(names)} strategies, {own} is the plan's own; hash and linear as built again"


def _check_rebuilt(role: RolePlan, name: str, built: Sequence[IntArray]) -> None:
    """A strategy's placements are those built again, one a layer."""
    row = next(row for row in role.strategies if row.name == name)
    for layer, slots, derived in zip(role.layers, placement_of(role, row).slots, built, strict=True):
        require(np.array_equal(slots, derived), f"{name}, layer {layer.layer}: is not what {name} places")


def check_heuristics(case: PlanCase) -> str:
    """The baselines that look at loads."""
    for name, build in (("round_robin", round_robin), ("greedy", greedy)):
        _check_rebuilt(case.role, name, [build(problem) for problem in case.problems])
    return "round_robin and greedy as built again from the loads"
