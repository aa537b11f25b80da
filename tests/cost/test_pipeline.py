"""The closed forms of schedules against pipelines that are run pass by pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.training.passes import PassSeconds
from placement.cost.training.pipeline import PipelineTime, pair_seconds, pipeline_time
from placement.problem.schedule import in_flight, piece_count, pieces_of_rank, schedule_problem
from specs.workload import TrainingWorkload
from tests.cost import pipelines as p
from tests.cost import scenarios as s

F, INPUT, W = 3.0, 4.0, 2.0
B = INPUT + W
EACH = PassSeconds(F, INPUT, W)


def time_of(workload: TrainingWorkload, pp: int, m: int, each: PassSeconds = EACH, share: float = 0.0) -> PipelineTime:
    return pipeline_time(workload, pp, m, (each,) * piece_count(workload, pp), share)


def alone(step: p.Step) -> float:
    return sum({"F": F, "B": B, "I": INPUT, "W": W}[kind] for kind, _, _ in step)


@given(pp=st.integers(1, 6), m=st.integers(1, 20))
def test_gpipe_and_1f1b_idle_for_one_pass_of_every_other_rank(pp: int, m: int) -> None:
    for schedule, orders in (("gpipe", p.gpipe(pp, m)), ("1f1b", p.one_f_one_b(pp, m))):
        got = time_of(s.training(schedule=schedule), pp, m)
        assert got.idle_s == pytest.approx((pp - 1) * (F + B))
        assert got.total_s == pytest.approx(p.run(orders, pp, alone))


@given(pp=st.integers(2, 5), groups=st.integers(1, 4), chunks=st.integers(2, 4))
def test_interleaved_idles_a_chunk_per_rank(pp: int, groups: int, chunks: int) -> None:
    workload, m = s.training(schedule="interleaved", chunks=chunks), groups * pp
    got = time_of(workload, pp, m)
    # EACH is one chunk: the whole rank's passes over v.
    assert got.idle_s == pytest.approx((pp - 1) * (F + B))
    assert got.total_s == pytest.approx(p.run(p.interleaved(pp, m, chunks), pp * chunks, alone))


@given(pp=st.integers(1, 8), m=st.integers(1, 30))
def test_zb_h1_fills_with_weight_gradients(pp: int, m: int) -> None:
    got = time_of(s.training(schedule="zb_h1"), pp, m)
    assert got.idle_s == pytest.approx((pp - 1) * (F + B - 2 * W))
    assert got.weight_s == pytest.approx(m * W)


@settings(max_examples=30, deadline=None)
@given(half=st.integers(1, 5), more=st.integers(0, 10))
def test_dualpipe_idles_as_published(half: int, more: int) -> None:
    pp, m, workload = 2 * half, 4 * half + 2 * more, s.training(schedule="dualpipe")
    got = time_of(workload, pp, m)
    assert got.idle_s == pytest.approx((half - 1) * (F + B + B - 3 * W))
    assert got.total_s == pytest.approx(p.run(p.dualpipe(pp, m), pp, alone), rel=0.03)
    # Exact with passes of one length, as the published figure draws them.
    even = time_of(workload, pp, m, PassSeconds(1.0, 1.0, 1.0))
    assert even.total_s == pytest.approx(
        p.run(p.dualpipe(pp, m), pp, lambda step: sum(1 + (k == "B") for k, _, _ in step))
    )


@pytest.mark.parametrize(("pp", "m", "saved"), [(16, 120, 0.8), (8, 20, 0.85), (8, 64, 0.75), (4, 40, 0.9)])
def test_dualpipe_is_near_where_pairs_hide_messages(pp: int, m: int, saved: float) -> None:
    pair = saved * (F + B)

    def seconds(step: p.Step) -> float:
        return pair if len(step) == 2 else alone(step)

    # Messages that the pair hides: F, B and W take what they take, a pair only its compute.
    hidden = F + B - pair
    each = PassSeconds(F - hidden / 2, INPUT - hidden / 2, W, hidden / 2, hidden / 2)
    assert pair_seconds(each, each, 0.0) == pytest.approx(pair)
    got = time_of(s.training(schedule="dualpipe"), pp, m, each)
    assert got.total_s == pytest.approx(p.run(p.dualpipe(pp, m), pp, seconds), rel=0.02)
    parts = got.forward_s + got.backward_s + got.weight_s + got.pair_s + got.idle_s
    assert parts == pytest.approx(got.total_s)


def test_dualpipe_counts_are_those_of_its_orders() -> None:
    pp, m = 16, 120
    got = time_of(s.training(schedule="dualpipe"), pp, m)
    orders = p.dualpipe(pp, m)
    means = {
        name: sum(len(step) == width and step[0][0] in kinds for order in orders for step in order) / pp
        for name, width, kinds in (("F", 1, "F"), ("pairs", 2, "F"), ("back", 1, "BI"), ("W", 1, "W"))
    }
    # The middle ranks run one pair's passes apart, to shorten the bubble.
    assert got.forward_s / F == pytest.approx(means["F"] - 2 / pp)
    assert got.pair_s / (F + B) == pytest.approx(means["pairs"] + 2 / pp)
    assert got.weight_s / W == pytest.approx(means["W"])


def test_dualpipe_v_is_half_a_dualpipe_of_twice_the_depth() -> None:
    whole = time_of(s.training(schedule="dualpipe"), 8, 64)
    half = time_of(s.training(schedule="dualpipe_v"), 4, 32)
    assert half.total_s == pytest.approx(whole.total_s)
    assert half.idle_s == pytest.approx(3 * (F + 2 * B - 3 * W))


@pytest.mark.parametrize(
    ("changes", "pp", "m", "orders"),
    [
        ({"schedule": "gpipe"}, 4, 6, p.gpipe(4, 6)),
        ({"schedule": "1f1b"}, 4, 16, p.one_f_one_b(4, 16)),
        ({"schedule": "1f1b"}, 4, 2, p.one_f_one_b(4, 2)),
        ({"schedule": "interleaved", "chunks": 2}, 4, 8, p.interleaved(4, 8, 2)),
        ({"schedule": "interleaved", "chunks": 3}, 2, 8, p.interleaved(2, 8, 3)),
        ({"schedule": "dualpipe"}, 8, 20, p.dualpipe(8, 20)),
    ],
)
def test_in_flight_is_what_the_orders_keep(
    changes: dict[str, Any], pp: int, m: int, orders: list[list[p.Step]]
) -> None:
    workload = s.training(**changes)
    for rank, order in enumerate(orders):
        kept = {piece: in_flight(workload, pp, piece, m) for piece in pieces_of_rank(workload, pp, rank)}
        assert sum(kept.values()) == most(order, workload.schedule)
        if workload.schedule != "interleaved":
            # Interleaved chunks take turns: their sum stays, their shares move by up to a group.
            for piece, count in p.most_in_flight(order).items():
                assert count <= kept[piece] + (workload.schedule == "dualpipe")


def most(order: list[p.Step], schedule: str) -> int:
    """The most on a rank; DualPipe's published P + 1 counts a pair's forward before its backward pass frees."""
    return p.most_on_rank(order) if schedule != "dualpipe" else max(p.most_on_rank(order), 9)


def test_messages_hide_in_pairs_up_to_their_length() -> None:
    long = PassSeconds(1.0, 1.0, 1.0, 5.0, 5.0)
    assert pair_seconds(long, long, 0.1) == 10.0
    even = PassSeconds(1.0, 1.0, 1.0, 1.0, 1.0)
    assert pair_seconds(even, even, 0.25) == pytest.approx(4.0)


@given(
    parts=st.lists(st.tuples(*[st.floats(0.1, 9.0)] * 5), min_size=4, max_size=4),
    m=st.integers(1, 6),
    schedule=st.sampled_from(["gpipe", "1f1b", "interleaved", "zb_h1", "dualpipe", "dualpipe_v"]),
)
def test_parts_sum_to_the_whole_and_no_rank_works_longer(parts: list[tuple[float, ...]], m: int, schedule: str) -> None:
    workload = s.training(schedule=schedule)
    pp = 2 if schedule in ("interleaved", "dualpipe_v") else 4
    microbatches = 8 * m
    pieces = [PassSeconds(*part) for part in parts]
    got = pipeline_time(workload, pp, microbatches, pieces, 0.1)
    sums = got.forward_s + got.backward_s + got.weight_s + got.pair_s + got.idle_s
    assert sums == pytest.approx(got.total_s)
    assert got.idle_s >= -1e-9
    more = pipeline_time(workload, pp, microbatches + 8, pieces, 0.1)
    assert more.total_s > got.total_s


@pytest.mark.parametrize(
    ("changes", "pp", "m", "problem"),
    [
        ({"schedule": "dualpipe"}, 3, 12, "even pp"),
        ({"schedule": "dualpipe"}, 4, 6, "at least 2 pp"),
        ({"schedule": "dualpipe"}, 1, 6, "even pp"),
        ({"schedule": "dualpipe_v"}, 4, 6, "at least 2 pp"),
        ({"schedule": "interleaved"}, 4, 6, "multiple of pp 4"),
        ({"schedule": "interleaved", "chunks": 4}, 4, 8, "12 layers into 16 pieces"),
        ({"schedule": "1f1b"}, 4, 6, ""),
        ({"schedule": "dualpipe"}, 4, 8, ""),
        ({"schedule": "interleaved"}, 1, 7, ""),
    ],
)
def test_schedules_say_what_they_need(changes: dict[str, Any], pp: int, m: int, problem: str) -> None:
    said = schedule_problem(s.small_model(), s.training(**changes), pp, m)
    assert problem in said
    assert bool(problem) == bool(said)
