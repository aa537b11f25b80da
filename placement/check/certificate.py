"""Who vouches for a plan's bounds: the loads, the prices in its witness file, or only the solver that it names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from placement.check.bounds import least_objective
from placement.check.every import least_of_all
from placement.check.reach import WitnessError
from placement.errors import InputError
from placement.problem.layer import LayerProblem
from placement.records.plan import Plan
from placement.records.role import LayerRecord
from placement.records.witness import LayerWitness, RoleWitness, read_witness

#: Plans without a witness may be older than the rounding of their bounds: these may be so much above, relatively.
OLDER = 1e-8
#: Solvers whose word is all that there is for a bound: they write no witness.
SOLVERS = ("CP-SAT", "CBC", "HiGHS", "LP relaxation")

#: The source of a bound that all placements of a layer prove.
ENUMERATION = "enumeration"


@dataclass(frozen=True)
class Witnesses:
    """The witness file of a plan.

    Attributes:
        roles: What it holds; None where there is none.
        size: Of the file, in bytes. why_not: Why there is none, or "". fault: Why it is not the plan's, or "".
        named: Whether the plan names one.
    """

    roles: tuple[RoleWitness, ...] | None = None
    size: int = 0
    why_not: str = ""
    fault: str = ""
    named: bool = True

    def of(self, role: int, layer: int) -> LayerWitness | None:
        """What the file holds of a layer."""
        return self.roles[role].layers[layer] if self.roles is not None else None


@dataclass(frozen=True)
class Proof:
    """What is known of one layer's bound.

    Attributes:
        kind: "checked": proven here; "claimed": a solver's word; "missing": its witness is; "wrong": it is not proven.
        least: What is proven here, rounded down. told: What is wrong.
    """

    kind: Literal["checked", "claimed", "missing", "wrong"]
    least: float
    told: str = ""


def witnesses_of(plan: Plan) -> Witnesses:
    """The witness file that a plan names, if it is at hand and what it says it is."""
    if plan.witness is None:
        return Witnesses(why_not="the plan names no witness file", named=False)
    name = f"*{plan.witness.suffix}"
    try:
        content = plan.witness_bytes()
        if content is None:
            return Witnesses(why_not=f"{name} does not lie beside the plan")
        if len(content) != plan.witness.bytes or hashlib.sha256(content).hexdigest() != plan.witness.sha256:
            return Witnesses(fault=f"{name} is not the file that the plan names (size or SHA-256 differ)")
        roles = read_witness(content, name)
    except InputError as error:
        return Witnesses(fault=str(error))
    shapes = [len(role.layers) for role in roles]
    if shapes != [len(role.layers) for role in plan.roles]:
        return Witnesses(fault=f"{name} is of other layers than the plan")
    return Witnesses(roles, len(content))


def proof_of(layer: LayerRecord, problem: LayerProblem, witnesses: Witnesses, role: int, at: int) -> Proof:
    """What proves a layer's bound; `role` and `at`: its places in the plan."""
    least, witness = least_objective(problem), witnesses.of(role, at)
    if witness is not None:
        try:
            least = max(least, least_objective(problem, witness))
        except WitnessError as error:
            return Proof("wrong", least, f"its witness is not of this problem: {error}")
    if layer.bound_source == ENUMERATION:
        least = max(least, least_of_all(problem))
    if witnesses.roles is not None and witnesses.roles[role].bounds[at] != layer.bound:
        return Proof("wrong", least, f"bound {layer.bound:g} is not the one that the witness file was written with")
    if layer.bound <= least * (1 + (OLDER if witnesses.roles is None else 0.0)):
        return Proof("checked", least)
    if any(name in layer.bound_source for name in SOLVERS):
        return Proof("claimed", least)
    if witnesses.roles is None and (witnesses.named or not counted_source(layer.bound_source)):
        return Proof("missing", least)
    return Proof("wrong", least, f"bound {layer.bound:g} is above {least:g}, which is all that is proven")


def counted_source(source: str) -> bool:
    """Whether a bound says that loads and counts prove it, which needs no witness."""
    return "co-location" not in source and "packing" not in source
