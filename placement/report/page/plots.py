"""Draws charts as SVG with matplotlib (extra `report`)."""

from __future__ import annotations

import io
import warnings
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from placement.problem.arrays import FloatArray
from placement.report.page.blocks import Bars, Chart, Heat, Lines
from placement.report.page.svg import GRID, INK, SERIES, embedded
from placement.report.units import grouped
from specs.documents import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

#: Pixels across, at which text reads on a phone.
WIDTH = 400
#: Pixels of a row of bars, and least and most of a row of a heat map.
BAR, LEAST_ROW, MOST_ROW = 19, 5, 26
_DPI = 72
#: Letters of a name in a drawing.
LONGEST = 28
#: Relative luminance that stands out as much from black as from white (WCAG 2.2).
MIDDLE = 0.179
#: Kinds of a heat map: the palette of Okabe and Ito (2008), which the colour-blind can tell apart.
KINDS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c8c8c")
#: Amounts: even steps of lightness.
AMOUNTS = "viridis"
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "placement.report", "text.parse_math": False, "font.size": 11.5,
    "font.family": ["DejaVu Sans"], "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GRID,
    "xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": GRID,
    "axes.labelsize": 11.5, "axes.facecolor": "none",
    "legend.frameon": False, "legend.fontsize": 11.5, "axes.unicode_minus": False,
}  # fmt: skip


def svg_of(chart: Chart, prefix: str) -> str:
    """A chart as an `svg` element that takes its colours from the page.

    Args:
        prefix: Stands before every id in it, as a page has several.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    settings = {**matplotlib.rcParamsDefault, **_SETTINGS, "backend": "svg"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Names in a script that the measuring font lacks: the browser has its own font.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
        figure.patch.set_alpha(0.0)
        draw(chart, figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return embedded(buffer.getvalue(), prefix, chart.title, chart.text)


@singledispatch
def draw(chart: Chart, figure: Figure) -> None:
    """Draws a chart into an empty figure and sets its size."""
    raise TypeError(type(chart).__name__)


@draw.register(Bars)
def _bars(chart: Bars, figure: Figure) -> None:
    from matplotlib.ticker import MaxNLocator

    _sized(figure, 38 + BAR * len(chart.rows))
    axes = figure.add_subplot()
    at, values = np.arange(len(chart.rows)), [value for _, value in chart.rows]
    bars = axes.barh(at, values, height=0.7, color=SERIES[0])
    axes.bar_label(bars, [_short(value) for value in values], padding=3)
    axes.set_yticks(at, [_label(name) for name, _ in chart.rows])
    axes.invert_yaxis()
    most = max(values, default=0.0)
    axes.set_xlim(0, most * 1.2 if most > 0 else 1.0)
    axes.set_xlabel(chart.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.tick_params(left=False)
    _plain(axes, "x")


@draw.register(Lines)
def _lines(chart: Lines, figure: Figure) -> None:
    from matplotlib.ticker import MaxNLocator

    _sized(figure, 210)
    axes = figure.add_subplot()
    for i, curve in enumerate(chart.curves):
        style, marker = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))[i % 4]
        colour, name = SERIES[i % len(SERIES)], _label(curve.name)
        axes.plot(chart.at, curve.values, style, color=colour, marker=marker, ms=3.5, label=name)
    axes.set_xlabel(chart.across)
    axes.set_ylabel(chart.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    _plain(axes, "y")
    figure.legend(loc="outside upper center", ncols=len(chart.curves))


@draw.register(Heat)
def _heat(chart: Heat, figure: Figure) -> None:
    rows, columns = chart.values.shape
    # Matrices are square, so that a cell is as high as it is wide.
    each = 300 / columns if rows == columns else 230 / rows
    _sized(figure, 74 + rows * min(MOST_ROW if rows != columns else 40, max(LEAST_ROW, each)))
    axes = figure.add_subplot()
    image = axes.imshow(chart.values, aspect="auto", interpolation="none", **_colours(chart))
    axes.set_xlabel(chart.across)
    axes.set_ylabel(chart.down)
    _ticks(axes, "y", rows, chart.rows)
    _ticks(axes, "x", columns, chart.columns)
    for side in axes.spines.values():
        side.set_visible(False)
    if chart.digits is not None:
        _write_cells(axes, image, chart.values, chart.digits)
    if chart.names:
        _name_kinds(chart, figure)
    else:
        bar = figure.colorbar(image, ax=axes, orientation="horizontal", aspect=40, pad=0.02)
        if bar.solids is not None:
            bar.solids.set_rasterized(True)
        bar.outline.set_visible(False)
        bar.set_label(chart.unit)


def _colours(chart: Heat) -> dict[str, Any]:
    from matplotlib.colors import ListedColormap

    if chart.names:
        return {"cmap": ListedColormap(KINDS[: len(chart.names)]), "vmin": -0.5, "vmax": len(chart.names) - 0.5}
    found = chart.values[np.isfinite(chart.values)]
    least, most = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    least, most = (least if chart.least is None else chart.least), (most if chart.most is None else chart.most)
    # Equal amounts are one colour, not the noise between them.
    return {"cmap": AMOUNTS, "vmin": least, "vmax": most if most - least > 1e-6 * abs(most) else least + 1.0}


def _name_kinds(chart: Heat, figure: Figure) -> None:
    from matplotlib.patches import Patch

    kinds = [Patch(color=colour, label=name) for colour, name in zip(KINDS, chart.names, strict=False)]
    figure.legend(handles=kinds, loc="outside lower center", ncols=min(4, len(kinds)), handlelength=1.0)


def _write_cells(axes: Axes, image: AxesImage, values: FloatArray, digits: int) -> None:
    """Each value in the cell's middle, in black or white: whichever stands out more from its colour."""
    size = 11.5 if len(values) <= 6 else 8.5
    colours = image.to_rgba(values)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = colours[row, column] ** 2.2
            colour = "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > MIDDLE else "#ffffff"
            axes.text(column, row, grouped(value, digits), ha="center", va="center", color=colour, fontsize=size)


#: Cells between marks.
_STEPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 40, 64, 80, 128, 256, 512, 1024)


def _ticks(axes: Axes, which: str, count: int, labels: tuple[str, ...]) -> None:
    """At most about a dozen marks, the first at the first cell."""
    most = 12 if which == "y" else 9
    named = any(not label.isdecimal() for label in labels)
    step = 1 if named else next(size for size in (*_STEPS, count) if count <= size * most)
    at = np.arange(0, count, step)
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_ticks(at, [_label(labels[i]) if labels else str(i) for i in at])


def _plain(axes: Axes, along: str) -> None:
    axes.grid(axis=along, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    for side in ("top", "right", "left" if along == "x" else "bottom"):
        axes.spines[side].set_visible(False)


def _sized(figure: Figure, height: float) -> None:
    figure.set_size_inches(WIDTH / _DPI, height / _DPI)


def _label(name: str) -> str:
    """A name that leaves room for what it names."""
    return shown(name, LONGEST)


def _short(value: float) -> str:
    """A figure with about three digits, two of them decimals at most."""
    if 0 < value < 0.01:
        return "< 0.01"
    return grouped(value, 0 if value >= 100 else 1 if value >= 10 else 2)
