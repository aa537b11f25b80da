"""`auto`: heuristics, then the compiled search, then CP-SAT where a layer is small enough to prove."""

from __future__ import annotations

import time
from dataclasses import replace

from placement.cost.moe_layer import score_layer
from placement.problem import IntArray, LayerProblem
from placement.result import Result, Status, Termination
from solvers.base import Features, UnsupportedError
from solvers.heuristics.eplb import EplbSolver, scorable
from solvers.registry import BASELINES, get_solver
from solvers.search.solver import choose, merit
from solvers.stop import Stop

#: CP-SAT joins below this many placement binaries (experts x GPUs) and distinct token sets x bins.
EXACT_BINARIES, EXACT_CELLS = 96, 400
#: Share of CP-SAT's own default work that `auto` gives it.
EXACT_SHARE = 0.25
#: A smaller gain over the best heuristic is within the noise of a few thousand sampled tokens: on held-out routing a
#: gain of 1.6% turned into a loss of 1.1%, one of 4% into a gain of 0.5% (docs/performance.md).
LEAST_GAIN = 0.03


class AutoSolver:
    """Never worse than the best heuristic, by the same scorer; keeps the balance cap where a heuristic does."""

    name = "auto"
    features = Features(
        traffic=True, dispatch=("even", "nearest", "planned"), groups=True, moves=True, proves=True,
        note="groups and moves: hierarchical eplb, or CP-SAT on small layers",
    )  # fmt: skip

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        started = time.perf_counter()
        scored = scorable(problem)
        candidates: list[IntArray] = []
        baselines: list[IntArray] = []
        termination, iterations = Termination.FINISHED, 0
        if problem.max_moves is not None and problem.current is not None:
            candidates.append(problem.current)
        elif problem.group is not None:
            candidates += EplbSolver().variants(problem)
        else:
            for name in BASELINES:
                answer = get_solver(name).solve(scored, stop, seed)
                if answer.slots is not None:
                    candidates.append(answer.slots)
            baselines = list(candidates)
            found = get_solver("search").solve(problem, stop, seed)
            termination, iterations = found.termination, found.iterations
            if found.slots is not None:
                candidates.append(found.slots)
        proof = self._exact(scored, stop, seed, choose(scored, candidates) if candidates else None)
        bound, source = 0.0, ""
        if proof is not None:
            bound, source = proof.bound, proof.bound_source
            if proof.status is Status.INFEASIBLE and not candidates:
                return proof
            if proof.slots is not None:
                candidates.append(proof.slots)
        if not candidates:
            raise UnsupportedError("no heuristic keeps these groups, and the layer is too large for CP-SAT")
        best = choose(scored, candidates)
        if proof is None and baselines and scored.sets is not None and scored.objective == "time":
            rival = choose(scored, baselines)
            ours, theirs = (score_layer(scored, slots) for slots in (best, rival))
            kept = merit(scored, theirs)[0] <= merit(scored, ours)[0]
            if kept and ours.objective > theirs.objective * (1 - LEAST_GAIN):
                best = rival
        return Result(
            best, Status.FEASIBLE, termination, bound=bound, bound_source=source,
            seconds=time.perf_counter() - started, iterations=iterations,
        )  # fmt: skip

    def _exact(self, problem: LayerProblem, stop: Stop, seed: int, start: IntArray | None) -> Result | None:
        cells = 0 if problem.sets is None else len(problem.sets.ids) * problem.topology.gpus
        if problem.experts * problem.topology.gpus > EXACT_BINARIES or cells > EXACT_CELLS or stop.expired:
            return None
        if problem.dispatch != "even":
            if problem.slots != problem.experts:
                return None
            problem = replace(problem, dispatch="even")
        from solvers.cpsat.solver import CpSatSolver

        try:
            return CpSatSolver().solve_from(problem, start, stop.scaled(EXACT_SHARE), seed)
        except UnsupportedError:
            return None
