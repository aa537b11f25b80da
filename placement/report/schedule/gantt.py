"""A Gantt chart of a pipeline in text: a row a device, a letter a slice of time."""

from __future__ import annotations

from placement.cost.training.schedule.order import Step
from placement.cost.training.schedule.simulate import Event, Run

#: Devices that are drawn at most; of more, the first and the last.
MOST_ROWS = 16
IDLE, PAIR = ".", "&"
LEGEND = "F forward, B backward, I backward for inputs, W for weights, & F with B, . idle"


def gantt_text(run: Run, width: int = 80) -> str:
    """The chart in lines of at most `width` columns.

    A run of more passes than columns is drawn in two parts, on one scale: how it fills and how it drains.
    """
    label = len(f"{run.order.devices - 1} ") + len("dev ")
    columns = max(10, width - label)
    shortest = min(
        event.end_s - event.start_s for events in run.events for event in events if event.end_s > event.start_s
    )
    whole = run.makespan_s
    if whole <= columns * shortest:
        return "\n".join([*_part(run, 0.0, whole / columns, columns, label), LEGEND])
    each = max(shortest, whole / (columns * 4))
    lines = [f"first {columns * each:.3g} s of {whole:.4g} s", *_part(run, 0.0, each, columns, label)]
    if whole > columns * each:
        lines += [f"last {columns * each:.3g} s", *_part(run, whole - columns * each, each, columns, label)]
    return "\n".join([*lines, LEGEND])


def _part(run: Run, begin: float, each: float, columns: int, label: int) -> list[str]:
    devices = run.order.devices
    rows = list(range(devices))
    cut = devices > MOST_ROWS
    if cut:
        rows = [*range(MOST_ROWS // 2), *range(devices - MOST_ROWS // 2, devices)]
    lines = []
    for device in rows:
        if cut and device == rows[MOST_ROWS // 2]:
            lines.append(f"{'':{label}}({devices - MOST_ROWS} devices between)")
        lines.append(f"{f'dev {device}':{label}}{_row(run.events[device], begin, each, columns)}")
    return lines


def _row(events: tuple[Event, ...], begin: float, each: float, columns: int) -> str:
    """The step that takes most of each slice."""
    share = [{IDLE: each} for _ in range(columns)]
    for event in events:
        first = max(0, int((event.start_s - begin) / each))
        for column in range(first, columns):
            left = begin + column * each
            if left >= event.end_s:
                break
            taken = min(event.end_s, left + each) - max(event.start_s, left)
            if taken > 0:
                name = step_letter(event.step)
                share[column][name] = share[column].get(name, 0.0) + taken
                share[column][IDLE] -= taken
    return "".join(max(cell, key=lambda name: cell[name]) for cell in share)


def step_letter(step: Step) -> str:
    """The kind of a step's pass, or "&" where two run at once."""
    return PAIR if len(step) == 2 else step[0].kind
