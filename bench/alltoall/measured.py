"""What a run measured: bytes by link against the scorer's, times, and the scorer's prediction beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.alltoall.job import PARTS, Job, Ran, RankRecord, matrix_of
from bench.alltoall.prepare import Expected, Prepared
from placement.problem.arrays import FloatArray, IntArray

#: Largest error of a token's result that counts as right, by what was sent, relative to the token's largest value.
TOLERANCE = {"bf16": 0.03, "fp8": 0.03, "fp32": 1e-5}


@dataclass(frozen=True)
class Bytes:
    """Bytes of one kind on the links, the diagonal left out.

    Attributes:
        matrix: [gpus][gpus] from rank to rank.
        within, across: sums inside nodes and between them.
        busiest_node: most that any node sends to others, or gets of them.
    """

    matrix: tuple[tuple[int, ...], ...]
    within: int
    across: int
    busiest_node: int

    @classmethod
    def of(cls, matrix: IntArray, gpus_per_node: int) -> Bytes:
        """The sums of a [gpus, gpus] matrix."""
        gpus = len(matrix)
        node = np.arange(gpus) // gpus_per_node
        same = node[:, None] == node[None, :]
        crossing = np.where(same, 0, matrix)
        ends = [np.bincount(node, crossing.sum(axis=axis)) for axis in (0, 1)]
        return cls(
            tuple(tuple(int(value) for value in row) for row in matrix),
            int(np.where(same, matrix, 0).sum()), int(crossing.sum()), round(float(np.max(ends))),
        )  # fmt: skip


@dataclass(frozen=True)
class Times:
    """Milliseconds over the repeats: `each` repeat's, and between the first and the last rank (`skew`, median)."""

    median_ms: float
    p95_ms: float
    skew_ms: float
    each_ms: tuple[float, ...]

    @classmethod
    def of(cls, seconds: FloatArray, skew: FloatArray) -> Times:
        """Of [repeats] seconds and [repeats] seconds of skew."""
        ms = seconds * 1e3
        return cls(
            float(np.median(ms)), float(np.percentile(ms, 95)), float(np.median(skew)) * 1e3,
            tuple(float(value) for value in ms),
        )  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One exchange: a layer under a layout.

    Attributes:
        dispatch_bytes, combine_bytes: hidden states. metadata_bytes: counts, slots and router weights.
        exact: whether senders and receivers both counted what the scorer says, byte for byte.
        dispatch, combine: from the first rank's start of a hop to the last rank's end, hops added up.
        moved: both together. pack, experts: of the slowest rank. metadata_ms: once, before the repeats.
        error: of the worst token against the reference. right: whether it is within TOLERANCE.
        predicted_ms: dispatch and combine by `score_layer`; drawn_ms: for these very tokens; None without known links.
    """

    layer: int
    layout: str
    rule: str
    dispatch_bytes: Bytes
    combine_bytes: Bytes
    metadata_bytes: Bytes
    exact: bool
    dispatch: Times
    combine: Times
    moved: Times
    pack: Times
    experts: Times
    metadata_ms: float
    error: float
    right: bool
    predicted_ms: float | None
    drawn_ms: float | None


@dataclass(frozen=True)
class Total:
    """A layout over all layers: medians over the repeats, added up over the layers."""

    layout: str
    rule: str
    across_bytes: int
    busiest_bytes: int
    dispatch_ms: float
    combine_ms: float
    moved_ms: float
    predicted_ms: float | None
    drawn_ms: float | None


@dataclass(frozen=True)
class Agreement:
    """Predicted against measured times.

    Attributes:
        layouts: how many; spearman: rank correlation over them (nan below 3).
        median_error: of |predicted / measured - 1| over layers and layouts; layout_error: over layouts.
        drawn_error: as median_error, for the prediction of the very tokens and draws.
    """

    layouts: int
    spearman: float
    median_error: float
    layout_error: float
    drawn_error: float


def measured(prepared: Prepared, ran: Ran, links_known: bool) -> tuple[Measured, ...]:
    """Every exchange of a run, layer by layer. A single rank has no links to predict."""
    links_known = links_known and prepared.job.gpus > 1
    found = []
    for work, told, records in zip(prepared.job.layers, prepared.expected, ran.records, strict=True):
        for exchange, expected, each in zip(work.exchanges, told, records, strict=True):
            found.append(
                _measured(prepared.job, work.layer, exchange.layout, exchange.rule, expected, each, ran, links_known)
            )
    return tuple(found)


def _measured(
    job: Job, layer: int, layout: str, rule: str, expected: Expected, records: tuple[RankRecord, ...], ran: Ran,
    links_known: bool,
) -> Measured:  # fmt: skip
    m = job.gpus_per_node
    sent = {kind: matrix_of(records, kind, "sent") for kind in ("dispatch", "combine", "metadata")}
    exact = all(
        np.array_equal(matrix, wanted)
        for kind, wanted in (("dispatch", expected.dispatch_bytes), ("combine", expected.combine_bytes))
        for matrix in (sent[kind], matrix_of(records, kind, "received"))
    )
    begun, ended = np.stack([r.begun for r in records]), np.stack([r.ended for r in records])
    lasted = ended - begun
    # Ranks of one machine share a clock; else the longest of their own times has to do.
    span = ended.max(axis=0) - begun.min(axis=0) if ran.one_machine else lasted.max(axis=0)
    skew = lasted.max(axis=0) - lasted.min(axis=0)

    def times(*parts: str) -> Times:
        places = [PARTS.index(part) for part in parts]
        return Times.of(span[:, places].sum(axis=1), skew[:, places].max(axis=1))

    pack = PARTS.index("pack")
    error = max(record.error for record in records)
    return Measured(
        layer=layer,
        layout=layout,
        rule=rule,
        dispatch_bytes=Bytes.of(sent["dispatch"], m),
        combine_bytes=Bytes.of(sent["combine"], m),
        metadata_bytes=Bytes.of(sent["metadata"], m),
        exact=exact,
        dispatch=times("dispatch_across", "dispatch_within"),
        combine=times("combine_across", "combine_within"),
        moved=times("dispatch_across", "dispatch_within", "combine_across", "combine_within"),
        pack=Times.of(lasted[:, :, pack].max(axis=0), skew[:, pack]),
        experts=times("experts"),
        metadata_ms=max(record.metadata_s for record in records) * 1e3,
        error=error,
        right=error <= TOLERANCE[job.wire],
        predicted_ms=(expected.dispatch_s + expected.combine_s) * 1e3 if links_known else None,
        drawn_ms=sum(expected.drawn_s) * 1e3 if links_known else None,
    )


def totals(exchanges: Sequence[Measured]) -> tuple[Total, ...]:
    """Each layout over its layers, in the order of first appearance."""
    found = []
    for name in dict.fromkeys(each.layout for each in exchanges):
        own = [each for each in exchanges if each.layout == name]
        known = all(each.predicted_ms is not None for each in own)
        found.append(
            Total(
                layout=name,
                rule=own[0].rule,
                across_bytes=sum(each.dispatch_bytes.across + each.combine_bytes.across for each in own),
                busiest_bytes=sum(each.dispatch_bytes.busiest_node + each.combine_bytes.busiest_node for each in own),
                dispatch_ms=sum(each.dispatch.median_ms for each in own),
                combine_ms=sum(each.combine.median_ms for each in own),
                moved_ms=sum(each.moved.median_ms for each in own),
                predicted_ms=sum(each.predicted_ms or 0.0 for each in own) if known else None,
                drawn_ms=sum(each.drawn_ms or 0.0 for each in own) if known else None,
            )
        )
    return tuple(found)


def agreement(exchanges: Sequence[Measured]) -> Agreement | None:
    """Predicted against measured; None where the links are not known."""
    if not exchanges or any(each.predicted_ms is None for each in exchanges):
        return None
    from scipy.stats import spearmanr

    found = totals(exchanges)
    measured_ms = np.array([each.moved.median_ms for each in exchanges])
    by_layout = np.array([each.moved_ms for each in found])
    predicted = np.array([each.predicted_ms for each in found], dtype=np.float64)
    correlation = float(spearmanr(predicted, by_layout).statistic) if len(found) > 2 else float("nan")

    def error(told: Sequence[float | None], seen: FloatArray) -> float:
        return float(np.median(np.abs(np.array(told, dtype=np.float64) / seen - 1)))

    return Agreement(
        layouts=len(found),
        spearman=correlation,
        median_error=error([each.predicted_ms for each in exchanges], measured_ms),
        layout_error=error([each.predicted_ms for each in found], by_layout),
        drawn_error=error([each.drawn_ms for each in exchanges], measured_ms),
    )
