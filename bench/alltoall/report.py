"""The report of a run: a screen of text, JSON (docs/alltoall.md), and whether it passes."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.alltoall.fabric import Fabric
from bench.alltoall.job import Ran
from bench.alltoall.measured import Agreement, Measured, Total, agreement, totals
from bench.alltoall.prepare import Prepared, Settings
from placement.errors import CheckFailedError
from placement.report.text import columns, heading, rendered

SCHEMA = "placement.alltoall/1"


@dataclass(frozen=True)
class Uplink:
    """What one node's uplink carried in a layer's timed rounds, by the kernel's count, and the payload among it."""

    layer: int
    node: int
    out_bytes: int
    in_bytes: int
    payload_out_bytes: int
    payload_in_bytes: int


@dataclass(frozen=True)
class Report:
    """All of a run."""

    scenario: str
    plan: str
    ranks: int
    nodes: int
    tokens_per_rank: int
    repeated_tokens: int
    backend: str
    dtype: str
    experts: str
    warmup: int
    repeats: int
    seed: int
    device: str
    torch: str
    machine: str
    fabric: Fabric | None
    exchanges: tuple[Measured, ...]
    totals: tuple[Total, ...]
    agreement: Agreement | None
    uplinks: tuple[Uplink, ...]

    @classmethod
    def of(
        cls, scenario: str, plan: str, prepared: Prepared, ran: Ran, exchanges: tuple[Measured, ...],
        settings: Settings, fabric: Fabric | None,
    ) -> Report:  # fmt: skip
        """The report of a run."""
        job = prepared.job
        return cls(
            scenario=scenario,
            plan=plan,
            ranks=job.gpus,
            nodes=job.nodes,
            tokens_per_rank=settings.tokens_per_rank,
            repeated_tokens=prepared.sample.repeated,
            backend=job.backend,
            dtype=job.wire,
            experts=job.kind,
            warmup=job.warmup,
            repeats=job.repeats,
            seed=job.seed,
            device=ran.device,
            torch=ran.torch,
            machine=f"{platform.machine()} {platform.system()} {platform.release()}",
            fabric=fabric,
            exchanges=exchanges,
            totals=totals(exchanges),
            agreement=agreement(exchanges),
            uplinks=_uplinks(prepared, ran, exchanges),
        )


def _uplinks(prepared: Prepared, ran: Ran, exchanges: Sequence[Measured]) -> tuple[Uplink, ...]:
    job, found = prepared.job, []
    m = job.gpus_per_node
    for work, counts in zip(job.layers, ran.uplinks, strict=False):
        own = [each for each in exchanges if each.layer == work.layer]
        for node in range(job.nodes):
            inside = range(node * m, node * m + m)
            out_bytes = in_bytes = 0
            for each in own:
                for matrix in (each.dispatch_bytes.matrix, each.combine_bytes.matrix):
                    out_bytes += sum(matrix[a][b] for a in inside for b in range(job.gpus) if b not in inside)
                    in_bytes += sum(matrix[a][b] for b in inside for a in range(job.gpus) if a not in inside)
            count = counts[node * m]
            found.append(
                Uplink(
                    work.layer, node, count.out_bytes, count.in_bytes, out_bytes * job.repeats, in_bytes * job.repeats
                )
            )
    return tuple(found)


def report_json(report: Report) -> str:
    """The report as JSON."""
    data = asdict(report) | {"schema": SCHEMA}
    data["fabric"] = None if report.fabric is None else report.fabric.model_dump()
    if report.agreement is not None and math.isnan(report.agreement.spearman):
        data["agreement"]["spearman"] = None
    return json.dumps({"schema": SCHEMA} | data, allow_nan=False)


def report_text(report: Report) -> str:
    """The report as a screen of text."""
    told = "" if not report.repeated_tokens else f", {report.repeated_tokens} of them a second time"
    shown: list[object] = [
        heading(report.scenario, f"  {report.ranks} ranks on {report.nodes} nodes, {report.backend}, {report.device}"),
        f"{report.exchanges[0].rule}, {report.tokens_per_rank} tokens a rank{told}, {report.dtype}; "
        f"median and p95 of {report.repeats} in ms",
        "",
    ]
    layers = len({each.layer for each in report.exchanges})
    rows = [_row(each) for each in report.exchanges]
    shown += [columns(_HEADER, rows), ""]
    first = report.totals[0]
    if len(report.totals) > 1:
        shown.append(heading(f"All {layers} layers", f" (times against {first.layout})"))
        shown.append(columns(_TOTAL_HEADER, [_total_row(each, first) for each in report.totals]))
        shown.append("")
    exact = sum(each.exact for each in report.exchanges)
    right = sum(each.right for each in report.exchanges)
    worst = max(each.error for each in report.exchanges)
    shown.append(f"bytes exact: {exact} of {len(report.exchanges)}")
    shown.append(f"results right: {right} of {len(report.exchanges)} (largest error {worst:.2g})")
    if report.uplinks:
        carried, payload = (
            sum(getattr(u, name) for u in report.uplinks) for name in ("out_bytes", "payload_out_bytes")
        )
        shown.append(
            f"uplinks carried {carried * 1e-6:.1f} MB by the kernel's count, {payload * 1e-6:.1f} MB of it payload"
        )
    shown += agreement_lines(report.agreement)
    return rendered(shown)  # type: ignore[arg-type]


def agreement_lines(found: Agreement | None) -> list[str]:
    """Predicted against measured, in words."""
    if found is None:
        return ["no prediction: there are no links, or their rates are not known (give --fabric)"]
    rank = "" if math.isnan(found.spearman) else f"Spearman {found.spearman:.3f} over {found.layouts} layouts, "
    return [
        f"predicted against measured: {rank}median error {found.median_error:.1%} "
        f"({found.drawn_error:.1%} for the very tokens drawn)"
    ]


_HEADER = (
    "layer, layout", "MB within", "across", "busiest", "meta", "dispatch", "p95", "combine", "p95", "skew", "pack",
    "predicted",
)  # fmt: skip
_TOTAL_HEADER = ("layout", "rule", "MB across", "busiest", "dispatch", "combine", "both", "predicted", "ratio")


def _row(each: Measured) -> tuple[str, ...]:
    mega = 1e-6
    both = (each.dispatch_bytes, each.combine_bytes)
    return (
        f"{each.layer} {each.layout}", f"{sum(b.within for b in both) * mega:.2f}",
        f"{sum(b.across for b in both) * mega:.2f}", f"{sum(b.busiest_node for b in both) * mega:.2f}",
        f"{(each.metadata_bytes.within + each.metadata_bytes.across) * mega:.2f}",
        f"{each.dispatch.median_ms:.1f}", f"{each.dispatch.p95_ms:.1f}", f"{each.combine.median_ms:.1f}",
        f"{each.combine.p95_ms:.1f}", f"{each.moved.skew_ms:.1f}", f"{each.pack.median_ms:.1f}", _ms(each.predicted_ms),
    )  # fmt: skip


def _total_row(each: Total, first: Total) -> tuple[str, ...]:
    return (
        each.layout, each.rule, f"{each.across_bytes * 1e-6:.2f}", f"{each.busiest_bytes * 1e-6:.2f}",
        f"{each.dispatch_ms:.1f}", f"{each.combine_ms:.1f}", f"{each.moved_ms:.1f}", _ms(each.predicted_ms),
        f"{each.moved_ms / first.moved_ms:.3f}x",
    )  # fmt: skip


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def check(report: Report) -> None:
    """Raises CheckFailedError where bytes differ from the scorer's, or a result from the reference."""
    for each in report.exchanges:
        where = f"layer {each.layer} under {each.layout}"
        if not each.exact:
            raise CheckFailedError(f"{where}: the bytes on the links are not the scorer's, rank pair by rank pair")
        if not each.right:
            raise CheckFailedError(f"{where}: a token's result is off the reference by {each.error:.2g}")
