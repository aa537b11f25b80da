"""Plots of the quality benchmark: bytes by extra slots, moves against gain, time by tokens solved on."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.placement_quality.result import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_plots(parts: Sequence[Part], folder: Path) -> bool:
    """Writes bytes.svg, nodes.svg, migration.svg and tokens.svg for the parts that ran; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    makers = {"bytes": _bytes, "nodes": _nodes, "migration": _migration, "tokens": _tokens}
    for part in parts:
        if part.name in makers:
            figure = makers[part.name](part.records)
            figure.savefig(folder / f"{part.name}.svg")
            figure.savefig(folder / f"{part.name}.png", dpi=120)
    return True


def _figure() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(True, alpha=0.3)
    return figure, axes


def _bytes(records: Sequence[Any]) -> Figure:
    from bench.placement_quality.gains import BYTES, EXTRA

    figure, axes = _figure()
    marks = {"in-domain": "o-", "joint": "s--", "held-out": "^:"}
    for colour, (dispatch, limits) in zip(("C0", "C1"), BYTES.items(), strict=True):
        for protocol, mark in marks.items():
            mine = [r for r in records if r.protocol == protocol and r.setting.dispatch == dispatch]
            if not mine:
                continue
            axes.plot(
                [100 * r.setting.extra for r in mine], [100 * r.bytes_change for r in mine], mark, color=colour,
                label=f"{dispatch}, {protocol}",
            )  # fmt: skip
        axes.plot([100 * x for x in EXTRA], [100 * x for x in limits], "_", color=colour, ms=18, mew=2)
    axes.set(
        xlabel="extra slots, % of the experts", ylabel="cross-node bytes per token against eplb, %",
        title="Routing nobody solved on, 4 nodes x 4 GPUs\n(bars: in-domain targets)",
    )  # fmt: skip
    axes.legend(fontsize=8)
    return figure


def _nodes(records: Sequence[Any]) -> Figure:
    figure, axes = _figure()
    for extra in sorted({r.setting.extra for r in records}):
        mine = [r for r in records if r.setting.extra == extra]
        axes.plot(
            [r.setting.nodes for r in mine],
            [100 * r.bytes_change for r in mine],
            "o-",
            label=f"{extra:.0%} extra slots",
        )
    axes.set(
        xlabel="nodes of 4 GPUs", ylabel="cross-node bytes per token against eplb, %", xscale="log",
        title="In-domain, planned dispatch",
    )  # fmt: skip
    axes.set_xticks([2, 4, 8], ["2", "4", "8"])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def _migration(records: Sequence[Any]) -> Figure:
    figure, axes = _figure()
    for phase, extra in dict.fromkeys((r.phase, r.extra) for r in records):
        mine = [r for r in records if (r.phase, r.extra) == (phase, extra)]
        axes.plot(
            [100 * r.moves for r in mine], [100 * r.held_out_gain for r in mine], "o-",
            label=f"{phase}, {extra:.0%} extra slots",
        )  # fmt: skip
    axes.set(
        xlabel="slots moved, %", ylabel="share of the full re-solve's gain, %",
        title="From law to summary, held out", xscale="symlog", xlim=(0, 100),
    )  # fmt: skip
    axes.legend(fontsize=8)
    return figure


def _tokens(records: Sequence[Any]) -> Figure:
    figure, axes = _figure()
    for colour, extra in zip(("C0", "C1"), dict.fromkeys(r.extra for r in records), strict=False):
        mine = [r for r in records if r.extra == extra]
        tokens = [r.tokens for r in mine]
        axes.plot(tokens, [r.speedup for r in mine], "o-", color=colour, label=f"{extra:.0%} extra slots, held out")
        axes.plot(
            tokens, [r.train_speedup for r in mine], "--", color=colour, label=f"{extra:.0%}, on the routing solved on"
        )
    axes.set(
        xlabel="tokens of a domain solved on", ylabel="MoE-layer time, times faster than eplb",
        title="Prefill, planned dispatch", xlim=(0, None),
    )  # fmt: skip
    axes.legend(fontsize=8)
    return figure
