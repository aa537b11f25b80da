"""What strategies' answers are worth on the routing that judges, as records of a plan."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

import numpy as np

from placement import __version__
from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.cost.own_batch import BatchFit, Operation
from placement.planning.progress import Reporter
from placement.planning.strategies import Answers
from placement.problem.layer import Objective
from placement.records.convert import operation_record, packed_fractions, predicted_record, strategy_record
from placement.records.role import (
    CERTIFICATE_UNITS,
    CertificateRecord,
    LayerRecord,
    PredictedRecord,
    RolePlan,
    StrategyRecord,
)
from placement.records.witness import RoleWitness
from solvers.experts.layers import TOLERANCE, LayerAnswer
from solvers.result import Status

#: What a plan claims is this much below what a solver proved, relatively: more than who checks it loses to rounding.
BELOW = 1e-8
_PACKAGES = ("numpy", "scipy", "numba", "ortools", "pulp", "pydantic")


@dataclass(frozen=True)
class Judgement:
    """Every strategy's figures on the routing that judges, and the prediction of the plan's own."""

    strategies: tuple[StrategyRecord, ...]
    predicted: PredictedRecord


def judge(
    assessor: Assessor,
    placements: Mapping[str, Placement],
    own: str,
    report: Reporter,
    at_own: BatchFit | None = None,
    operations: Mapping[str, Operation] = MappingProxyType({}),
) -> Judgement:
    """Scores placements by their names; the plan's own, `own`, is among them.

    Args:
        at_own: Scores them at the batch of their operation, too, on the same routing.
        operations: By name.
    """
    report.stage("scoring on held-out routing", len(placements))
    strategies, predicted = [], None
    for name, placement in placements.items():
        assessment, own_batch = assessor.assess(placement), None
        if at_own is not None and name in operations:
            how = operations[name]
            operated = at_own.operated(placement, how)
            own_batch = operation_record(operated.prediction, how.batch, operated.times, how.requests_per_s)
        strategies.append(strategy_record(name, assessment, None if name == own else placement, own_batch))
        if name == own:
            predicted = predicted_record(assessment.prediction)
        report.advance()
    if predicted is None:
        raise RuntimeError(f"the strategies {list(placements)} lack the plan's own, {own}")
    return Judgement(tuple(strategies), predicted)


def layer_record(index: int, answer: LayerAnswer) -> LayerRecord:
    """An answer as the plan file holds it; `index` is the model's own layer index."""
    objective = answer.score.objective
    bound = _bound(answer)
    return LayerRecord(
        layer=index,
        physical_to_logical=tuple(answer.slots.tolist()),
        dispatch_fractions=packed_fractions(answer.slots, answer.fractions),
        objective=objective,
        bound=bound,
        bound_source=answer.bound_source,
        gap=objective / bound - 1.0 if bound > 0 else None,
        status="optimal" if answer.status is Status.OPTIMAL else "feasible",
        termination=answer.termination.value,
    )


def _bound(answer: LayerAnswer) -> float:
    """The answer's bound, as a plan claims it; at most the objective."""
    objective = answer.score.objective
    if answer.bound > objective * (1 + TOLERANCE):
        raise RuntimeError(f"bound {answer.bound!r} ({answer.bound_source}) is above the objective {objective!r}")
    return min(answer.bound * (1 - BELOW), objective)


def witness_of(role: RolePlan, answers: Answers) -> RoleWitness:
    """What proves the bounds of a role that has these answers."""
    bounds = np.array([layer.bound for layer in role.layers])
    return RoleWitness(bounds, tuple(answer.witness for answer in answers))


def certificate_of(answers: Answers, objective: Objective) -> CertificateRecord:
    """The certificate of all layers' answers."""
    unit, scale = CERTIFICATE_UNITS[objective]
    value = float(np.mean([answer.score.objective for answer in answers])) * scale
    bound = float(np.mean([_bound(answer) for answer in answers])) * scale
    return CertificateRecord(
        objective=value,
        bound=bound,
        gap=value / bound - 1.0 if bound > 0 else None,
        status="optimal" if all(answer.status is Status.OPTIMAL for answer in answers) else "feasible",
        unit=unit,
    )


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of what solves."""
    found = {"placement": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
