"""Rivals as records for files."""

from __future__ import annotations

from collections.abc import Sequence

from placement.records.rival import RivalInstances, RivalRecord
from solvers.deploy.problem import Column, Pool
from solvers.deploy.rivals.rate import Rival


def rival_record(rival: Rival, pools: Sequence[Pool], osl: int) -> RivalRecord:
    """A rival as a record; `osl`: output tokens of a request."""
    kinds = sorted(rival.kinds, key=lambda kind: -kind[0].gpus * kind[1])
    return RivalRecord(
        name=rival.name,
        source=rival.source,
        roles=tuple(_instances(pools, column, count) for column, count in kinds),
        tokens_per_s=rival.requests_per_s * osl if rival.feasible else None,
        ttft_ms=_ms(rival.ttft_s),
        tpot_ms=_ms(rival.tpot_s),
        gpus=rival.gpus,
        why=rival.why,
    )


def _instances(pools: Sequence[Pool], column: Column, count: int) -> RivalInstances:
    split, point = column.split, column.point
    return RivalInstances(
        role=column.role,
        pool=pools[column.pool].name,
        count=count,
        gpus=column.gpus,
        tp=split.tp,
        ep=split.ep,
        etp=split.etp,
        pp=split.pp,
        dp=split.dp,
        cp=column.cp,
        batch=split.batch,
        redundant=split.redundant,
        slots_per_gpu=split.slots_per_gpu,
        requests_per_s=point.requests_per_s,
        ttft_ms=_ms(point.ttft_s),
        tpot_ms=_ms(point.tpot_s),
        moe_layer=column.moe_source,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
