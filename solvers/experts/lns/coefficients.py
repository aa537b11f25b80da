"""What a layer's neighbourhoods have in common."""

from __future__ import annotations

from placement.cost.layer.tariff import tariff_of
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError
from solvers.experts.exact.coefficients import Coefficients, coefficients_of


def neighbourhood_coefficients(problem: LayerProblem) -> Coefficients:
    """The coefficients of models of a part of the layer.

    Raises:
        UnsupportedError: Replicas whose messages depend on token sets, or under a policy other than `even`; a layer
            beyond MOST_TERMS of solvers.experts.exact.coefficients.
    """
    if problem.hardware.usable_slots > problem.experts and not tariff_of(problem).linear:
        raise UnsupportedError("neighbourhoods with replicas are priced for loads alone, without token sets")
    return coefficients_of(problem, whole=False)
