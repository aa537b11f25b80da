"""A simulated demand as text, within 80 columns."""

from __future__ import annotations

from rich.console import RenderableType

from placement.records.demand import DemandRecord, SpreadRecord, UseRecord
from placement.report.text import columns, fields, heading
from placement.report.units import grouped

HEADER = ("ms", "limit", "planned", "mean", "p50", "p95", "p99", "within limit")
BALANCED = {
    "planned": "requests by chance if they only prefill, else in turn",
    "random": "requests by chance",
    "round_robin": "requests in turn",
    "least_loaded": "a request where they have the fewest",
}


def demand_parts(demand: DemandRecord, gpus: int) -> list[RenderableType]:
    """The part of a screen that tells of a demand.

    Args:
        demand: What was simulated. gpus: of the deployment.
    """
    rows = [_row(name, spread) for name, spread in demand.spreads]
    return [
        heading("DEMAND", f"  {_asked(demand)}"),
        columns(HEADER, rows),
        fields([*_served(demand), *_busy(demand), ("verdict", _verdict(demand, gpus))]),
    ]


def _asked(demand: DemandRecord) -> str:
    if demand.in_flight is not None:
        who = f"{demand.in_flight:,} requests in flight"
    else:
        how = "at random" if demand.kind == "random" else "as recorded"
        who = f"{_rate(demand.asked_requests_per_s or 0.0)} requests/s {how}"
    return f"{who}, {demand.isl:,.0f} in / {demand.osl:,.0f} out"


def _rate(value: float) -> str:
    return grouped(value, 0 if value >= 100 else 2)


def _ms(value: float | None) -> str:
    return "-" if value is None else grouped(value, 1)


def _row(name: str, spread: SpreadRecord) -> tuple[str, ...]:
    mean = f"{_ms(spread.mean_ms)} ±{max(spread.error_ms, 0.05):.1f}"
    within = f"{spread.within:.1%}"
    quantiles = (_ms(each) for each in (spread.p50_ms, spread.p95_ms, spread.p99_ms))
    return (name, _ms(spread.limit_ms), _ms(spread.planned_ms), mean, *quantiles, within)


def _served(demand: DemandRecord) -> list[tuple[str, str]]:
    cut = f", the first {demand.cut:,} cut off" if demand.cut else ""
    return [
        ("served", f"{_rate(demand.served_requests_per_s)} requests/s, {grouped(demand.served_tokens_per_s)} tokens/s"),
        ("goodput", f"{_rate(demand.goodput_requests_per_s)} requests/s within both limits"),
        ("ranks get", BALANCED[demand.load_balance]),
        ("simulated", f"{demand.simulated:,} requests{cut}"),
    ]


def _verdict(demand: DemandRecord, gpus: int) -> str:
    if demand.grows:
        first = "more is asked than served: the line grows without end"
    elif demand.holds_p95:
        return f"these {gpus:,} GPUs hold both limits for 95 of 100 requests"
    else:
        first = "mean within the limits, p95 over" if demand.holds_mean else "over the limits"
        late = [
            f"{name} {_ms(spread.p95_ms)} > {_ms(spread.limit_ms)}"
            for name, spread in demand.spreads
            if spread.p95_ms > spread.limit_ms
        ]
        first += f": {', '.join(late)}" if late else ""
    hold = demand.hold
    if hold is None:
        return first
    if hold.share == 0:
        return f"{first}. No load is light enough for p95"
    held = (
        f"{demand.in_flight * hold.share:,.0f} in flight"
        if demand.in_flight is not None
        else f"{_rate((demand.asked_requests_per_s or 0.0) * hold.share)} requests/s"
    )
    more = f"; for all, {hold.gpus:,} GPUs hold it" if hold.gpus is not None else ""
    return f"{first}. These GPUs hold p95 up to {held}{more}"


def _busy(demand: DemandRecord) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for use in demand.use:
        parts = [f"{use.prefilling:.0%} of the time in prefill"] if use.role != "decode" else []
        parts += [f"{use.decoding:,.1f} of {use.fit:,} sequences"] if use.role != "prefill" else []
        lines.append((use.role, f"{_servers(use)}: {', '.join(parts)}, {use.waiting:,.1f} waiting"))
    return lines


def _servers(use: UseRecord) -> str:
    share = f" ({use.simulated:,} simulated)" if use.simulated < use.servers else ""
    return f"each of {use.servers:,} ranks{share}"
