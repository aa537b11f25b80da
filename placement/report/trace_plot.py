"""A plot of recorded routing; needs matplotlib (an optional part)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from placement.errors import InputError, MissingExtraError
from placement.records.files import write_file
from placement.routing.portrait import TraceReport
from specs.documents import shown

INSTALL = "pip install 'placement[plot]'"
_KINDS = ("png", "svg", "pdf")


def check_plot(path: str) -> str:
    """The kind of a plot's file, by its suffix.

    Raises:
        InputError: no kind that is written. MissingExtraError: matplotlib is not installed.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in _KINDS:
        raise InputError("`plot`", shown(path, 200), "has no suffix of a picture", f"end it with .{', .'.join(_KINDS)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"a plot needs matplotlib; install it with: {INSTALL}") from error
    return kind


def write_plot(path: str, report: TraceReport) -> None:
    """Draws expert loads and what each layer is like.

    Raises:
        InputError, MissingExtraError: see check_plot; or the file can't be written.
    """
    kind = check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    heat, ranks, skew, drift = figure.subplots(2, 2).ravel()
    ordered = -np.sort(-report.load, axis=1) * report.experts
    image = heat.imshow(ordered, aspect="auto", interpolation="nearest", cmap="viridis")
    figure.colorbar(image, ax=heat, label="load / mean")
    heat.set(xlabel="expert, busiest first", ylabel="MoE layer", title="expert loads")
    for quantile, style in ((0.0, ":"), (0.5, "-"), (1.0, "--")):
        ranks.plot(np.quantile(ordered, quantile, axis=0), style, color="C0", label=f"{quantile:.0%} of the layers")
    ranks.set(xlabel="expert, busiest first", ylabel="load / mean", title="skew", yscale="log")
    ranks.legend(fontsize=8)
    layers = [each.layer for each in report.portraits]
    skew.bar(layers, [each.skew for each in report.portraits], color="C0")
    skew.set(xlabel="MoE layer", ylabel="largest / mean load", title="skew by layer")
    _draw_drift(drift, report)
    for axes in (heat.yaxis, skew.xaxis, drift.xaxis):
        axes.get_major_locator().set_params(integer=True)
    figure.suptitle(f"{report.name}: {report.layers} MoE layers of {report.experts} experts")
    write_file(path, lambda file: figure.savefig(file, format=kind, dpi=120), "`plot`")


def _draw_drift(axes: Any, report: TraceReport) -> None:
    layers = [each.layer for each in report.portraits]
    if report.windows > 1:
        axes.plot(layers, [100 * (each.moved or 0.0) for each in report.portraits], "o-", ms=3, label="moved")
        axes.plot(layers, [100 * (each.noise or 0.0) for each in report.portraits], ":", label="sampling alone")
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "a single window", ha="center", transform=axes.transAxes)
    axes.set(xlabel="MoE layer", ylabel="% of the load", title="drift between windows")
