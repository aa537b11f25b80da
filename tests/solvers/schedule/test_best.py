"""Orders that are found: never worse than the published ones, within memory, re-simulated, the same every time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.training.passes import PassSeconds
from placement.cost.training.schedule.order import Action, order_of
from placement.cost.training.schedule.orders import schedule_order
from placement.cost.training.schedule.pipe import Pipe
from placement.cost.training.schedule.simulate import Run, Transfers, simulate
from placement.errors import InputError
from solvers.schedule.best import best_list, best_order
from solvers.schedule.greedy import list_order, policies
from solvers.schedule.problem import ShopProblem, down_and_up, side_by_side
from solvers.schedule.shop import SECOND_UNITS, solve_shop
from solvers.stop import Stop
from tests.cost.schedule.pipes import even_pipe

SECONDS = st.integers(1, 6).map(float)
#: Enough for the small problems here.
LITTLE = Stop(0.2)


@st.composite
def pipes(draw: st.DrawFn, devices: int, pieces: int, room: float) -> Pipe:
    return Pipe(
        passes=tuple(PassSeconds(draw(SECONDS), draw(SECONDS), draw(SECONDS)) for _ in range(pieces)),
        transfer_s=tuple(draw(st.integers(0, 2).map(float)) for _ in range(pieces - 1)),
        kept_bytes=(2.0,) * pieces,
        operand_bytes=(draw(st.sampled_from([1.0, 2.0, 3.0])),) * pieces,
        fixed_bytes=(0.0,) * devices,
        capacity_bytes=room,
    )


def known_runs(problem: ShopProblem) -> list[Run]:
    names = ("gpipe", "1f1b", "zb_h1") if problem.pipe.pieces == problem.devices else ("zb_v", "dualpipe_v")
    orders = [schedule_order(name, problem.devices, problem.microbatches) for name in names]  # type: ignore[arg-type]
    return [simulate(order, problem.pipe, problem.transfers) for order in orders]


@settings(max_examples=12, deadline=None)
@given(
    data=st.data(),
    v=st.booleans(),
    room=st.sampled_from([7.0, 9.0, 12.0, 1e9]),
    transfers=st.sampled_from(["blocking", "overlapped"]),
)
def test_never_worse_than_what_is_known(data: st.DataObject, v: bool, room: float, transfers: Transfers) -> None:
    devices, m = 2, 4
    pipe = data.draw(pipes(devices, 4 if v else 2, room))
    homes = down_and_up(devices) if v else side_by_side(devices)
    problem = ShopProblem(pipe, homes, m, transfers)
    known = known_runs(problem)
    answer = best_order(problem, known, LITTLE)
    fitting = [run.makespan_s for run in known if run.fits]
    if answer is None:
        assert not fitting
        return
    assert answer.run.fits
    assert answer.run.makespan_s <= min(fitting, default=float("inf"))
    if not answer.run.order.pairs:
        assert answer.run.makespan_s >= answer.bound_s * (1 - 1e-9)
    # What is claimed is what its order takes.
    assert simulate(answer.run.order, pipe, transfers).makespan_s == answer.run.makespan_s


def by_trying(problem: ShopProblem) -> float:
    """The least makespan over all orders of split passes in which microbatches keep their turn."""
    m, devices = problem.microbatches, problem.devices
    ways = []
    for piece in range(devices):
        sequences = set(itertools.permutations([kind for kind in "FIW" for _ in range(m)]))
        rows = []
        for kinds in sequences:
            count = dict.fromkeys("FIW", 0)
            row = []
            for kind in kinds:
                row.append((Action(piece, kind, count[kind]),))  # type: ignore[arg-type]
                count[kind] += 1
                if not count["F"] >= count["I"] >= count["W"]:
                    break
            else:
                rows.append(row)
        ways.append(rows)
    best = float("inf")
    for steps in itertools.product(*ways):
        try:
            run = simulate(order_of("tried", devices, m, steps), problem.pipe, problem.transfers)
        except InputError:
            continue  # devices that wait for each other
        if run.fits:
            best = min(best, run.makespan_s)
    return best


@pytest.mark.parametrize(
    ("room", "transfers"), [(1e9, "blocking"), (2.0, "blocking"), (1e9, "overlapped"), (2.0, "overlapped")]
)
def test_as_good_as_trying_all_orders(room: float, transfers: Transfers) -> None:
    pipe = Pipe(
        (PassSeconds(2.0, 1.0, 3.0), PassSeconds(1.0, 4.0, 1.0)), (1.0,), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0), room
    )
    problem = ShopProblem(pipe, side_by_side(2), 2, transfers)
    answer = best_order(problem, known_runs(problem), LITTLE)
    assert answer is not None
    assert answer.optimal
    assert answer.run.makespan_s == by_trying(problem)
    # Seconds are rounded down to units: of a makespan, at most one for each pass.
    assert answer.bound_s <= answer.run.makespan_s * (1 + 1e-9)
    assert answer.gap < 20 / SECOND_UNITS


def test_more_memory_gains_on_a_slow_last_stage() -> None:
    pipe = Pipe(
        (PassSeconds(1.0, 1.0, 1.0),) * 3 + (PassSeconds(1.0, 2.0, 1.0),),
        (0.0,) * 3, (1.0,) * 4, (1.0,) * 4, (0.0,) * 4, 4.0,
    )  # fmt: skip
    tight = best_order(ShopProblem(pipe, side_by_side(4), 8), (), LITTLE)
    loose = best_order(ShopProblem(replace(pipe, capacity_bytes=1e9), side_by_side(4), 8), (), LITTLE)
    assert tight is not None
    assert loose is not None
    assert max(tight.run.peak_bytes) <= 4
    # The slow stage is never idle once the first microbatch is there: nothing is faster.
    assert loose.run.makespan_s == 3 + 8 * 4
    assert loose.optimal
    assert tight.run.makespan_s >= loose.run.makespan_s


def test_the_same_question_has_the_same_answer() -> None:
    problem = ShopProblem(replace(even_pipe(3, 6, 2, 3, 1), capacity_bytes=8.0), down_and_up(3), 6)
    first, second = (best_order(problem, known_runs(problem), LITTLE) for _ in range(2))
    assert first == second


def test_nothing_fits_where_a_microbatch_does_not() -> None:
    problem = ShopProblem(replace(even_pipe(2, 2, 1, 1, 1), capacity_bytes=0.5), side_by_side(2), 3)
    assert best_list(problem) is None
    assert best_order(problem, known_runs(problem), LITTLE) is None


def test_whole_backward_passes_where_operands_have_no_room() -> None:
    """A layer that recomputes keeps little until its backward pass, and more between its two halves."""
    pipe = replace(even_pipe(2, 2, 1.0, 1.0, 1.0), operand_bytes=(9.0, 9.0), capacity_bytes=4.0)
    problem = ShopProblem(pipe, side_by_side(2), 4)
    answer = best_order(problem, known_runs(problem), LITTLE)
    assert answer is not None
    assert {action.kind for steps in answer.run.order.steps for (action,) in steps} == {"F", "B"}
    assert solve_shop(problem, answer.run, LITTLE).bound_s <= answer.run.makespan_s


@settings(max_examples=25, deadline=None)
@given(data=st.data(), room=st.sampled_from([5.0, 8.0, 1e9]))
def test_every_list_is_an_order_that_runs(data: st.DataObject, room: float) -> None:
    problem = ShopProblem(data.draw(pipes(3, 6, room)), down_and_up(3), 5, "overlapped")
    for policy in policies(problem):
        order = list_order(problem, policy)
        if order is not None:
            assert simulate(order, problem.pipe, problem.transfers).makespan_s >= problem.floor_s() * (1 - 1e-9)
