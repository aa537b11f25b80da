"""Layer problems from their fields by name, whichever part of the problem a field belongs to."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from placement.problem.data import LayerData
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerObjective, LayerProblem, LayerRules
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology

PARTS = {"data": LayerData, "hardware": LayerHardware, "rules": LayerRules, "objective": LayerObjective}


def changed(problem: LayerProblem, **changes: Any) -> LayerProblem:
    """The problem with other fields; `objective` is the objective's kind."""
    if "objective" in changes:
        changes["kind"] = changes.pop("objective")
    parts = {}
    for part, record in PARTS.items():
        names = {field.name for field in fields(record)}
        parts[part] = replace(getattr(problem, part), **{name: changes.pop(name) for name in names & set(changes)})
    if changes:
        raise TypeError(f"no fields of a layer problem: {sorted(changes)}")
    return replace(problem, **parts)


def layer_problem(
    load: np.ndarray, topology: Topology, slots_per_gpu: int, rates: LayerRates, **changes: Any
) -> LayerProblem:
    """A problem of one window or more; what is not given has its default."""
    if "objective" in changes:
        changes["kind"] = changes.pop("objective")
    given = {"load": load, "topology": topology, "slots_per_gpu": slots_per_gpu, "rates": rates, **changes}
    parts = {}
    for part, record in PARTS.items():
        names = {field.name for field in fields(record)}
        parts[part] = record(**{name: given.pop(name) for name in names & set(given)})
    if given:
        raise TypeError(f"no fields of a layer problem: {sorted(given)}")
    return LayerProblem(**parts)
