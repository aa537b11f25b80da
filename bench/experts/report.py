"""The report of bench.experts: a screen of text, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench.experts.measure import LayerTime, Played
from placement.report.text import columns, heading, rendered

SCHEMA = "placement.experts/1"


@dataclass(frozen=True)
class LayoutTime:
    """A layout over its layers: means, and how many times faster than the first layout."""

    layout: str
    largest_us: float
    mean_us: float
    predicted_us: float
    token_balancedness: float
    against_first: float


@dataclass(frozen=True)
class Report:
    """All of a run. `median_error` is of f(n)'s predicted over measured layer times."""

    scenario: str
    phase: str
    gpus: int
    tokens_per_rank: int
    synthetic: bool
    hidden: int
    expert_width: int
    dtype: str
    repeats: int
    played: Played
    layouts: tuple[LayoutTime, ...]
    median_error: float


def layout_times(times: Sequence[LayerTime]) -> tuple[LayoutTime, ...]:
    """Means over the layers, in the order of first appearance."""
    found: list[LayoutTime] = []
    for name in dict.fromkeys(each.layout for each in times):
        own = [each for each in times if each.layout == name]

        def mean(field: str, own: Sequence[LayerTime] = own) -> float:
            return float(np.mean([getattr(each, field) for each in own]))

        largest = mean("largest_us")
        first = found[0].largest_us if found else largest
        found.append(
            LayoutTime(
                name, largest, mean("mean_us"), mean("predicted_us"), mean("token_balancedness"), largest / first
            )
        )
    return tuple(found)


def median_error(times: Sequence[LayerTime]) -> float:
    """Median of |predicted / measured - 1| over layers and layouts."""
    return float(np.median([abs(each.predicted_us / each.largest_us - 1) for each in times if each.largest_us > 0]))


def report_json(report: Report) -> str:
    """The report as JSON."""
    return json.dumps({"schema": SCHEMA} | asdict(report), allow_nan=False)


def report_text(report: Report) -> str:
    """The report as a screen of text."""
    routing = "synthetic routing" if report.synthetic else "recorded routing"
    shown: list[object] = [
        heading(report.scenario, f"  {report.gpus} GPUs played by one {report.played.device}, {report.dtype}"),
        f"{report.phase}, {report.tokens_per_rank} tokens a GPU, {routing}; experts of {report.hidden} x "
        f"{report.expert_width}; medians of {report.repeats}",
        "",
        heading("Largest GPU", " (mean over layers, us)"),
        columns(
            ("layout", "largest GPU", "mean GPU", "f(n)", "token balance", "against the first"),
            [
                (
                    each.layout, f"{each.largest_us:.1f}", f"{each.mean_us:.1f}", f"{each.predicted_us:.1f}",
                    f"{each.token_balancedness:.3f}", f"{each.against_first:.3f}x",
                )
                for each in report.layouts
            ],
        ),
        f"f(n) against the measured layer times: median error {report.median_error:.1%}",
        "",
    ]  # fmt: skip
    for curve in report.played.curves:
        error = f"fitted {curve.fitted_error:.1%}"
        if curve.catalog_error is not None:
            error += f", catalog's GPU {curve.catalog_error:.1%}"
        shown.append(heading(f"f(n), {curve.slots} slots", f" (us a slot; median error {error})"))
        shown.append(
            columns(
                ("tokens", "measured", "fitted", "catalog's"),
                [
                    (
                        str(point.tokens), f"{point.measured_us:.2f}", f"{point.fitted_us:.2f}",
                        "-" if point.catalog_us is None else f"{point.catalog_us:.2f}",
                    )
                    for point in curve.points
                ],
            )
        )  # fmt: skip
    return rendered(shown)  # type: ignore[arg-type]
