"""A pipeline's run as a trace for chrome://tracing and Perfetto (Trace Event Format, complete and counter events)."""

from __future__ import annotations

import json
from typing import Any

from placement.cost.training.schedule.simulate import Run, held_bytes
from placement.report.schedule.gantt import step_letter

#: Processes of the trace.
DEVICES, LINKS = 0, 1
_COLOURS = {"F": "thread_state_running", "B": "rail_response", "I": "rail_animation", "W": "rail_idle", "&": "good"}


def chrome_trace(run: Run) -> str:
    """The trace as JSON: a row a device and a link, microseconds, and the bytes that each device holds."""
    events: list[dict[str, Any]] = [_name("process_name", DEVICES, 0, f"{run.order.name}: devices")]
    for device, passes in enumerate(run.events):
        events.append(_name("thread_name", DEVICES, device, f"device {device}"))
        for event in passes:
            told = " & ".join(map(str, event.step))
            arguments = {"stage": event.step[0].piece, "microbatch": event.step[0].microbatch}
            events.append(
                _complete(told, DEVICES, device, event.start_s, event.end_s, arguments)
                | {"cname": _COLOURS[step_letter(event.step)]}
            )
        for at, held in held_bytes(run.pipe, passes):
            events.append(
                {
                    "ph": "C", "name": f"bytes of device {device}", "pid": DEVICES, "ts": at * 1e6,
                    "args": {"bytes": run.pipe.fixed_bytes[device] + held},
                }
            )  # fmt: skip
    links = sorted({(send.source, send.target) for send in run.sends})
    if links:
        events.append(_name("process_name", LINKS, 0, "transfers"))
    for row, (source, target) in enumerate(links):
        events.append(_name("thread_name", LINKS, row, f"{source} to {target}"))
    for send in run.sends:
        row = links.index((send.source, send.target))
        arguments = {"stage": send.action.piece, "microbatch": send.action.microbatch}
        events.append(_complete(str(send.action), LINKS, row, send.start_s, send.end_s, arguments))
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":"))


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _complete(
    name: str, process: int, thread: int, start_s: float, end_s: float, arguments: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X", "name": name, "pid": process, "tid": thread, "ts": start_s * 1e6, "dur": (end_s - start_s) * 1e6,
        "args": arguments,
    }  # fmt: skip
