"""Simulated schedules against the closed forms, with equal pieces: makespan, bubble and what is in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from placement.cost.training.passes import PassSeconds
from placement.cost.training.pipeline import pipeline_time
from placement.cost.training.schedule.order import Action, Order
from placement.cost.training.schedule.orders import ORDERS, OrderName, schedule_order
from placement.cost.training.schedule.simulate import Run, simulate
from placement.errors import InputError
from placement.problem.schedule import in_flight
from tests.cost import pipelines
from tests.cost import scenarios as s
from tests.cost.schedule.pipes import even_pipe

#: Whole seconds, so that sums are exact: forward, backward for inputs, backward for weights.
Seconds = tuple[int, int, int]
UNEQUAL: Seconds = (3, 4, 2)
#: The published orders of ZB-V and DualPipe are drawn for forward passes as long as those for inputs.
DRAWN: Seconds = (3, 3, 2)

#: Idle seconds by devices, and seconds of a piece's passes; B is the whole backward pass.
IDLE: dict[OrderName, Callable[[int, int, int, int], int]] = {
    "gpipe": lambda p, f, b, w: (p - 1) * (f + b),
    "1f1b": lambda p, f, b, w: (p - 1) * (f + b),
    "interleaved": lambda p, f, b, w: (p - 1) * (f + b),
    "zb_h1": lambda p, f, b, w: (p - 1) * (f + b - 2 * w),
    "zb_v": lambda p, f, b, w: (p - 1) * f,
    "dualpipe": lambda p, f, b, w: (p // 2 - 1) * (f + b + b - 3 * w),
    "dualpipe_v": lambda p, f, b, w: (p - 1) * (f + b + b - 3 * w),
}


def holds(name: OrderName, devices: int, m: int) -> bool:
    """Whether the closed form is of so many microbatches."""
    return {
        "interleaved": m % devices == 0,
        "zb_v": m >= 2 * devices - 1,
        "dualpipe": devices % 2 == 0 and m % 2 == 0 and m >= 2 * devices,
        "dualpipe_v": m >= 2 * devices,
    }.get(name, True)


def run_even(name: OrderName, devices: int, m: int, seconds: Seconds, chunks: int = 2) -> Run:
    order = schedule_order(name, devices, m, chunks)
    return simulate(order, even_pipe(devices, order.pieces, *seconds))


def check_idle(name: OrderName, devices: int, m: int, seconds: Seconds, chunks: int = 2) -> None:
    run = run_even(name, devices, m, seconds, chunks)
    f, i, w = seconds
    # DualPipe's devices hold two pieces, and half of the microbatches pass each.
    work = m * (f + i + w) * (1 if name == "dualpipe" else run.order.pieces // devices)
    assert set(run.busy_s) == {work}
    assert run.makespan_s - work == IDLE[name](devices, f, i + w, w), (name, devices, m, chunks)


def grid(
    name: OrderName, devices: range, counts: Callable[[int], range | tuple[int, ...]]
) -> Iterator[tuple[int, int]]:
    for p in devices:
        for m in counts(p):
            if holds(name, p, m):
                yield p, m


def few(p: int) -> tuple[int, ...]:
    """The ends of P..8P, the smallest counts at which forms hold, and an odd one between."""
    return (p, 2 * p - 1, 2 * p, 2 * p + 1, 3 * p) if p > 6 else (p, 2 * p - 1, 2 * p, 2 * p + 1, 5 * p + 3, 8 * p)


@pytest.mark.parametrize("name", ORDERS)
def test_idle_time_is_the_closed_form(name: OrderName) -> None:
    seconds = DRAWN if name in ("zb_v", "dualpipe", "dualpipe_v") else UNEQUAL
    for p, m in grid(name, range(2, 17), few):
        check_idle(name, p, m, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDERS)
def test_idle_time_is_the_closed_form_everywhere(name: OrderName) -> None:
    seconds = DRAWN if name in ("zb_v", "dualpipe", "dualpipe_v") else UNEQUAL
    for p, m in grid(name, range(2, 17), lambda p: range(p, 8 * p + 1)):
        check_idle(name, p, m, seconds)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("zb_h1", (3, 3, 3)), ("zb_h1", (5, 1, 1)), ("zb_v", (2, 2, 1)), ("zb_v", (2, 2, 2)),
        ("dualpipe", (3, 3, 1)), ("dualpipe", (2, 2, 2)), ("dualpipe_v", (3, 3, 1)), ("dualpipe_v", (2, 2, 2)),
    ],
)  # fmt: skip
def test_forms_hold_up_to_the_ends_of_their_range(name: OrderName, seconds: Seconds) -> None:
    for p, m in grid(name, range(2, 7), few):
        check_idle(name, p, m, seconds)


@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
def test_interleaved_idles_a_chunk_for_every_other_device(chunks: int) -> None:
    for p, m in ((2, 2), (2, 8), (3, 9), (4, 4), (5, 10), (8, 16)):
        check_idle("interleaved", p, m, UNEQUAL, chunks)


@pytest.mark.parametrize(
    ("schedule", "devices", "m"),
    [
        ("gpipe", 5, 9),
        ("1f1b", 5, 9),
        ("interleaved", 4, 12),
        ("zb_h1", 6, 20),
        ("dualpipe", 6, 16),
        ("dualpipe_v", 3, 9),
    ],
)
def test_the_scorer_says_the_same(schedule: OrderName, devices: int, m: int) -> None:
    run = run_even(schedule, devices, m, DRAWN)
    passes = (PassSeconds(*map(float, DRAWN)),) * run.order.pieces
    scored = pipeline_time(s.training(schedule=schedule), devices, m, passes, 0.0)
    assert run.makespan_s == pytest.approx(scored.total_s, rel=1e-12)


@pytest.mark.parametrize("devices", [2, 5, 8, 16])
def test_peaks_are_the_published_ones(devices: int) -> None:
    m = 4 * devices
    peaks = {name: run_even(name, devices, m, DRAWN).peak_bytes for name in ORDERS if holds(name, devices, m)}
    assert peaks["gpipe"] == (m,) * devices
    assert peaks["1f1b"] == tuple(range(devices, 0, -1))
    # Weight passes that are put off keep what they need: no device has less than the first.
    assert peaks["zb_h1"] == (devices,) * devices
    assert peaks["zb_v"] == (2 * devices,) * devices
    assert peaks["dualpipe_v"] == (2 * devices + 1,) * devices
    if "dualpipe" in peaks:
        assert peaks["dualpipe"] == (devices + 1,) * devices


@pytest.mark.parametrize(("devices", "m", "chunks"), [(4, 8, 2), (2, 8, 3), (5, 20, 2)])
def test_interleaved_holds_what_memory_counts(devices: int, m: int, chunks: int) -> None:
    run = run_even("interleaved", devices, m, UNEQUAL, chunks)
    workload = s.training(schedule="interleaved", chunks=chunks)
    for device, peak in enumerate(run.peak_bytes):
        assert peak == sum(in_flight(workload, devices, device + i * devices, m) for i in range(chunks))


def told(order: Order) -> list[list[tuple[tuple[str, int, int], ...]]]:
    return [[tuple((a.kind, a.piece, a.microbatch) for a in step) for step in steps] for steps in order.steps]


@pytest.mark.parametrize(("devices", "m"), [(2, 4), (4, 8), (4, 14), (6, 12), (8, 20)])
def test_orders_are_those_that_judge_the_closed_forms(devices: int, m: int) -> None:
    assert told(schedule_order("dualpipe", devices, m)) == pipelines.dualpipe(devices, m)
    assert told(schedule_order("gpipe", devices, m)) == pipelines.gpipe(devices, m)
    assert told(schedule_order("1f1b", devices, m)) == pipelines.one_f_one_b(devices, m)
    assert told(schedule_order("interleaved", devices, 2 * devices, 3)) == pipelines.interleaved(
        devices, 2 * devices, 3
    )


@pytest.mark.parametrize(
    ("name", "devices", "m", "problem"),
    [
        ("dualpipe", 3, 12, "even pp"),
        ("dualpipe", 4, 9, "even number"),
        ("dualpipe_v", 4, 7, "at least 2 pp = 8"),
        ("interleaved", 4, 9, "2 equal rounds"),
        ("1f1b", 0, 4, "not both positive"),
        ("gpipe", 4, 0, "not both positive"),
    ],
)
def test_schedules_that_do_not_exist_are_refused(name: OrderName, devices: int, m: int, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        schedule_order(name, devices, m)


def with_steps(order: Order, change: Callable[[list[tuple[Action, ...]]], object]) -> Order:
    steps = list(order.steps[0])
    change(steps)
    return replace(order, steps=(tuple(steps), *order.steps[1:]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda steps: steps.pop(0), "0F0 is missing"),
        (lambda steps: steps.pop(), "0W2 is missing"),
        (lambda steps: steps.append(steps[0]), "0F0 runs twice"),
        (lambda steps: steps.append((Action(0, "B", 1),)), "backward pass 0B1 runs twice"),
        (lambda steps: steps.append((Action(2, "F", 1),)), "2F1 is outside of 2 pieces and 3 microbatches"),
        (
            lambda steps: steps.append((Action(1, "W", 0),)),
            "1F0 runs on device 1, other passes of piece and microbatch on 0",
        ),
        (lambda steps: steps.append((Action(0, "B", 1), Action(0, "F", 1))), "no forward pass with a whole backward"),
    ],
)
def test_orders_hold_every_pass_once(change: Callable[[list[tuple[Action, ...]]], object], problem: str) -> None:
    with pytest.raises(InputError, match=problem.replace("(", r"\(")):
        with_steps(schedule_order("zb_h1", 2, 3), change)
