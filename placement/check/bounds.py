"""What is proven of a layer's objective: by loads alone, and by the prices of a witness; without the solvers' code.

The arguments are in docs/formulation.md, "Bounds". What is proven is rounded down.
"""

from __future__ import annotations

from placement.arithmetic import weighted_sum
from placement.check.messages import Reach, counted, least_crossing, least_link_s
from placement.check.nodes import node_work
from placement.check.reach import witnessed
from placement.check.work import least_work
from placement.cost.layer.risk import tail_mean
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from placement.records.witness import LayerWitness

#: Allowance for rounding in sums, products and maxima of numbers that are not negative: of 2**20 steps, each of 2**-52,
#: a quarter.
ROUNDING = 1e-9


def least_objective(problem: LayerProblem, witness: LayerWitness | None = None) -> float:
    """A lower bound on the objective of every placement and dispatch of a layer, in its unit.

    Args:
        witness: What proves more than loads and counts do, or None.

    Raises:
        WitnessError: The witness is not of this problem.
    """
    witness, reach = witness or LayerWitness(), counted(problem)
    if problem.objective.kind == "traffic":
        together = witnessed(problem, reach, witness.reach) if witness.reach else None
        return _least_traffic(problem, reach, together) * (1 - ROUNDING)
    work = least_work(problem, witness.packing)
    of_nodes = node_work(problem, reach, work)
    together = witnessed(problem, reach, witness.reach, of_nodes) if witness.reach else None
    if problem.objective.kind == "load":
        return _tail(problem, work[0]) * (1 - ROUNDING)
    tariff, data = tariff_of(problem), problem.data
    moved = tariff.moved_seconds(least_link_s(problem, data.load, reach))
    found = _tail(problem, tariff.layer_seconds(moved, work))
    if together is not None:
        # Of the mean over the windows: their worst are no better, nor a mean of maxima than the maximum of means.
        moved = tariff.moved_seconds(least_link_s(problem, data.mean_load[None, :], together))
        mean = weighted_sum(data.window_weight, work.T)
        found = max(found, float(tariff.layer_seconds(moved[0], mean)))
    return found * (1 - ROUNDING)


def _least_traffic(problem: LayerProblem, reach: Reach, together: Reach | None) -> float:
    """Of the bytes between nodes for one token."""
    each = tariff_of(problem).both_bytes / float(problem.hardware.home_tokens.sum())
    found = _tail(problem, each * least_crossing(problem, problem.data.load, reach))
    if together is None:
        return found
    return max(found, each * float(least_crossing(problem, problem.data.mean_load[None, :], together)[0]))


def _tail(problem: LayerProblem, values: FloatArray) -> float:
    return tail_mean(values, problem.data.window_weight, problem.objective.tail)
