"""The front of deployments: what other TPOT limits would yield."""

from __future__ import annotations

from placement.records.front import Front
from placement.report.certainty import ends
from placement.report.page.blocks import Bars, Section, Table
from placement.report.page.sections.words import told
from placement.report.units import grouped, or_dash


def front_section(front: Front) -> Section:
    """A row for each TPOT limit, and its tokens/s per GPU as a bar."""
    header = (
        "TPOT at most, ms",
        "tokens/s per user",
        "tokens/s per GPU",
        "tokens/s",
        "GPUs",
        "TTFT ms",
        "interval",
        "instances",
    )
    rows = tuple(
        (
            f"{each.tpot_limit_ms:g}", or_dash(1e3 / each.tpot_ms if each.tpot_ms else None, 1),
            grouped(each.tokens_per_s_per_gpu, 1), grouped(each.tokens_per_s), grouped(each.gpus),
            or_dash(each.ttft_ms, 1), "-" if each.interval is None else ends(each.interval),
            told(" + ".join(each.kinds)),
        )
        for each in front.answers
    )  # fmt: skip
    bars = tuple((f"{each.tpot_limit_ms:g} ms", each.tokens_per_s_per_gpu) for each in front.answers)
    text = "Bars start at 0; the best deployment under each TPOT limit."
    return Section("Front", (Table("By TPOT limit", header, rows), Bars("Tokens/s per GPU", text, "tokens/s", bars)))
