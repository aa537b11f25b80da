"""The compiled local search as a layer solver: loads first, then placement and dispatch together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from placement.cost.layer.dispatch import policy_of
from placement.cost.layer.tariff import Tariff, tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.base import EVERY_DISPATCH, Features, UnsupportedError
from solvers.bounds import layer_bound
from solvers.dispatch import needs_fractions, target_fractions
from solvers.experts.candidates import Candidate, candidate, choose
from solvers.experts.heuristics.greedy import GreedySolver
from solvers.experts.merit import merit
from solvers.experts.search.arrays import SetRows, cells
from solvers.experts.search.balance import balance
from solvers.experts.search.multilevel import copies_needed, copy_loads, has_levels, node_level, onto_gpus
from solvers.experts.search.run import Annealed, Schedule, run_annealing
from solvers.experts.search.settle import settle
from solvers.experts.search.start import starts
from solvers.experts.search.steady import steady
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

#: Default budgets and temperatures (docs/performance.md): experts onto nodes, then onto their GPUs, without replicas
#: (`SINGLE`) and with; all at once where nodes do not decide the traffic; inside one node.
ON_NODES_SINGLE = Schedule(225_000, 0.02, 0.0005, 10.0, 1.0, most_price=0.3, even=True)
ON_NODES = Schedule(225_000, 0.012, 0.0005, 10.0, 1.0, most_price=0.3, even=True)
#: Placement and dispatch together have more to try.
ON_NODES_PLANNED = Schedule(225_000, 0.017, 0.0005, 10.0, 1.0, most_price=0.3, even=True)
#: One number of a token picks its copies: what fits the tokens solved on best does not last, even links and GPUs do.
ON_NODES_TOGETHER = Schedule(225_000, 0.03, 0.0005, 10.0, 3.0, most_price=0.3, even=True)
#: Objective "traffic": no seconds of GPUs hold a balance, so that the cap is more than a wish on nodes, too.
ON_NODES_TRAFFIC = Schedule(300_000, 0.017, 0.0005, 2.0, 1.0, most_price=30.0, even=True)
ON_GPUS = Schedule(60_000, 0.001, 0.0002, 1.0, 1.0, even=True)
ON_GPUS_SINGLE = Schedule(100_000, 0.005, 0.0003, 1.0, 1.0, even=True)
AT_ONCE = Schedule(300_000, 0.01, 0.0003, 3.0, 0.5)
#: Temperatures of a node of so many GPUs: with more a move changes less of what all of them cost.
IN_ONE_NODE, GPUS = Schedule(240_000, 0.001, 0.0001, 3.0, 1.0), 8
#: A layer has the default steps at this many experts; with fewer or more in proportion, within limits. With more a move
#: changes less of the objective: temperatures, which are shares of that, fall as their number.
EXPERTS, LEAST, MOST = 64, 0.4, 4.0
#: More bins than these make a step dearer, so that it has fewer.
BINS = 16
#: A step costs a fixed part, worth this many reads of a weight, and those of an accepted move; a layer has the default
#: steps at the second number of reads. With fewer the node level has more steps in the same time, up to MORE times.
STEP_READS, READS, MORE = 1_000, 4_700, 3.0
#: With more cells (homes by nodes) than these a step of the node level is dearer: steps fall as the root of the cells.
CELLS = 32
#: The node level keeps this share of the imbalance that the cap allows: packing onto GPUs adds its own.
NODE_SHARE = 0.8
KICKS = 200
#: Placements that are annealed where a node has one GPU, and the distance of their seeds.
STARTS, TURN = 4, 1000
#: Evening out the GPUs of a node may cost this share of the objective on the routing solved on. Drift counts by the
#: first of the parameters' `drift` (see settle) that does not cost more, nor balance.
SETTLE_LOSS = 0.02
#: Where loads alone count, how far other routing is allowed for (see steady): the first with which a placement stays as
#: balanced as the known ones, on the routing solved on.
CAUTION = (1.0, 0.5, 0.2, 0.05, 0.0)
#: Copies that serve nobody are sought where one on each GPU saves this share of the objective: they cost traffic.
IDLE_GAIN = 0.06
#: A load search ends when its largest load is this near the bound.
NEAR_BOUND = 1.0005


class SearchSolver:
    """Local search over swap, replicate, drop and redirect moves with exact increments."""

    name = "search"
    features = Features(
        traffic=True, dispatch=EVERY_DISPATCH, groups=True, moves=True, fixed=True,
        uneven=True, windows=True, tails=True,
        note="keeps each group on the node that its start gives it",
    )  # fmt: skip

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        return self.improve(problem, [], stop, seed)

    def improve(self, problem: LayerProblem, known: Sequence[Candidate], stop: Stop, seed: int) -> Result:
        """The best answer from the given ones and the solver's own starts.

        Args:
            known: answers at hand, scored; they are not scored again.

        Raises:
            UnsupportedError: see LayerSolver.solve.
        """
        seen = {each.slots.tobytes() for each in known}
        fresh = [slots for slots in starts(problem, seed) if slots.tobytes() not in seen]
        found = [*known, *(candidate(problem, slots) for slots in fresh)]
        if not found:
            raise UnsupportedError("no placement to start from keeps the groups, the fixed slots and the moves")
        tariff = tariff_of(problem)
        termination, steps = Termination.WORK, 0
        # Where messages between nodes decide, a placement made for loads alone does not win.
        if problem.free and (problem.objective.kind == "load" or problem.data.sets is None or not has_levels(problem)):
            target = _target(problem) if problem.objective.kind == "load" else 0.0
            packed = GreedySolver().place(problem, seed)
            for cost, weight, share in _load_costs(tariff):
                kicks = max(1, int(KICKS * share * stop.work))
                slots, used = _balance(packed, problem, cost, weight, target, kicks, stop, seed)
                found.append(candidate(problem, slots))
                steps += used
        if not tariff.bins.linear or not tariff.alike or not problem.free:
            first = _first(problem, found)
            leads = _leads(problem, first[0].score.objective)
            runs = ((each, start, i) for each in leads for i, start in enumerate(first))
            for annealed in (
                run for each, start, i in runs for run in _anneal(each, start.slots, stop, seed + TURN * i)
            ):
                fractions = None
                if needs_fractions(problem) and annealed.target is not None:
                    fractions = target_fractions(problem, annealed.slots, annealed.target)
                placed = candidate(problem, annealed.slots, fractions)
                found.append(_settled(problem, placed, seed, stop) if has_levels(problem) else placed)
                steps += annealed.steps
                if annealed.termination is Termination.TIME:
                    termination = annealed.termination
        best = choose(problem, found)
        if tariff.rule.counts == "all" and problem.objective.kind == "load" and problem.free:
            best = _steadied(problem, best, known, seed, stop)
        return Result(best.slots, Status.FEASIBLE, termination, iterations=steps, fractions=best.fractions)


def _first(problem: LayerProblem, found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that are annealed: the best, and where each node has one GPU the next ones, too.

    There no node level leads the way, and moves change a link so much that one run ends where it is trapped.
    """
    best = choose(problem, found)
    if problem.topology.gpus_per_node > 1 or problem.topology.nodes == 1:
        return [best]
    ranked = sorted(found, key=lambda each: merit(problem, each.score))
    others = {each.slots.tobytes(): each for each in ranked if each.slots.tobytes() != best.slots.tobytes()}
    return [best, *others.values()][:STARTS]


def _leads(problem: LayerProblem, objective: float) -> list[LayerProblem]:
    """The problems that are annealed for this one: itself, and those found to lead to it better.

    The mean leads better than a few worst windows do. Where passes of few tokens count, copies that serve nobody may
    gain once each GPU has one: nodes don't see that step, those passes alone do. `objective`: of the placement at hand.
    """
    leads = [problem]
    if problem.objective.tail < 1.0:
        leads.append(problem.with_objective(tail=1.0))
    kinds = problem.hardware.rates.kinds
    replicas = problem.hardware.usable_slots > problem.experts
    if len(kinds) > 1 and replicas and policy_of(problem).solved and problem.objective.kind == "time":
        fewest = min(kinds, key=lambda kind: kind.tokens)
        if fewest.share * problem.hardware.rates.weight_s > IDLE_GAIN * objective:
            leads.append(problem.with_hardware(rates=problem.hardware.rates.of_kind(fewest)))
    return leads


def _settled(problem: LayerProblem, placed: Candidate, seed: int, stop: Stop) -> Candidate:
    """The placement with its nodes' GPUs evened out; as it was where that costs time or balance on this routing."""
    was_over, was = merit(problem, placed.score)
    for risk in stop.params.drift if problem.data.drift is not None else (0.0,):
        order = settle(problem, placed.slots, placed.score.slot_load, seed, risk, stop)
        fractions = None if placed.fractions is None else placed.fractions[:, order]
        evened = candidate(problem, placed.slots[order], fractions)
        over, value = merit(problem, evened.score)
        if over <= was_over and value <= was * (1 + SETTLE_LOSS):
            return evened
    return placed


def _steadied(
    problem: LayerProblem, best: Candidate, known: Sequence[Candidate], seed: int, stop: Stop
) -> Candidate:  # fmt: skip
    """The placement that bears other routing best among those no worse than what is known, by load and time; of counts
    alone, which are taken at their word, the one at hand."""
    if problem.data.sets is None or not known or not tariff_of(problem).alike:
        return best
    rival = choose(problem, known)
    over, least = merit(problem, rival.score)
    for caution in CAUTION:
        evened = candidate(problem, steady(problem, best.slots, caution, seed, stop))
        excess, value = merit(problem, evened.score)
        if excess <= over and value <= least and evened.score.time_s <= rival.score.time_s:
            return evened
    return best


def _target(problem: LayerProblem) -> float:
    """The largest load at which a load search has nothing left to gain."""
    return layer_bound(problem, quick=problem.hardware.slots_per_gpu > 2).value * NEAR_BOUND


def _load_costs(tariff: Tariff) -> list[tuple[FloatArray, FloatArray, float]]:
    """(Cost per copy, weight of each of its windows, share of the kicks) whose busiest GPUs stand for the objective.

    Messages follow loads here, so they are in the cost. For "load" the second variant asks for a low time beside.
    """
    problem, cost = tariff.problem, tariff.copy_costs
    weight = problem.data.window_weight
    if problem.objective.kind == "traffic" or (
        problem.objective.kind == "load" and problem.hardware.slots_per_gpu == 1
    ):
        return [(cost, weight, 1.0)]
    if problem.objective.kind == "load":
        timed = tariff.copy_times.sum(axis=0)
        mean = timed[1].sum(axis=1, keepdims=True) / problem.topology.gpus
        both = np.concatenate([cost, timed / mean], axis=1)
        return [(cost, weight, 1.0), (both, np.concatenate([weight, 0.5 * weight]), 0.02)]
    if problem.topology.gpus == 1:
        return [(cost, weight, 1.0)]
    copies = np.maximum(np.arange(len(cost)), 1)[:, None, None]
    messages = tariff.bins.in_s * problem.data.load[None] / copies
    return [(cost + messages, weight, 1.0), (tariff.copy_loads, weight, 0.5)]


def _balance(
    start: IntArray, problem: LayerProblem, cost: FloatArray, weight: FloatArray, target: float, kicks: int,
    stop: Stop, seed: int,
) -> tuple[IntArray, int]:  # fmt: skip
    """Rounds of the load search, so that a deadline is seen in between."""
    best, value, used, done = start, np.inf, 0, 0
    while done < kicks:
        part = min(50, kicks - done)
        width, gpus = problem.hardware.slots_per_gpu, problem.topology.gpus
        slots, reached, spent = balance(
            best, width, gpus, np.ascontiguousarray(cost), weight, target, part, seed + done, stop
        )  # fmt: skip
        if reached < value:
            best, value = np.asarray(slots), reached
        used += spent
        done += part
        if value <= target or stop.expired:
            break
    return best, used


def _anneal(problem: LayerProblem, start: IntArray, stop: Stop, seed: int) -> list[Annealed]:
    """The search's placements: by node and then by GPU where that pays, else all at once."""
    size = float(np.clip(problem.experts / EXPERTS, LEAST, MOST)) * stop.work
    rows, bins, params = None, tariff_of(problem).bins, stop.params
    cool = min(1.0, EXPERTS / problem.experts)
    if not bins.linear:
        rows = SetRows.of(problem.data.sets, problem.experts, problem.windows)
    if not has_levels(problem):
        plan = AT_ONCE
        if problem.topology.nodes == 1:
            plan, cool = IN_ONE_NODE, cool * GPUS / bins.count
        schedule = plan.scaled(size * params.gpu_effort * min(1.0, BINS / bins.count), params, cool)
        return [run_annealing(problem, start, None, schedule, stop, seed, rows)]
    copies = problem.hardware.usable_slots > problem.experts
    fine = (ON_GPUS if copies else ON_GPUS_SINGLE).scaled(size * params.gpu_effort, params, cool)
    coarse = node_level(problem)
    schedule = _on_nodes(problem).scaled(size * params.node_effort * steps_ratio(coarse, rows), params, cool)
    needed, share, runs = copies_needed(problem), NODE_SHARE, []
    # Each run is closer on the node level: where none keeps the cap, the layer's whole gain is lost.
    for turn in range(params.cap_tries):
        if problem.rules.max_load is not None:
            coarse = coarse.with_rules(max_load=1.0 + (problem.rules.max_load - 1.0) * share)
        first = GreedySolver().place(coarse, seed)
        nodes = run_annealing(coarse, first, None, schedule, stop.share_of_time(0.5), seed + turn, rows, needed)
        packed = onto_gpus(problem, nodes.slots, copy_loads(problem, nodes.slots, nodes.target))
        refined = run_annealing(problem, packed, nodes.target, fine, stop, seed + turn, rows)
        ended = max(nodes.termination, refined.termination, key=lambda each: each is Termination.TIME)
        runs.append(replace(refined, steps=nodes.steps + refined.steps, termination=ended))
        if runs[-1].over <= 0.0 or stop.expired:
            break
        share *= 0.5
    return runs


def steps_ratio(coarse: LayerProblem, rows: SetRows | None) -> float:
    """How many times the default steps the node level has: more with few token sets, fewer with many nodes."""
    few = min(1.0, math.sqrt(CELLS / cells(coarse)))
    # Bytes alone gain 0.3 points from more steps, at 0.003 less balance.
    if rows is None or coarse.objective.kind == "traffic":
        return few
    reads = len(rows.weight_value) * rows.ids.shape[1] ** 2 / (len(rows.set_start) - 1)
    return few * float(np.clip((STEP_READS + READS) / (STEP_READS + reads), 1.0, MORE))


def _on_nodes(problem: LayerProblem) -> Schedule:
    """The budget and temperatures of the node level."""
    if problem.objective.kind == "traffic":
        return ON_NODES_TRAFFIC
    if problem.hardware.usable_slots == problem.experts:
        return ON_NODES_SINGLE
    if tariff_of(problem).together:
        return ON_NODES_TOGETHER
    return ON_NODES_PLANNED if policy_of(problem).solved else ON_NODES
