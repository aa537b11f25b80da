"""The master problem: how many instances of which column to run in the nodes of each pool of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from placement.cost.step.roles import InstancePoint, Role, RoleRate, deployment_requests_per_s
from placement.problem.split import Split

Goal = Literal["rate", "gpus"]


@dataclass(frozen=True)
class Pool:
    """Nodes of one kind of GPU.

    Attributes:
        nodes, gpus_per_node: its fast-link domains. nic_bytes_per_s: of one GPU, per direction, for KV transfers.
    """

    name: str
    nodes: int
    gpus_per_node: int
    nic_bytes_per_s: float

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Column:
    """One feasible instance configuration.

    Attributes:
        pool: index of the pool it runs in. split: with `instances` 1. point: what an instance yields.
        moe_source: where the times of its MoE layers come from. cp: attention ranks that share a prompt.
    """

    pool: int
    role: Role
    split: Split
    point: InstancePoint
    moe_source: str = "balanced estimate"
    cp: int = 1

    @property
    def gpus(self) -> int:
        return self.split.gpus_per_instance


@dataclass(frozen=True)
class MasterProblem:
    """Which counts of columns serve the most requests/s, or a wanted rate with the fewest GPUs.

    Attributes:
        kv_bytes: of a request that is prefilled in one instance and decoded in another.
        target: requests/s wanted at least, for the goal "gpus".
        max_kinds: most columns that are used; None: any number. Each role then has at most max_kinds - 1, and one.
    """

    pools: tuple[Pool, ...]
    columns: tuple[Column, ...]
    kv_bytes: float
    goal: Goal = "rate"
    target: float = 0.0
    max_kinds: int | None = None

    @property
    def max_kinds_per_role(self) -> int | None:
        """Most columns of a role that are used."""
        return None if self.max_kinds is None else max(1, self.max_kinds - 1)

    @property
    def serves(self) -> bool:
        """Whether there are columns that serve whole requests, or both halves."""
        roles = {column.role for column in self.columns}
        return "aggregated" in roles or {"prefill", "decode"} <= roles

    def whole(self, column: Column) -> int:
        """Nodes that an instance fills."""
        return column.gpus // self.pools[column.pool].gpus_per_node

    def piece(self, column: Column) -> int:
        """GPUs of an instance in one more node, which others may share."""
        return column.gpus % self.pools[column.pool].gpus_per_node

    def most_instances(self, column: Column) -> int:
        """No more instances of a column than these lie in its pool, if nothing else does."""
        pool, whole = self.pools[column.pool], self.whole(column)
        return pool.nodes // whole if whole else pool.nodes * (pool.gpus_per_node // column.gpus)

    def requests_per_s(self, counts: Sequence[int]) -> float:
        """Requests/s of a deployment, by placement.cost."""
        return deployment_requests_per_s(
            [
                RoleRate(c.role, n, c.gpus, c.point, self.pools[c.pool].nic_bytes_per_s)
                for c, n in zip(self.columns, counts, strict=True)
            ],
            self.kv_bytes,
        )

    def gpus(self, counts: Sequence[int]) -> int:
        """GPUs of a deployment."""
        return sum(c.gpus * n for c, n in zip(self.columns, counts, strict=True))


@dataclass(frozen=True)
class Deployment:
    """An answer of the master problem.

    Attributes:
        counts: [columns] instances of each.
        requests_per_s, gpus: by placement.cost.
        bound: proven: no deployment serves more requests/s (goal "rate"), or the target with fewer GPUs (goal "gpus").
        optimal: the answer meets its bound. solver: which proved it.
    """

    goal: Goal
    counts: tuple[int, ...]
    requests_per_s: float
    gpus: int
    bound: float
    optimal: bool
    solver: str

    @property
    def gap(self) -> float:
        """Relative distance of the answer from its bound; 0 where it is proven optimal."""
        if self.optimal:
            return 0.0
        served = self.bound / self.requests_per_s - 1.0 if self.requests_per_s > 0 else float("inf")
        return served if self.goal == "rate" else self.gpus / self.bound - 1.0
