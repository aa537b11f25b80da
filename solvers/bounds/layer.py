"""The bound of a whole layer from the bounds of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.risk import tail_mean
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from placement.records.witness import LayerWitness, ReachWitness
from solvers.bounds.evenness import NodeWork, node_work
from solvers.bounds.links import Reach, colocation_reach, counted_reach, crossing, link_seconds
from solvers.bounds.work import CLOSE, WorkBound, work_bounds
from solvers.stop import DEFAULT, Stop


@dataclass(frozen=True)
class Bound:
    """A proven lower bound on the objective of a problem, in its unit, and what proves it: the name of the argument,
    and the prices that loads alone do not tell."""

    value: float
    source: str
    witness: LayerWitness | None = field(default=None, compare=False)


def layer_bound(problem: LayerProblem, known: float | None = None, quick: bool = False, stop: Stop = DEFAULT) -> Bound:
    """A lower bound on the objective of every placement and dispatch that the problem allows (docs/formulation.md,
    "Bounds"); the arguments are those of `LayerBounds.best`."""
    return LayerBounds(problem).best(known, quick, stop)


class LayerBounds:
    """The bounds of one problem. Who asks again, of another answer, gets what takes long as it was found."""

    def __init__(self, problem: LayerProblem) -> None:
        self.problem = problem
        self._together: Reach | None = None

    def best(
        self, known: float | None = None, quick: bool = False, stop: Stop = DEFAULT, enough: float = math.inf
    ) -> Bound:
        """A lower bound on the objective of every placement and dispatch that the problem allows.

        Args:
            known: the objective of an answer at hand; work stops once the bound is within CLOSE of it, relatively.
            quick: only what is counted in closed form: mean and slot bounds of the work, slots that a token needs.
            stop: when to return the best bound so far; its work scales the co-location bound.
            enough: work stops once the bound is no less.
        """
        problem = self.problem

        if problem.objective.kind == "load":
            counted = self._of_loads(known, False, stop)
            return counted if quick or counted.value >= enough else self._of_loads(known, True, stop)
        reach = counted_reach(problem)
        if problem.objective.kind == "traffic":
            return self._of_traffic(reach, known, None if quick else stop, enough)
        tariff = tariff_of(problem)
        moved = tariff.moved_seconds(link_seconds(problem, problem.data.load, reach))
        # Every answer's bound begins here: it is made once a problem, save where there is no time for it.
        work = _work(problem, packing=False, stop=stop) if stop.expired else problem.kept(_counted)
        best = Bound(_joined(problem, moved, work.values), _source(problem, work.source, "messages"))
        if quick or stop.expired or _near(best.value, known) or best.value >= enough:
            return best
        mean = problem.data.mean_load[None, :]

        def means(found: Reach) -> float:
            return float(tariff.moved_seconds(link_seconds(problem, mean, found))[0])

        cheap = work.values
        none, one = (means(replace(reach, remote_nodes=nodes)) for nodes in (0.0, 1.0))
        of_nodes = node_work(problem, _in_mean(problem, cheap), one - none)
        together = self._colocated(
            reach, stop, lambda found: _joined_means(problem, means(found), cheap) >= enough, of_nodes
        )
        least = float(moved.min()) if together == reach else max(float(moved.min()), means(together))
        for packing in (False, True):
            if packing:
                left = None if known is None or problem.windows > 1 else _left(problem, known, least)
                work = _work(problem, left, stop=stop)
            # What holds beside so much work need not beside more.
            joined = work.values if of_nodes is None else cheap
            for value, link, prices in (
                (_joined(problem, moved, work.values), "messages", ()),
                (_joined_means(problem, means(together), joined), "co-location", together.witness),
            ):
                if value > best.value:
                    best = Bound(value, _source(problem, work.source, link), _witness(prices, work))
            if _near(best.value, known) or best.value >= enough or stop.expired:
                break
        return best

    def _of_loads(self, known: float | None, packing: bool, stop: Stop) -> Bound:
        """Of the largest load over the mean."""
        problem = self.problem
        work = work_bounds(problem, known, packing, stop)
        value = tail_mean(work.values, problem.data.window_weight, problem.objective.tail)
        return Bound(value, work.source, _witness((), work))

    def _of_traffic(self, reach: Reach, known: float | None, stop: Stop | None, enough: float) -> Bound:
        """Of the bytes per token: the slots that its experts need in each window; with a stop co-location in their
        mean."""
        problem = self.problem
        each = tariff_of(problem).both_bytes / float(problem.hardware.home_tokens.sum()) * (1 - 1e-12)
        counted = each * crossing(problem, problem.data.load, reach)
        best = Bound(tail_mean(counted, problem.data.window_weight, problem.objective.tail), "messages")
        if stop is None or _near(best.value, known) or best.value >= enough:
            return best
        mean = problem.data.mean_load[None, :]

        def value(found: Reach) -> float:
            return each * float(crossing(problem, mean, found)[0])

        together = self._colocated(reach, stop, lambda found: value(found) >= enough)
        if value(together) <= best.value:
            return best
        return Bound(value(together), "co-location", LayerWitness(together.witness))

    def _colocated(
        self, reach: Reach, stop: Stop, enough: Callable[[Reach], bool], work: NodeWork | None = None
    ) -> Reach:
        """`colocation_reach`, once."""
        if self._together is None:
            self._together = colocation_reach(self.problem, reach, stop, enough, work)
        return self._together


def _witness(reach: tuple[ReachWitness, ...], work: WorkBound) -> LayerWitness | None:
    return LayerWitness(reach, work.proofs) if reach or work.proofs else None


def _near(bound: float, known: float | None) -> bool:
    return known is not None and known <= bound * (1 + CLOSE)


def _left(problem: LayerProblem, known: float, moved: float) -> float:
    """What the work of an answer may be at most, given its objective."""
    return known if problem.hardware.rates.overlap == "two_batch" else known - moved


def _work(problem: LayerProblem, known: float | None = None, packing: bool = True, stop: Stop = DEFAULT) -> WorkBound:
    """As work_bounds, but with values [kinds, windows] of each kind of pass, times its share."""
    rates = problem.hardware.rates
    if len(rates.kinds) > 1:
        # What an answer may take in one kind depends on the others.
        known = None
    each = [work_bounds(problem.with_hardware(rates=rates.of_kind(kind)), known, packing, stop) for kind in rates.kinds]
    values = np.array([kind.share * bound.values for kind, bound in zip(rates.kinds, each, strict=True)])
    pairs = [(i, kind.share, proof) for i, kind in enumerate(rates.kinds) for proof in each[i].proofs]
    proofs = tuple(
        replace(proof, kind=i, limit=share * proof.limit, stands=share * proof.stands) for i, share, proof in pairs
    )
    return WorkBound(values, " and ".join(dict.fromkeys(bound.source for bound in each)), proofs)


def _counted(problem: LayerProblem) -> WorkBound:
    """What is proven of the work without knowing an answer."""
    return _work(problem, packing=False)


def _joined(problem: LayerProblem, moved: FloatArray, work: FloatArray) -> float:
    """Of messages [windows] and work [kinds, windows]."""
    value = tariff_of(problem).layer_seconds(moved, work)
    return tail_mean(value, problem.data.window_weight, problem.objective.tail)


def _joined_means(problem: LayerProblem, moved: float, work: FloatArray) -> float:
    """The worst windows are never better than the mean, nor a mean of maxima than the maximum of means."""
    return float(tariff_of(problem).layer_seconds(np.array(moved), _in_mean(problem, work)))


def _in_mean(problem: LayerProblem, work: FloatArray) -> FloatArray:
    """[kinds] the windows' mean of work [kinds, windows]."""
    return np.asarray(weighted_sum(problem.data.window_weight, work.T))


def _source(problem: LayerProblem, work: str, link: str) -> str:
    return f"max({work}, {link})" if problem.hardware.rates.overlap == "two_batch" else f"{work} + {link}"
