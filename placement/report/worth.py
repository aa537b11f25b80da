"""What is left to gain in a role's MoE layers, of the whole plan's tokens/s."""

from __future__ import annotations

import math

from placement.records.plan import Plan
from placement.records.role import RolePlan


def left_of_layers(role: RolePlan) -> float | None:
    """Share of an MoE layer's time that no placement is proven not to gain; None where no time is proven."""
    gap = role.certificate.gap
    return None if gap is None or role.certificate.unit != "us" else gap / (1 + gap)


def left_of_plan(plan: Plan, role: RolePlan) -> float | None:
    """Share of the plan's tokens/s that those are worth: none of a half that carries all that the other one does."""
    from placement.records.convert import tokens_per_s

    left = left_of_layers(role)
    if left is None or role.stake is None or role.phase == "train":
        return None
    scenario, gain = plan.scenario.spec, left * role.stake
    # A larger batch, within the limits, would carry what its other half gains.
    yields = {
        i: each.predicted.tokens_per_s.value if each.largest_batch is None else math.inf
        for i, each in enumerate(plan.roles)
    }
    more = {i: value * (1 + gain * (plan.roles[i] is role)) for i, value in yields.items()}
    whole = tokens_per_s(scenario, plan.roles, yields)
    return tokens_per_s(scenario, plan.roles, more) / whole - 1 if whole > 0 else None
