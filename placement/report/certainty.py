"""How sure predicted figures are: where they come from, their intervals, and what can't be told apart within them."""

from __future__ import annotations

import math

from placement.records.plan import FiguresRecord
from placement.records.role import Figure, IntervalRecord

#: What a figure's provenance means, where the word alone does not tell.
_ORIGIN = {"population": "population (GPU or attention never measured)"}


def origin(figure: Figure) -> str:
    """Where a figure comes from."""
    return _ORIGIN.get(figure.provenance, figure.provenance)


def about(value: float) -> str:
    """A number with three digits that count."""
    rounded = float(f"{value:.3g}")
    digits = max(0, 2 - int(f"{rounded:e}".partition("e")[2])) if rounded else 0
    return f"{rounded:,.{digits}f}"


def ends(interval: IntervalRecord) -> str:
    """The ends of an interval, such as "9.60 to 14.0"."""
    return f"{about(interval.low)} to {about(interval.high)}"


def bracket(figure: Figure) -> str:
    """The interval of a figure in brackets after a blank; "" where there is none."""
    return "" if figure.interval is None else f" ({ends(figure.interval)})"


def sure(figure: Figure) -> str:
    """Where tokens/s come from, and how far they may be off, all strategies' alike."""
    if figure.interval is None or figure.value <= 0:
        return origin(figure)
    low, high = (end / figure.value - 1 for end in (figure.interval.low, figure.interval.high))
    spread = f"{low:+.0%} to {high:+.0%}"
    return f"{origin(figure)}; {figure.interval.coverage:.0%} interval of tokens/s, of all alike: {spread}"


def certainty(figures: FiguresRecord) -> list[tuple[str, str]]:
    """What intervals are told by, those of tokens/s with them, and what was measured nearest; nothing without any."""
    named = (("TTFT", figures.ttft_ms), ("TPOT", figures.tpot_ms))
    known = [(name, figure.interval) for name, figure in named if figure is not None and figure.interval is not None]
    if not known:
        return []
    groups: dict[str, list[str]] = {}
    for name, interval in known:
        groups.setdefault(interval.group, []).append(name)
    of = (f"{' and '.join(names)} by {group}" for group, names in groups.items())
    told = f", by {next(iter(groups))}" if len(groups) == 1 else "; " + "; ".join(of)
    nearest = dict.fromkeys(interval.nearest for _, interval in known)
    return [("intervals", "; ".join((f"{known[0][1].coverage:.0%}{told}", *nearest)))]


def apart(figure: Figure, ratio: float) -> bool | None:
    """Whether another choice's figure, `ratio` times this one, lies outside this one's interval, and so each outside
    the other's; None where there is no interval.

    Both are off alike where measurements lie to one side of predictions, so the interval is taken around its middle.
    """
    interval = figure.interval
    if interval is None or interval.low <= 0:
        return None
    most = math.sqrt(interval.high / interval.low)
    return not 1 / most <= ratio <= most
