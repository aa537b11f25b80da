"""A rival of a plan: a recipe at its best on the same GPUs, under the same limits, priced by the same cost model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from placement.problem.split import degrees_text
from placement.records.base import Amount, Record, Text
from specs.fields import Count, Degree


class RivalInstances(Record):
    """Instances of one kind: role, pool, how many, GPUs of each, and the split of each.

    Attributes:
        cp: attention ranks that share a prompt. moe_layer: how the MoE layers in its figures were timed.
    """

    role: Literal["aggregated", "prefill", "decode"]
    pool: Text
    count: Degree
    gpus: Degree
    tp: Degree
    ep: Degree
    etp: Degree
    pp: Degree
    dp: Degree
    cp: Degree
    batch: Count
    redundant: Annotated[int, Field(ge=0)]
    slots_per_gpu: Annotated[int, Field(ge=1)]
    requests_per_s: Amount
    ttft_ms: Amount | None
    tpot_ms: Amount | None
    moe_layer: Text

    @property
    def degrees(self) -> str:
        """The degrees that are not 1, for people."""
        return degrees_text(self.tp, self.ep, self.pp, self.dp, self.cp)


class RivalRecord(Record):
    """A recipe's best deployment, or why it has none.

    Attributes:
        source: where the recipe comes from.
        roles: instances in use, largest part first; none where it has no deployment.
        ttft_ms, tpot_ms: of the slowest instances. gpus: in use.
        why: what keeps the recipe from a deployment; "" where it has one.
    """

    name: Text
    source: Text
    roles: tuple[RivalInstances, ...]
    tokens_per_s: Amount | None
    ttft_ms: Amount | None
    tpot_ms: Amount | None
    gpus: Annotated[int, Field(ge=0)]
    why: Text

    @property
    def feasible(self) -> bool:
        """Whether the recipe has a deployment."""
        return self.tokens_per_s is not None
