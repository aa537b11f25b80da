"""A measurement of f(n) beside the cost model's, as a screen of text."""

from __future__ import annotations

from bench.experts.recorded import Curve, Line, Measurement, median_error, predicted
from placement.report.text import columns, heading, rendered
from specs.loading import load_cluster


def text(found: Measurement) -> str:
    """The screen: what the device reaches at best, an overview of the cases, and each case's points."""
    lines = {curve.case.name: predicted(curve.case, found.cluster) for curve in found.curves}
    gpu, best = load_cluster(found.cluster).gpu, found.ceilings
    dense = ", ".join(f"{kind} {rate:.0f} TFLOP/s" for kind, rate in best.tflops.items())
    shown: list[object] = [
        heading(
            found.device, f"  driver {found.driver}, torch {found.torch}, {found.date}; medians of {found.repeats}"
        ),
        f"at best: read {best.read_gb_per_s:.0f} GB/s, copy {best.copy_gb_per_s:.0f} GB/s, dense {dense}",
        "",
        heading("f(n)", f" (the model has {gpu.name}; us a slot)"),
        columns(
            ("case", "read", "model", "GB/s", "multiply", "model", "TFLOP/s", "knee", "median error"),
            [_row(curve, lines[curve.case.name], found.cluster) for curve in found.curves],
        ),
        f"all points: median error {median_error(found.curves, found.cluster):.1%}",
        "",
        heading("Measured / model", " by tokens of a slot"),
        _ratios(found, lines),
    ]
    return rendered(shown)  # type: ignore[arg-type]


def _row(curve: Curve, line: Line, cluster: str) -> tuple[str, ...]:
    first, last = curve.points[0], curve.points[-1]
    elements = curve.case.elements
    rate = curve.case.bytes / first.us * 1e-3
    return (
        curve.case.name, f"{first.us:.2f}", f"{line.weight_us:.2f}", f"{rate:.0f}", f"{last.us / last.tokens:.3f}",
        f"{line.token_us:.3f}", f"{2 * elements * last.tokens / last.us * 1e-6:.0f}", f"{line.knee:.0f}",
        f"{median_error([curve], cluster):.1%}",
    )  # fmt: skip


def _ratios(found: Measurement, lines: dict[str, Line]) -> object:
    tokens = sorted({point.tokens for curve in found.curves for point in curve.points})
    rows = []
    for curve in found.curves:
        line, own = lines[curve.case.name], {point.tokens: point.us for point in curve.points}
        rows.append((curve.case.name, *(f"{own[n] / line.at(n):.2f}" if n in own else "" for n in tokens)))
    return columns(("case", *map(str, tokens)), rows)
