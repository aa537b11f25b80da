"""The plan file, `placement.plan/2`: its records, read and written whole or not at all (docs/formats.md)."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from placement.errors import InputError
from placement.problem.layer import Objective
from placement.records.base import Amount, Record, Text, Whole
from placement.records.choice import ChoiceRecord
from placement.records.demand import DemandRecord
from placement.records.files import json_text, write_file, write_text
from placement.records.layout import EngineName, NodesRecord, ScenarioRecord
from placement.records.role import Figure, RoleName, RolePlan, one_of_role
from placement.records.version1 import SCHEMA as FIRST
from placement.records.version1 import upgraded
from placement.records.witness import Kept, WitnessRecord, own_path, record_of
from specs.documents import parse_json, read_text, shown
from specs.fields import Count
from specs.scenario import Scenario
from specs.validation import validate

SCHEMA: Literal["placement.plan/2"] = "placement.plan/2"
#: Larger files are no plan of a cluster that can be planned.
MAX_BYTES = 512 * 2**20
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", strict=True)]
#: Which roles a plan has.
Mode = Literal["aggregated", "disaggregated", "mixed", "training"]


class InputRecord(Record):
    """A file that the plan was made from."""

    kind: Literal["trace", "counts"]
    name: Text
    sha256: Digest


class RoutingRecord(Record):
    """Where the routing comes from, which part was solved on and which part judges."""

    source: Text
    synthetic: bool
    solved_on: Literal["all", "first-half"]
    judged_on: Literal["all", "second-half"]
    windows_per_trace: Count
    judged_windows_per_trace: Count
    mixture: bool
    tokens_solved: Whole
    tokens_judged: Whole


class ProvenanceRecord(Record):
    """What the plan depends on."""

    strategy: Text
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)]
    work: Amount
    balance_floor: bool
    routing: RoutingRecord
    inputs: tuple[InputRecord, ...]
    versions: dict[str, str]
    #: Parameters of the search that are not the defaults (`SearchParams`), by name.
    params: dict[str, Whole | Amount | tuple[Amount, ...] | None] = Field(default={}, max_length=100)
    #: Gap from which on nothing is searched, where it is not the default.
    gap: Amount | None = None
    #: What a time limit cut short, in words.
    cut_short: tuple[Text, ...] = Field(default=(), max_length=16)
    #: What the routing leaves open, and what was done against it, in words.
    cautions: tuple[Text, ...] = Field(default=(), max_length=32)


class TimingsRecord(Record):
    """Wall-clock seconds of making the plan; only there on request."""

    total_s: Amount
    split_s: Amount
    routing_s: Amount
    solve_s: Amount


class FiguresRecord(Record):
    """Predicted figures of all roles together. Serving has TTFT and TPOT, training a step time."""

    tokens_per_s: Figure
    tokens_per_s_per_gpu: Figure
    ttft_ms: Figure | None = None
    tpot_ms: Figure | None = None
    step_ms: Figure | None = None


class Plan(Record):
    """A plan. The invariants checked on reading are those of its shape; placement.check re-derives the rest.

    Attributes:
        roles: One of an aggregated or a training plan, prefill and decode of a disaggregated one.
        choice: How the instances were chosen; null in older plans.
        demand: What the instances do under a demand, where one was simulated.
        witness: The file that proves the bounds; null where loads do, and in older plans.
        nodes: What nodes hold, instances by the index of their role; empty: instances fill the cluster in order.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Annotated[Literal["placement.plan/2"], Field(alias="schema")]
    scenario: ScenarioRecord
    engine: EngineName
    mode: Mode
    objective: Objective
    tail: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
    roles: Annotated[tuple[RolePlan, ...], Field(min_length=1, max_length=16)]
    nodes: Annotated[tuple[NodesRecord, ...], Field(max_length=4096)] = ()
    choice: ChoiceRecord | None = None
    demand: DemandRecord | None = None
    predicted: FiguresRecord
    provenance: ProvenanceRecord
    witness: WitnessRecord | None = None
    timings: TimingsRecord | None = None
    _kept: Kept = PrivateAttr(default_factory=Kept)

    @model_validator(mode="after")
    def _shapes_agree(self) -> Plan:
        for i, role in enumerate(self.roles):
            if problem := role.problem(self.scenario_of(role)):
                raise ValueError(f"roles[{i}].{problem}; plan it anew")
        if any(held.instance >= len(self.roles) for each in self.nodes for held in each.holds):
            raise ValueError(f"nodes name an instance beyond the {len(self.roles)} roles; plan it anew")
        if self.demand is not None and any(use.instance >= len(self.roles) for use in self.demand.use):
            raise ValueError(f"demand.use names an instance beyond the {len(self.roles)} roles; plan it anew")
        return self

    def scenario_of(self, role: RolePlan) -> Scenario:
        """The scenario as a role has it: on its cluster, with its pins."""
        return self.scenario.spec.of_role(role.role, role.cluster)

    def role(self, name: RoleName | str | None = None) -> RolePlan:
        """The role of that name, or the only one.

        Raises:
            ParameterError: There is none, or there are several.
        """
        return one_of_role(self.roles, name)

    @property
    def gpus(self) -> int:
        """GPUs of all roles."""
        return sum(role.gpus for role in self.roles)

    def __repr__(self) -> str:
        kinds = " + ".join(
            role.degrees if len(self.roles) == 1 else f"{role.split.instances} {role.role} {role.degrees}"
            for role in self.roles
        )
        told = f"{self.gpus:,} GPUs {kinds}: {self.predicted.tokens_per_s.value:,.0f} tokens/s"
        role = self.roles[-1]
        rival, own = role.strategy("eplb"), role.own
        if rival is not None and own is not None and rival is not own and rival.tokens_per_s > 0:
            told += f", eplb {rival.tokens_per_s:,.0f} ({own.tokens_per_s / rival.tokens_per_s - 1:+.1%})"
        gap = role.certificate.gap
        return f"<Plan {told}, {'no bound' if gap is None else f'gap {gap:.0%}'}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        html: str = self.compare()._repr_html_()
        return html

    def compare(self) -> Any:
        """Every strategy's figures beside the plan's own: a placement.report.comparison.Comparison."""
        from placement.report.comparison import Comparison

        return Comparison((self,))

    def with_witness(self, content: bytes | None) -> Plan:
        """The plan with what proves its bounds: the bytes of its witness file."""
        told = None if content is None else record_of(content)
        plan: Plan = self.model_copy(update={"witness": told})
        plan._kept = Kept(content)
        return plan

    def witness_bytes(self) -> bytes | None:
        """The bytes of the witness file, whatever they are; None where the plan names none, or it is not at hand.

        Raises:
            InputError: It can't be read.
        """
        return None if self.witness is None else self._kept.found(self.witness)

    def save(self, path: str | Path) -> None:
        """Writes the plan file and, beside it, its witness: both, or neither.

        Raises:
            InputError: A file can't be written.
        """
        content = self.witness_bytes()
        if self.witness is None or content is None or record_of(content) != self.witness:
            write_text(path, plan_json(self), "`out`")
            return
        target = Path(os.path.realpath(path))
        proof = own_path(target, self.witness)
        there = proof.exists()
        write_file(proof, lambda file: file.write(content), "`out`")
        try:
            write_text(path, plan_json(self), "`out`")
        except BaseException:
            if not there:
                with suppress(OSError):
                    proof.unlink()
            raise


def plan_from_json(text: str, source: str) -> Plan:
    """The plan that a JSON text holds; `source` names it in messages.

    Raises:
        InputError: the text is no valid plan.
    """
    data = parse_json(text, source)
    found = data.get("schema")
    if found == FIRST:
        data = upgraded(data, source)
    elif found != SCHEMA:
        told = "is missing" if found is None else f"is {shown(found)}"
        raise InputError(source, "schema", told, f"give a plan file of schema {SCHEMA}, as 'placement solve' writes it")
    plan: Plan = validate(Plan, data, source)
    return plan


def load_plan(path: str | Path) -> Plan:
    """The plan in a file.

    Raises:
        InputError: it can't be read, or is no valid plan.
    """
    source = shown(str(path), 200)
    plan = plan_from_json(read_text(Path(path), source, MAX_BYTES), source)
    plan._kept = Kept(plan=Path(os.path.realpath(path)))
    return plan


def plan_json(plan: Plan) -> str:
    """The plan as JSON text: fields in their fixed order, lists of numbers on one line each."""
    data = plan.model_dump(mode="json", by_alias=True)
    _drop_unset(data, "timings", "nodes", "choice", "demand", "witness")
    _drop_unset(data["provenance"], "params", "gap", "cut_short", "cautions")
    for predicted in (data["predicted"], *(role["predicted"] for role in data["roles"])):
        for figure in (predicted[name] for name in FiguresRecord.model_fields):
            if figure is not None:
                _drop_unset(figure, "interval")
    for role in data["roles"]:
        _drop_unset(role, "cluster", "failed_gpus", "requests_per_s", "binds", "largest_batch", "stake", "served")
        _drop_unset(role["split"], "layer_redundant")
    return json_text(data)


def _drop_unset(record: dict[str, Any], *names: str) -> None:
    """Leaves out fields that say nothing."""
    for name in names:
        if record[name] in (None, [], {}):
            del record[name]


def plan_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a plan file."""
    schema = Plan.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


def schema_text() -> str:
    """The JSON Schema as the text of placement/records/schemas/plan.schema.json."""
    return json.dumps(plan_schema(), indent=2) + "\n"
