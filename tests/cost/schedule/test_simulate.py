"""Pipelines of unequal pieces run event by event: what holds for any times, and small ones worked by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.training.passes import PassSeconds
from placement.cost.training.schedule.causes import causes_of, critical_path
from placement.cost.training.schedule.order import Action, order_of
from placement.cost.training.schedule.orders import ORDERS, OrderName, schedule_order
from placement.cost.training.schedule.pipe import Pipe
from placement.cost.training.schedule.simulate import Run, Transfers, held_bytes, simulate
from placement.errors import InputError
from tests.cost.schedule.pipes import even_pipe

SECONDS = st.integers(1, 9).map(float)
WAYS: tuple[Transfers, ...] = ("blocking", "overlapped")


@st.composite
def pipes(draw: st.DrawFn, devices: int, pieces: int) -> Pipe:
    each = st.tuples(SECONDS, SECONDS, SECONDS, st.integers(0, 3).map(float), st.integers(0, 3).map(float))
    return Pipe(
        passes=tuple(PassSeconds(*draw(each)) for _ in range(pieces)),
        transfer_s=tuple(draw(st.integers(0, 5).map(float)) for _ in range(pieces - 1)),
        kept_bytes=tuple(draw(SECONDS) for _ in range(pieces)),
        operand_bytes=tuple(draw(SECONDS) for _ in range(pieces)),
        fixed_bytes=tuple(draw(SECONDS) for _ in range(devices)),
        capacity_bytes=100.0,
        communication_share=draw(st.sampled_from([0.0, 0.125])),
    )


@st.composite
def runs(draw: st.DrawFn) -> Run:
    name = draw(st.sampled_from(ORDERS))
    devices = 2 * draw(st.integers(1, 2)) if name == "dualpipe" else draw(st.integers(1, 4))
    m = devices * draw(st.integers(2, 4))
    order = schedule_order(name, devices, m)
    pipe = draw(pipes(devices, order.pieces))
    return simulate(order, pipe, draw(st.sampled_from(WAYS)))


@settings(max_examples=80, deadline=None)
@given(run=runs())
def test_what_holds_for_every_run(run: Run) -> None:
    pipe, order = run.pipe, run.order
    # Each pass once, in the order asked for, one step at a time.
    assert tuple(tuple(event.step for event in events) for events in run.events) == order.steps
    for events in run.events:
        assert all(later.start_s >= event.end_s for event, later in pairwise(events))
    # No step before what it needs: the pass before, and the transfer where devices differ.
    ends = {(a.kind, a.piece, a.microbatch): e.end_s for events in run.events for e in events for a in e.step}
    arrivals = {send.action: send.end_s for send in run.sends}
    for device, events in enumerate(run.events):
        for event in events:
            for piece, kind, number in event.step:
                if kind == "F" and piece:
                    needed = Action(piece - 1, "F", number)
                elif kind in ("B", "I") and piece < order.pieces - 1:
                    back = "B" if ("B", piece + 1, number) in ends else "I"
                    needed = Action(piece + 1, back, number)
                else:
                    continue
                assert event.start_s >= arrivals.get(needed, ends[needed.kind, needed.piece, number]), (device, event)
    # A link carries one transfer at a time, each after its pass.
    for link in {(send.source, send.target) for send in run.sends}:
        sends = [send for send in run.sends if (send.source, send.target) == link]
        assert all(later.start_s >= send.end_s for send, later in pairwise(sends))
    for send in run.sends:
        assert send.start_s >= ends[send.action.kind, send.action.piece, send.action.microbatch]
    # Bounds: the busiest device, and one microbatch through all pieces and back (messages hide in pairs).
    assert run.makespan_s >= max(run.busy_s)
    through = sum(each.forward_s + each.input_s for each in pipe.passes)
    assert run.makespan_s >= through
    assert min(run.idle_s) >= 0
    # Memory: never negative, all given back.
    for events, fixed, peak in zip(run.events, pipe.fixed_bytes, run.peak_bytes, strict=True):
        held = [amount for _, amount in held_bytes(pipe, events)]
        assert min(held) >= -1e-9
        assert held[-1] == pytest.approx(0)
        assert peak == fixed + max(held)


@settings(max_examples=40, deadline=None)
@given(run=runs())
def test_causes_and_path_account_for_the_makespan(run: Run) -> None:
    assert causes_of(run).makespan_s == pytest.approx(run.makespan_s)
    path = critical_path(run)
    assert sum(path.device_s) + path.transfer_s == pytest.approx(run.makespan_s)
    assert all(share <= busy + 1e-9 for share, busy in zip(path.device_s, run.busy_s, strict=True))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), name=st.sampled_from(["gpipe", "1f1b", "zb_h1", "zb_v", "interleaved"]))
def test_shorter_passes_never_take_longer(data: st.DataObject, name: OrderName) -> None:
    order = schedule_order(name, 3, 6)
    pipe = data.draw(pipes(3, order.pieces))
    at = data.draw(st.integers(0, order.pieces - 1))
    faster = replace(pipe, passes=(*pipe.passes[:at], pipe.passes[at].times(0.5), *pipe.passes[at + 1 :]))
    for way in WAYS:
        assert simulate(order, faster, way).makespan_s <= simulate(order, pipe, way).makespan_s
    assert simulate(order, pipe.without_transfers()).makespan_s <= simulate(order, pipe, "overlapped").makespan_s


#: Two devices: 2, 3, 1 seconds and 4, 5, 2; a transfer takes 1.
UNEQUAL = Pipe(
    (PassSeconds(2.0, 3.0, 1.0), PassSeconds(4.0, 5.0, 2.0)), (1.0,), (3.0, 2.0), (1.0, 1.0), (10.0, 20.0), 40.0
)


def test_two_unequal_devices_by_hand() -> None:
    run = simulate(schedule_order("1f1b", 2, 2), UNEQUAL)
    # Device 0: 0F0 0-3 and 0F1 3-6 with their transfers. Device 1: 1F0 3-7, 1B0 7-14, 1F1 14-18, 1B1 18-25. Back on
    # device 0 with the gradients' transfers: 0B0 14-19, 0B1 25-30.
    assert [(e.start_s, e.end_s) for e in run.events[0]] == [(0, 3), (3, 6), (14, 19), (25, 30)]
    assert [(e.start_s, e.end_s) for e in run.events[1]] == [(3, 7), (7, 14), (14, 18), (18, 25)]
    assert run.peak_bytes == (16, 22)
    assert run.idle_s == (14, 8)
    assert critical_path(run).device_s == (8, 22)


def test_transfers_beside_the_computation_by_hand() -> None:
    run = simulate(schedule_order("1f1b", 2, 2), UNEQUAL, "overlapped")
    assert [(e.start_s, e.end_s) for e in run.events[0]] == [(0, 2), (2, 4), (15, 19), (26, 30)]
    assert [(e.start_s, e.end_s) for e in run.events[1]] == [(3, 7), (7, 14), (14, 18), (18, 25)]
    assert [(s.source, s.target, str(s.action), s.start_s, s.end_s) for s in run.sends] == [
        (0, 1, "0F0", 2, 3), (0, 1, "0F1", 4, 5), (1, 0, "1B0", 14, 15), (1, 0, "1B1", 25, 26)
    ]  # fmt: skip
    assert critical_path(run).transfer_s == 2


def test_causes_by_hand() -> None:
    causes = causes_of(simulate(schedule_order("1f1b", 2, 2), UNEQUAL))
    # Devices work 12 and 22 seconds. Without transfers 1F1B takes 2 + 2 x 11 + 4 = 28.
    assert (causes.work_s, causes.uneven_s, causes.filling_s, causes.transfers_s) == (17, 5, 6, 2)


def test_pieces_on_one_device_need_no_transfer() -> None:
    pipe = replace(even_pipe(1, 2, 1, 1, 1), transfer_s=(50.0,))
    for way in WAYS:
        assert simulate(schedule_order("zb_v", 1, 2), pipe, way).makespan_s == 12


def test_orders_that_wait_for_each_other_are_refused() -> None:
    a, b = [[(Action(piece, kind, 0),) for kind in kinds] for piece, kinds in ((0, "BF"), (1, "FB"))]
    with pytest.raises(InputError, match="device 0 waits for ever before 0B0"):
        simulate(order_of("own", 2, 1, [a, b]), even_pipe(2, 2, 1, 1, 1))


def test_a_pipe_of_other_pieces_is_refused() -> None:
    with pytest.raises(InputError, match="4 pieces on 2 devices, the pipeline has 2 on 2"):
        simulate(schedule_order("zb_v", 2, 4), UNEQUAL)
