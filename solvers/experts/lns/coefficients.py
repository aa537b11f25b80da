"""What a layer's neighbourhoods have in common: prices of work, link rows, weights of the windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.cost.layer.links import effective_rule
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError
from solvers.experts.exact.coefficients import (
    Coefficients,
    LinkRow,
    coefficients_of,
    link_rows,
    tail_shares,
)


@dataclass(frozen=True)
class Prices:
    """A problem in numbers, for reduced models.

    Attributes:
        data: prices by number of copies; see Coefficients. Its links are not used: those below know token sets.
        links: see solvers.experts.exact.coefficients.link_rows.
        linear: messages follow loads, not token sets.
        gpu_bins, node_bins: [gpus] bin of each GPU at the two levels of link rows.
        shares: [windows] weight of each window; with a tail, of its excess over the tail's threshold.
        worst: the worst window alone decides.
    """

    data: Coefficients
    links: tuple[LinkRow, ...]
    linear: bool
    gpu_bins: IntArray
    node_bins: IntArray
    shares: FloatArray
    worst: bool

    def bins(self, level: str) -> IntArray:
        """[gpus] bin of each GPU at a level of the link rows."""
        return self.gpu_bins if level == "gpu" else self.node_bins


def prices_of(problem: LayerProblem) -> Prices:
    """The prices of `problem`.

    Raises:
        UnsupportedError: replicas whose messages depend on token sets, or under a policy other than `even`; a layer
            beyond MOST_TERMS of solvers.experts.exact.coefficients.
    """
    linear = effective_rule(problem) == "per_expert" or problem.objective.kind == "load"
    if problem.hardware.usable_slots > problem.experts and not linear:
        raise UnsupportedError("neighbourhoods with replicas are priced for loads alone, without token sets")
    data = coefficients_of(problem.with_data(sets=None))
    links = tuple(link_rows(problem))
    shares, worst = tail_shares(problem)
    if problem.objective.tail >= 1.0:
        shares, worst = problem.data.window_weight, False
    topology = problem.topology
    gpus = np.arange(topology.gpus, dtype=np.int64)
    return Prices(data, links, linear, gpus, topology.node_of_gpu, np.asarray(shares), worst)
