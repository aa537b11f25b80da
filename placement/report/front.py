"""A front of deployments as text."""

from __future__ import annotations

from rich.text import Text

from placement.records.front import Front
from placement.report.certainty import ends
from placement.report.text import columns, heading, rendered
from placement.report.units import grouped

HEADER = (
    "TPOT at most, ms",
    "tokens/s per user",
    "tokens/s per GPU",
    "tokens/s",
    "GPUs",
    "TTFT ms",
    "interval of tokens/s",
)


def front_text(front: Front) -> str:
    """Tokens/s per GPU against tokens/s per user, and the instances of each limit."""
    rows = [
        (
            f"{answer.tpot_limit_ms:g}",
            "-" if not answer.tpot_ms else f"{1e3 / answer.tpot_ms:,.1f}",
            grouped(answer.tokens_per_s_per_gpu),
            grouped(answer.tokens_per_s),
            grouped(answer.gpus),
            "-" if answer.ttft_ms is None else f"{answer.ttft_ms:,.0f}",
            "-" if answer.interval is None else ends(answer.interval),
        )
        for answer in front.answers
    ]
    shown = len(HEADER) - all(answer.interval is None for answer in front.answers)
    sources = dict.fromkeys(answer.provenance for answer in front.answers if answer.provenance is not None)
    kinds = [Text(f"  {answer.tpot_limit_ms:g} ms: {' + '.join(answer.kinds)}") for answer in front.answers]
    told = [Text(f"figures  {', '.join(sources)}")] if sources else []
    title = heading("front of ", front.scenario)
    return rendered(
        [title, columns(HEADER[:shown], [row[:shown] for row in rows]), *told, Text(), heading("instances"), *kinds]
    )
