"""What a role's layers are worth to its plan: a half that carries all that the other one does has nothing to gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from placement.cost.step.roles import (
    Handed,
    InstancePoint,
    RoleRate,
    deployment_requests_per_s,
    handed_over,
    kv_bytes_per_request,
)
from placement.planning.choose import ChosenRole


@dataclass(frozen=True)
class Carried:
    """Requests/s that all instances of a role carry together: those that are known, and the most of any placement.

    Attributes:
        given: Of a planned prefill role, by strategy: what its instances are given.
    """

    chosen: ChosenRole
    known: float = 0.0
    most: float = math.inf
    given: Mapping[str, float] = field(default_factory=dict)

    def at(self, requests_per_s: float) -> RoleRate:
        """The role where it carries so many."""
        point = InstancePoint(requests_per_s, None, None)
        nic = self.chosen.scenario.cluster.slow.bytes_per_s
        return RoleRate(self.chosen.role, 1, self.chosen.split.gpus, point, nic)


def carried(chosen: ChosenRole, requests_per_s: float, gap: float | None, stake: float) -> Carried:
    """A role that is planned.

    Args:
        gap: (objective - bound) / bound of its layers' times; None: nothing is proven. stake: See `moe_stake`.
    """
    if gap is None:
        return Carried(chosen, requests_per_s)
    left = stake * gap / (1 + gap)
    return Carried(chosen, requests_per_s, requests_per_s / (1 - left) if left < 1 else math.inf)


def handed(own: ChosenRole, others: Sequence[Carried], strategy: str) -> Handed | None:
    """What the rest of a plan hands to its only role that decodes, under a strategy; None where that is not known."""
    prefill = [each for each in others if each.chosen.role == "prefill"]
    alone = own.role == "decode" and all(each.chosen.role != "decode" for each in others)
    if not alone or not prefill or any(not each.given.get(strategy) for each in prefill):
        return None
    rates = [each.at(each.given[strategy]) for each in prefill]
    return handed_over(rates, Carried(own).at(math.inf), kv_bytes_per_request(own.scenario))


def enough(own: Carried, others: Sequence[Carried], gap: float) -> bool:
    """Whether a role carries as much as counts: with more, the plan would serve no more at all, whatever the others
    come to, or all that is left to gain of it is a share of `gap`."""
    kv_bytes, role = kv_bytes_per_request(own.chosen.scenario), own.chosen.role

    def served(rate: float, of_others: Sequence[float]) -> float:
        rest = [each.at(its) for each, its in zip(others, of_others, strict=True)]
        return deployment_requests_per_s([own.at(rate), *rest], kv_bytes)

    most = served(math.inf, [each.most for each in others])
    # It is worth the most where its own half has no more of others than is known, and the other half all that it may.
    least = served(own.known, [each.known if each.chosen.role == role else each.most for each in others])
    known = served(own.known, [each.known for each in others])
    return most < math.inf and most <= max(least, known * (1 + gap))
