"""Conversions and descriptions of recorded routing as text of 80 columns, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from placement.report.text import columns, fields, heading, rendered
from placement.report.units import grouped
from placement.routing.portrait import LayerPortrait, TraceReport
from placement.routing.recordings.converting import Conversion
from placement.routing.recordings.vllm import LogSeries


def conversion_text(done: Conversion) -> str:
    """What became of a recording, and what of it was left out."""
    shape = _shape(done.layers, done.experts, done.top_k)
    held = (
        f"{grouped(done.tokens)} tokens in {grouped(done.sequences or 0)} sequences"
        if done.tokens is not None
        else f"load counts in {done.windows} window{'s' if done.windows != 1 else ''}"
    )
    rows = [("from", done.told), ("holds", f"{shape}; {held}")]
    rows += [("", note) for note in done.notes]
    rows += [("next", f"placement trace stats {done.out}")]
    return rendered([heading("wrote ", done.out), fields(rows)])


def conversion_json(done: Conversion) -> str:
    """The same as JSON."""
    return json.dumps(asdict(done), indent=2)


def statistics_text(report: TraceReport, plot: str | None = None) -> str:
    """What routing is like. plot: the file that the plot was written to."""
    held = (
        f"{grouped(report.tokens)} tokens in {grouped(report.sequences or 0)} sequences"
        if report.tokens is not None
        else f"load counts in {report.windows} window{'s' if report.windows != 1 else ''}"
    )
    rows = [("holds", f"{_shape(report.layers, report.experts, report.top_k)}; {held}"), ("from", report.origin)]
    rows += [("", note) for note in report.notes]
    parts: list[RenderableType] = [heading(report.name), fields(rows), Text(), _table(report), Text()]
    rows = [("locality", _locality(report)), ("verdict", _verdict(report))]
    if plot is not None:
        rows.append(("plot", plot))
    return rendered([*parts, fields(rows)])


def statistics_json(report: TraceReport) -> str:
    """The same as JSON."""
    locality = report.locality
    return json.dumps(
        {
            "trace": report.name, "source": report.origin, "kind": report.kind, "layers": report.layers,
            "experts": report.experts, "top_k": report.top_k, "tokens": report.tokens, "sequences": report.sequences,
            "windows": report.windows, "degenerate_layers": [each.layer for each in report.degenerate],
            "locality": None if locality is None else {
                "nodes": locality.nodes, "layers": locality.layers, "spread_nodes_per_token": locality.spread,
                "together_nodes_per_token": locality.together,
            },
            "by_layer": [asdict(each) for each in report.portraits], "notes": report.notes,
        },
        indent=2,
    )  # fmt: skip


def log_text(path: str, series: LogSeries) -> str:
    """What an EPLB log says."""
    values = series.balancedness
    if not len(values):
        return rendered([heading(path), fields([("holds", "no line of EPLB with a balancedness")])])
    half = len(values) // 2
    rows = [
        ("model", series.model),
        ("steps", f"{series.steps[0]:,} to {series.steps[-1]:,}, {len(values):,} logged"),
        ("balancedness", f"mean {values.mean():.3f}, least {values.min():.3f}, most {values.max():.3f}"),
        ("", f"first half {values[: max(1, half)].mean():.3f}, second half {values[half:].mean():.3f}"),
        ("note", "sum over layers of mean / sum of max load: not the mean of the layers' ratios"),
        ("", "a log holds no expert's load: nothing can be planned on it"),
        ("next", "serve with --enable-return-routed-experts, then placement trace convert"),
    ]
    return rendered([heading(path), fields(rows)])


def log_json(path: str, series: LogSeries) -> str:
    """The same as JSON."""
    return json.dumps(
        {
            "log": path, "model": series.model, "steps": series.steps.tolist(),
            "balancedness": series.balancedness.tolist(),
        }
    )  # fmt: skip


def _shape(layers: int, experts: int, top_k: int | None) -> str:
    said = "top-k unknown" if top_k is None else f"top-{top_k}"
    return f"{layers} MoE layer{'s' if layers != 1 else ''} of {experts} experts, {said}"


def _table(report: TraceReport) -> RenderableType:
    rows = [
        _row(report.portraits, "largest / mean expert load", lambda each: each.skew, "{:.2f}"),
        _row(report.portraits, "tokens on the busiest expert", lambda each: each.top_share, "{:.1%}"),
        _row(report.portraits, "experts without a token", lambda each: each.idle, "{:.1f}"),
        _row(report.portraits, f"load that moves between {report.windows} windows", lambda each: each.moved, "{:.1%}"),
        _row(report.portraits, "  of that, by sampling alone", lambda each: each.noise, "{:.1%}"),
        _row(report.portraits, "closest partner, times chance", lambda each: each.partner, "{:.1f}"),
    ]
    return columns(("over the layers", "mean", "most", "layer"), [row for row in rows if row is not None])


def _row(
    layers: Sequence[LayerPortrait], name: str, figure: Callable[[LayerPortrait], float | None], form: str
) -> tuple[str, ...] | None:
    found = [(value, each.layer) for each in layers if (value := figure(each)) is not None]
    if not found:
        return None
    most, layer = max(found, key=lambda each: each[0])
    return name, form.format(np.mean([value for value, _ in found])), form.format(most), str(layer)


def _locality(report: TraceReport) -> str:
    found = report.locality
    if found is None:
        return "not known: it takes token choices of several sequences (top-2 or more)"
    gain = 1 - found.together / found.spread
    return (
        f"{found.spread:.2f} nodes per token balanced, {found.together:.2f} with experts that go together on one node "
        f"({gain:.0%} less; {found.nodes} nodes, {found.layers} layers, held out)"
    )


def _verdict(report: TraceReport) -> str:
    if report.top_k is None:
        return "top-k is not known: give the model with --model, or --top-k, to see whether routing is degenerate"
    layers = report.degenerate
    if not layers:
        return "usable: no expert takes over half of a layer's tokens"
    worst = max(layers, key=lambda each: each.top_share or 0.0)
    return (
        f"DEGENERATE: in {len(layers)} of {report.layers} layers one expert takes over half of the tokens "
        f"(MoE layer {worst.layer}: expert {worst.top_expert}, {worst.top_share:.0%}). Such routing is of random "
        "weights, dummy inputs or one prompt again and again; record what users send"
    )
