"""A pipeline's run as an SVG drawing; needs matplotlib (an optional part)."""

from __future__ import annotations

import io

from placement.cost.training.schedule.simulate import Run
from placement.errors import MissingExtraError
from placement.report.schedule.gantt import step_letter

INSTALL = "pip install 'placement[plot]'"
#: Kinds of steps and their colours, which the colour-blind can tell apart (Okabe and Ito, 2008).
KINDS = {
    "F": ("forward", "#56b4e9"),
    "B": ("backward", "#e69f00"),
    "I": ("backward for inputs", "#f0e442"),
    "W": ("backward for weights", "#009e73"),
    "&": ("forward and backward at once", "#cc79a7"),
}


def gantt_svg(run: Run) -> str:
    """The Gantt chart as SVG, the same for the same run.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError(f"a drawing needs matplotlib; install it with: {INSTALL}") from error
    settings = {**matplotlib.rcParamsDefault, "svg.fonttype": "none", "svg.hashsalt": "schedule", "backend": "svg"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(11.0, 1.4 + 0.28 * run.order.devices), layout="constrained")
        axes = figure.subplots()
        found: set[str] = set()
        for device, events in enumerate(run.events):
            spans: dict[str, list[tuple[float, float]]] = {}
            for event in events:
                spans.setdefault(step_letter(event.step), []).append((event.start_s, event.end_s - event.start_s))
            for letter, each in spans.items():
                axes.broken_barh(
                    each, (device - 0.4, 0.8), facecolor=KINDS[letter][1], edgecolor="white", linewidth=0.2
                )
            found |= set(spans)
        axes.set(xlabel="seconds", ylabel="device", title=run.order.name, xlim=(0, run.makespan_s))
        axes.set_ylim(run.order.devices - 0.5, -0.5)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        handles = [Patch(color=colour, label=label) for kind, (label, colour) in KINDS.items() if kind in found]
        axes.legend(handles=handles, ncols=len(handles), loc="upper center", bbox_to_anchor=(0.5, -0.25), fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
