"""How a plan's instances were chosen: among what, how near the best, and what came next."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from placement.records.base import Amount, Record, Text, Whole
from placement.records.rival import RivalRecord
from placement.records.role import LayerStatus
from specs.fields import Count


class DroppedRecord(Record):
    """Configurations of a role that were left out for one reason."""

    role: Text
    reason: Text
    count: Count


class RunnerUpRecord(Record):
    """The best answer that does without one of the chosen kinds; `gpus`: that it takes, null in older files."""

    kinds: Text
    tokens_per_s: Amount
    gpus: Count | None = None


class WhatIfRecord(Record):
    """What the choice would serve if one thing were otherwise; `gpus`: that it takes, null in older files."""

    change: Text
    tokens_per_s: Amount
    gpus: Count | None = None


class ChoiceRecord(Record):
    """The choice of instances.

    Attributes:
        goal: "rate": the most tokens/s; "gpus": the target with the fewest GPUs.
        priced_tokens_per_s: Of the answer, with experts placed by the load balancer, as it was compared with others.
        target_tokens_per_s: The target; null for the most tokens/s.
        bound: That no answer among the columns exceeds (tokens/s) or undercuts (GPUs); null where none is known. `gap`
            is the answer's relative distance, `status` "optimal" where that is 0; both are the solver's word.
        considered: Configurations priced, of `listed`; kept: those that no other rules out; thinned: some degrees were
            left out to bound the search.
        what_if: What other limits would serve, priced likewise; only there on request.
        rivals: The best recipes on the same GPUs, priced alike, best first.
        max_kinds: Most kinds of instances; `without_max_kinds`: share of tokens/s (or GPUs) that any number would gain.
    """

    goal: Literal["rate", "gpus"]
    priced_tokens_per_s: Amount
    target_tokens_per_s: Amount | None = None
    bound: Amount | None
    gap: Amount | None
    status: LayerStatus
    solver: Text
    considered: Whole
    listed: Whole
    kept: Whole
    thinned: bool
    dropped: Annotated[tuple[DroppedRecord, ...], Field(max_length=256)]
    idle_gpus: Whole
    runner_up: RunnerUpRecord | None = None
    max_kinds: Count | None = None
    without_max_kinds: Amount | None = None
    what_if: Annotated[tuple[WhatIfRecord, ...], Field(max_length=64)] = ()
    rivals: Annotated[tuple[RivalRecord, ...], Field(max_length=64)] = ()
