"""`auto`: heuristics, then the compiled search, then CP-SAT where a layer is small enough to prove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from placement.cost.layer.dispatch import alike_homes
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.base import Features, UnsupportedError
from solvers.dispatch import fractions_for, needs_fractions
from solvers.experts.baselines import baseline_candidates
from solvers.experts.candidates import DISPATCH_GAIN, Candidate, candidate, choose, steadiest
from solvers.experts.merit import merit
from solvers.experts.noise import least_gain
from solvers.experts.search.solver import SearchSolver
from solvers.params import DEFAULTS, SearchParams
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

if TYPE_CHECKING:
    from solvers.bounds.layer import LayerBounds


class AutoSolver:
    """Never worse than the best heuristic, by the same scorer (layer times within `near_time` of one another count as
    alike, and the most balanced one is taken); keeps the balance cap where a heuristic does."""

    name = "auto"
    features = Features(
        traffic=True, dispatch=("even", "nearest", "planned"), groups=True, moves=True, fixed=True,
        uneven=True, windows=True, tails=True, proves=True,
        note="heuristics, then search, then CP-SAT on small layers",
    )  # fmt: skip

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        return self.solve_against(problem, baseline_candidates(problem), stop, seed)

    def solve_against(self, problem: LayerProblem, rivals: Sequence[Candidate], stop: Stop, seed: int) -> Result:
        """See RivalSolver.solve_against."""
        found = list(rivals)
        termination, iterations, unsupported = Termination.FINISHED, 0, ""
        try:
            answer = SearchSolver().improve(problem, rivals, stop, seed)
            termination, iterations = answer.termination, answer.iterations
            if answer.slots is not None:
                found.append(candidate(problem, answer.slots, answer.fractions))
        except UnsupportedError as error:
            unsupported = str(error)
        proof = self._exact(problem, stop, seed, choose(problem, found).slots if found else None)
        bound, source = 0.0, ""
        if proof is not None:
            bound, source = proof.bound, proof.bound_source
            if proof.status is Status.INFEASIBLE and not found:
                return proof
            if proof.slots is not None:
                found.append(candidate(problem, proof.slots))
        if not found:
            raise UnsupportedError(f"{unsupported}, and the layer is too large for CP-SAT")
        best = choose(problem, found)
        if needs_fractions(problem):
            rivals = _with_dispatch(problem, rivals, best.score.objective)
            best = choose(problem, [_dispatched(problem, best, stop.params), *rivals])
        if proof is None and rivals and _weighs_noise(problem):
            rival = steadiest(problem, rivals, stop.params.near_time)
            kept = merit(problem, rival.score)[0] <= merit(problem, best.score)[0]
            if kept and best.score.objective > rival.score.objective * (1 - least_gain(problem, stop.params)):
                best = rival
        return Result(
            best.slots, Status.FEASIBLE, termination, bound=bound, bound_source=source, iterations=iterations,
            fractions=best.fractions,
        )  # fmt: skip

    def settle(
        self, problem: LayerProblem, rivals: Sequence[Candidate], bounds: LayerBounds, stop: Stop
    ) -> Result | None:
        """See SettlingSolver.settle: near enough is also what no search could beat by `least_gain`."""
        if not rivals:
            return None
        noisy = _weighs_noise(problem) and not _provable(problem, stop.params)

        def best_of(rivals: Sequence[Candidate]) -> Candidate:
            return steadiest(problem, rivals, stop.params.near_time) if noisy else choose(problem, rivals)

        over, value = merit(problem, best_of(rivals).score)
        if over > 0:
            return None
        enough = value / (1 + stop.gap)
        if noisy:
            enough = min(enough, value * (1 - least_gain(problem, stop.params)))
        bound = bounds.best(value, stop=stop, enough=enough)
        if bound.value < enough:
            return None
        best = best_of(_with_dispatch(problem, rivals, value) if needs_fractions(problem) else rivals)
        return Result(
            best.slots, Status.FEASIBLE, Termination.PROVEN, bound=bound.value, bound_source=bound.source,
            fractions=best.fractions, witness=bound.witness,
        )  # fmt: skip

    def _exact(self, problem: LayerProblem, stop: Stop, seed: int, start: IntArray | None) -> Result | None:
        if stop.expired or not _provable(problem, stop.params):
            return None
        problem = problem.with_rules(dispatch="even")
        from solvers.experts.cpsat.solver import CpSatSolver

        try:
            return CpSatSolver().solve_from(problem, start, stop.scaled(stop.params.exact_effort), seed)
        except UnsupportedError:
            return None


def _provable(problem: LayerProblem, params: SearchParams) -> bool:
    """Whether CP-SAT is asked: the layer is small, and homes dispatch alike."""
    cells = 0 if problem.data.sets is None else len(problem.data.sets.ids) * problem.topology.gpus
    small = problem.experts * problem.topology.gpus <= params.exact_binaries and cells <= params.exact_cells
    return small and alike_homes(problem)


def _weighs_noise(problem: LayerProblem) -> bool:
    """Whether a gain over the heuristics must be more than chance: token sets are a sample."""
    return problem.data.sets is not None and problem.objective.kind != "load"


def _with_dispatch(problem: LayerProblem, rivals: Sequence[Candidate], best: float) -> list[Candidate]:
    """The rivals, with dispatch solved for those that could then be as good as an objective of `best`."""
    near = best * (1 + DISPATCH_GAIN)
    solved = [candidate(problem, r.slots, r.fractions, True) for r in rivals if r.score.objective < near]
    if problem.rules.max_load is not None:
        # Under a cap the dispatch LPs may end elsewhere; a plan that keeps it by itself counts, too.
        free = problem.with_rules(max_load=None)
        solved += [candidate(problem, r.slots, fractions_for(free, r.slots)) for r in solved]
    return [*solved, *(r for r in rivals if r.score.objective >= near)]


def _dispatched(problem: LayerProblem, best: Candidate, params: SearchParams = DEFAULTS) -> Candidate:
    """The placement with its dispatch solved anew, or as it is where that gains next to nothing."""
    solved = candidate(problem, best.slots, best.fractions, True)
    (over, value), (was_over, was) = merit(problem, solved.score), merit(problem, best.score)
    timed = problem.objective.kind == "time" and problem.data.sets is not None
    if timed and over >= was_over and value > was * (1 - params.dispatch_gain):
        return best
    return solved
