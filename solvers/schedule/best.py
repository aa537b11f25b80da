"""The best order that is found for a pipeline: lists, then the job shop where it is small. The simulation judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.cost.training.schedule.simulate import Run, simulate
from solvers.schedule.greedy import list_order, policies
from solvers.schedule.problem import ShopProblem
from solvers.stop import Stop


@dataclass(frozen=True)
class ScheduleAnswer:
    """An answer.

    Attributes:
        run: The order, simulated.
        bound_s: No order of passes by themselves takes less on these devices.
        optimal: Whether CP-SAT says that nothing is better, to one part in 100,000.
        source: What found it: the name of a given order, "list" or "cpsat".
        tried: Whether CP-SAT was tried; it is not where the model is too large.
    """

    run: Run
    bound_s: float
    optimal: bool
    source: str
    tried: bool

    @property
    def gap(self) -> float:
        """Makespan over the bound, less 1."""
        return self.run.makespan_s / self.bound_s - 1.0


def best_order(
    problem: ShopProblem, known: Sequence[Run] = (), stop: Stop | None = None, seed: int = 0
) -> ScheduleAnswer | None:
    """The best order of all that is known and found.

    Args:
        problem: The job shop.
        known: Runs on the same pipe; those that don't fit are left out.
        stop: Work and deadline of CP-SAT.
        seed: Of its random choices.

    Returns:
        None where nothing fits memory.
    """
    found = [(run, run.order.name) for run in known if run.fits]
    listed = best_list(problem)
    if listed is not None:
        found.append((listed, "list"))
    if not found:
        return None
    # OR-Tools loads pandas: only for who needs it.
    from solvers.schedule.shop import MOST_PASSES, passes_of, solve_shop

    best, source = min(found, key=lambda each: each[0].makespan_s)
    bound, optimal, tried = problem.floor_s(), False, passes_of(problem) <= MOST_PASSES
    if tried:
        alone = [run for run, _ in found if not run.order.pairs]
        start = min(alone, key=lambda run: run.makespan_s, default=best)
        answer = solve_shop(problem, start, stop, seed)
        bound, optimal = max(bound, answer.bound_s), answer.optimal
        if answer.order is not None:
            run = simulate(answer.order, problem.pipe, problem.transfers)
            if run.fits and run.makespan_s < best.makespan_s:
                best, source = run, "cpsat"
    return ScheduleAnswer(best, bound, optimal, source, tried)


def best_list(problem: ShopProblem) -> Run | None:
    """The best of the lists, simulated; None where none fits."""
    best: Run | None = None
    for policy in policies(problem):
        order = list_order(problem, policy)
        if order is None:
            continue
        run = simulate(order, problem.pipe, problem.transfers)
        if run.fits and (best is None or run.makespan_s < best.makespan_s):
            best = run
    return best
