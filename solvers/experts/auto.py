"""`auto`: all placements where there are few; else heuristics, then the compiled search, then CP-SAT on small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.base import EVERY_DISPATCH, Features, UnsupportedError
from solvers.bounds.layer import LayerBounds
from solvers.dispatch import fractions_for, needs_fractions
from solvers.experts.baselines import baseline_candidates
from solvers.experts.candidates import DISPATCH_GAIN, Candidate, candidate, choose, steadiest
from solvers.experts.every import SOURCE, best_of_all, every_placement
from solvers.experts.merit import merit
from solvers.experts.noise import least_gain
from solvers.experts.search.solver import SearchSolver
from solvers.params import DEFAULTS, SearchParams
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

#: However far a heuristic may lie from its bound, a bound within this of it is sought, relatively: a plan tells it.
TOLD = 0.2


class AutoSolver:
    """Never worse than the best heuristic, by the same scorer (layer times within `near_time` of one another count as
    alike, and the most balanced one is taken); keeps the balance cap where a heuristic does."""

    name = "auto"
    features = Features(
        traffic=True, dispatch=EVERY_DISPATCH, groups=True, moves=True, fixed=True,
        uneven=True, windows=True, tails=True, proves=True,
        note="heuristics, then search, then CP-SAT on small layers",
    )  # fmt: skip

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        return self.solve_against(problem, baseline_candidates(problem), stop, seed)

    def solve_against(self, problem: LayerProblem, rivals: Sequence[Candidate], stop: Stop, seed: int) -> Result:
        """See RivalSolver.solve_against."""
        if (loads := _of_loads(problem)) is not None:
            scored = [candidate(loads, each.slots) for each in rivals]
            by_load = self.solve_against(loads, scored, stop, seed)
            # What is proven of the largest load says nothing of seconds.
            status = Status.FEASIBLE if by_load.status is Status.OPTIMAL else by_load.status
            return replace(by_load, status=status, bound=0.0, bound_source="", bound_holds=False, witness=None)
        if (answer := _best_of_all(problem, every_placement(problem, stop.params.most_placements), stop)) is not None:
            return answer
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
        if (loads := _of_loads(problem)) is not None:
            scored = [candidate(loads, each.slots) for each in rivals]
            settled = self.settle(loads, scored, LayerBounds(loads), stop)
            if settled is None or settled.slots is None:
                return None
            proven = bounds.best(candidate(problem, settled.slots).score.objective, stop=stop)
            return replace(settled, bound=proven.value, bound_source=proven.source, witness=proven.witness)
        every = every_placement(problem, stop.params.most_placements)
        noisy = every is None and _weighs_noise(problem) and not _provable(problem, stop.params)

        def best_of(rivals: Sequence[Candidate]) -> Candidate:
            return steadiest(problem, rivals, stop.params.near_time) if noisy else choose(problem, rivals)

        over, value = merit(problem, best_of(rivals).score)
        if over > 0:
            return _best_of_all(problem, every, stop)
        enough = value / (1 + stop.gap)
        if noisy:
            enough = min(enough, value * (1 - least_gain(problem, stop.params)))
        # Trying all of a few placements takes no longer than the better bounds.
        sought = max(enough, value / (1 + TOLD))
        bound = bounds.best(value, quick=every is not None, stop=stop, enough=sought)
        if bound.value < enough:
            return _best_of_all(problem, every, stop)
        best = best_of(_with_dispatch(problem, rivals, value) if needs_fractions(problem) else rivals)
        return Result(
            best.slots, Status.FEASIBLE, Termination.PROVEN, bound=bound.value, bound_source=bound.source,
            bound_holds=True, fractions=best.fractions, witness=bound.witness,
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


def _best_of_all(problem: LayerProblem, every: IntArray | None, stop: Stop) -> Result | None:
    """The best of all placements where they are few."""
    found = None if every is None else best_of_all(problem, every, stop)
    if found is None:
        return None
    return Result(
        found.slots, Status.OPTIMAL, Termination.FINISHED, bound=found.least, bound_source=SOURCE, bound_holds=True,
        iterations=found.placements,
    )  # fmt: skip


def _provable(problem: LayerProblem, params: SearchParams) -> bool:
    """Whether CP-SAT is asked: the layer is small, homes dispatch alike, and copies are drawn by themselves."""
    cells = 0 if problem.data.sets is None else len(problem.data.sets.ids) * problem.topology.gpus
    small = problem.experts * problem.topology.gpus <= params.exact_binaries and cells <= params.exact_cells
    return small and tariff_of(problem).alike and not tariff_of(problem).together


def _of_loads(problem: LayerProblem) -> LayerProblem | None:
    """The problem of the largest load, where it is all that a placement changes of a layer's time; else None.

    Messages are the same for all, and a GPU's time may be that of its weights: seconds alone would give away balance.
    """
    tariff = tariff_of(problem)
    if problem.data.sets is None or tariff.constant_links is None or not (tariff.timed and tariff.alike):
        return None
    return problem.with_objective(kind="load")


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
