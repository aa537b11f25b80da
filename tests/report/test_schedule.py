"""A pipeline's run as text, as a drawing and as a trace."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from placement.cost.training.schedule.orders import ORDERS, OrderName, schedule_order
from placement.cost.training.schedule.simulate import Run, Transfers, simulate
from placement.report.schedule.chrome import DEVICES, LINKS, chrome_trace
from placement.report.schedule.drawing import gantt_svg
from placement.report.schedule.gantt import gantt_text
from tests.cost.schedule.pipes import even_pipe


def run_of(name: OrderName, devices: int, m: int, transfer: float = 0.0, way: Transfers = "blocking") -> Run:
    order = schedule_order(name, devices, m)
    pipe = even_pipe(devices, order.pieces, 1.0, 1.0, 1.0)
    return simulate(order, type(pipe)(**{**vars(pipe), "transfer_s": (transfer,) * (order.pieces - 1)}), way)


def test_a_chart_of_single_passes() -> None:
    # 1F1B, two devices, two microbatches: 9 seconds over 27 columns, three columns a second.
    rows = gantt_text(run_of("1f1b", 2, 2), width=27 + len("dev 1 ")).splitlines()
    assert rows[0] == "dev 0 FFFFFF......BBBBBB...BBBBBB"
    assert rows[1] == "dev 1 ...FFFBBBBBBFFFBBBBBB......"


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(("devices", "m"), [(2, 4), (4, 32), (24, 48)])
def test_charts_fit_80_columns(name: OrderName, devices: int, m: int) -> None:
    lines = gantt_text(run_of(name, devices, m)).splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert len(lines) <= 2 * (1 + 17) + 1
    assert ("devices between" in "".join(lines)) == (devices == 24)


def test_the_trace_holds_every_pass_and_transfer() -> None:
    run = run_of("zb_h1", 3, 5, 0.5, "overlapped")
    events = json.loads(chrome_trace(run))["traceEvents"]
    passes = [each for each in events if each["ph"] == "X" and each["pid"] == DEVICES]
    assert {each["name"] for each in passes} == {str(step[0]) for steps in run.order.steps for step in steps}
    assert max(each["ts"] + each["dur"] for each in passes) == pytest.approx(run.makespan_s * 1e6)
    links = [each for each in events if each["ph"] == "X" and each["pid"] == LINKS]
    assert len(links) == 2 * 2 * 5
    counters = [each for each in events if each["ph"] == "C"]
    assert max(each["args"]["bytes"] for each in counters) == max(run.peak_bytes)


def test_the_drawing_is_svg_and_the_same_each_time() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run = run_of("dualpipe_v", 3, 8)
    drawn = gantt_svg(run)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn == gantt_svg(run)
    assert "forward and backward at once" in drawn
