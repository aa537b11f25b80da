"""What a migration tells: the front of moves against gain, and the plan that a budget buys."""

from __future__ import annotations

from dataclasses import dataclass

from placement.problem.layer import Objective
from placement.records.layout import EngineName
from placement.records.plan import Plan, RoutingRecord
from placement.records.role import RoleName, RolePlan, one_of_role
from specs.workload import PlannedPhase


@dataclass(frozen=True)
class FrontRow:
    """What a number of moves yields; means over the MoE layers.

    Attributes:
        moves, share: experts that come to a GPU, in all layers, and as a share of all slots.
        transfer_ms: time that the busiest link is taken up. transfer_gb: bytes that arrive at GPUs.
        objective: on the routing solved on (seconds, or max over mean). gain, held_out_gain: share of the full
            re-solve's gain over the running placement, there and on held-out routing; None where that gains nothing.
        moe_layer_us, balancedness, remote_nodes_per_token: on held-out routing (the last NaN without token sets).
    """

    moves: int
    share: float
    transfer_ms: float
    transfer_gb: float
    objective: float
    gain: float | None
    held_out_gain: float | None
    moe_layer_us: float
    balancedness: float
    remote_nodes_per_token: float


@dataclass(frozen=True)
class RoleMigration:
    """One role's front on new routing; slots, moves and times are of one of its instances.

    Attributes:
        slots: of all layers. forced_moves: what failed, leaving or joining GPUs force.
        gpus: expert-parallel ranks that work. batch: sequences of an attention rank. gpus_before, batch_before: as it
            ran, where the number of GPUs changes.
        before: the running placement, None where it can't go on as it is. rows: the front. chosen: what the
            budget buys, and `plan` the migrated role; None without a budget.
    """

    role: RoleName
    phase: PlannedPhase
    slots: int
    failed_gpus: tuple[int, ...]
    forced_moves: int
    gpus_before: int | None
    gpus: int
    batch_before: int | None
    batch: int
    before: FrontRow | None
    rows: tuple[FrontRow, ...]
    chosen: FrontRow | None
    plan: RolePlan | None

    def __repr__(self) -> str:
        bought = "no budget" if self.chosen is None else f"{self.chosen.moves:,} moves chosen"
        return f"{self.role} {bought}, {len(self.rows)} points, {self.slots:,} slots"


@dataclass(frozen=True)
class Migration:
    """A plan's fronts on new routing.

    Attributes:
        roles: those that moved, in the plan's order.
        plan: the migrated plan; None without a budget.
    """

    scenario: str
    engine: EngineName
    objective: Objective
    routing: RoutingRecord
    roles: tuple[RoleMigration, ...]
    plan: Plan | None

    def role(self, name: RoleName | str | None = None) -> RoleMigration:
        """The role of that name, or the only one.

        Raises:
            ParameterError: There is none, or there are several.
        """
        return one_of_role(self.roles, name)

    def __repr__(self) -> str:
        return f"<Migration of {self.scenario}: {'; '.join(map(repr, self.roles))}>"
