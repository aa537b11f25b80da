"""The plan file, `placement.plan/1`: its records, read and written whole or not at all (docs/formats.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from placement.errors import InputError
from placement.problem.arrays import EMPTY
from placement.problem.layer import Objective
from placement.problem.split import cut_problem, slots_of
from placement.records.base import Amount, Number, Rank, Record, Slots, Text, Whole
from placement.records.files import json_text, write_text
from placement.records.layout import EngineRecord, ScenarioRecord, SplitRecord, StageRecord, TopologyRecord
from specs.documents import parse_json, read_text, shown
from specs.engine import Dispatch, MessageRule
from specs.fields import MAX_EXPERTS, MAX_GPUS, MAX_LAYERS, Count
from specs.validation import validate
from specs.workload import PlannedPhase

SCHEMA: Literal["placement.plan/1"] = "placement.plan/1"
#: Larger files are no plan of a cluster that can be planned.
MAX_BYTES = 512 * 2**20
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$", strict=True)]
#: [nodes][slots of experts with several copies, ascending] share of that copy, by home node; other slots take all.
Fractions = tuple[tuple[Amount, ...], ...]
LayerStatus = Literal["optimal", "feasible"]
CertificateUnit = Literal["us", "max_over_mean", "bytes_per_token"]
#: The unit of a certificate by objective, and how many of it are one of the scorer's.
CERTIFICATE_UNITS: Mapping[Objective, tuple[CertificateUnit, float]] = {
    "time": ("us", 1e6), "load": ("max_over_mean", 1.0), "traffic": ("bytes_per_token", 1.0),
}  # fmt: skip


class LayerRecord(Record):
    """One MoE layer. `layer` is the model's own index, dense layers counted; GPU = slot // slots_per_gpu."""

    layer: Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
    physical_to_logical: Slots
    dispatch_fractions: Fractions | None = None
    objective: Amount
    bound: Amount
    bound_source: Text
    gap: Amount | None
    status: LayerStatus
    #: "proven": nothing was searched, as a heuristic is proven near enough.
    termination: Literal["finished", "work", "time", "interrupted", "proven"]


class MemoryLineRecord(Record):
    """One use of HBM."""

    name: Text
    bytes: Amount


class MemoryRecord(Record):
    """HBM of one GPU of the fullest stage, by line."""

    stage: Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
    lines: tuple[MemoryLineRecord, ...]
    total_bytes: Amount
    capacity_bytes: Amount
    headroom_bytes: Number


class Figure(Record):
    """A predicted figure in the unit that its field names."""

    value: Amount
    provenance: Literal["roofline", "calibrated", "measured"]
    #: How the MoE layers in it were timed, such as "scored placement".
    moe_layer: Text


class PartRecord(Record):
    """One part of a step, over all layers."""

    name: Text
    ms: Amount


class PredictedRecord(Record):
    """Predicted figures of the plan. Serving has TTFT and TPOT, training a step time."""

    tokens_per_s: Figure
    tokens_per_s_per_gpu: Figure
    ttft_ms: Figure | None = None
    tpot_ms: Figure | None = None
    step_ms: Figure | None = None
    breakdown: tuple[PartRecord, ...] = ()


class StrategyRecord(Record):
    """One strategy's figures: means over the MoE layers, on the routing that `routing.judged_on` names.

    `nodes_per_token` and `remote_nodes_per_token` are null where only load counts are known. `moe_layer_us` is of the
    plan's phase; `decode_us` and `prefill_us` of these phases, null in training. `placements` holds one
    placement per MoE layer, in the order of `layers`; null for the plan's own, which stand in `layers`.
    """

    name: Text
    balancedness: Annotated[float, Field(ge=0, le=1 + 1e-9, allow_inf_nan=False, strict=True)]
    nodes_per_token: Amount | None
    remote_nodes_per_token: Amount | None
    cross_node_bytes_per_token: Amount
    moe_layer_us: Amount
    decode_us: Amount | None = None
    prefill_us: Amount | None = None
    tokens_per_s: Amount
    placements: Annotated[tuple[Slots, ...], Field(max_length=MAX_LAYERS)] | None = None
    dispatch_fractions: tuple[Fractions | None, ...] | None = None


class CertificateRecord(Record):
    """How good the plan is: mean objective over the MoE layers, on the routing it was solved on, and a proven bound."""

    objective: Amount
    bound: Amount
    gap: Amount | None
    status: LayerStatus
    unit: CertificateUnit


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
    params: dict[str, Whole | Amount | tuple[Amount, ...]] = Field(default={}, max_length=100)
    #: Gap from which on nothing is searched, where it is not the default.
    gap: Amount | None = None
    #: What a time limit cut short, in words.
    cut_short: tuple[Text, ...] = Field(default=(), max_length=16)


class TimingsRecord(Record):
    """Wall-clock seconds of making the plan; only there on request."""

    total_s: Amount
    split_s: Amount
    routing_s: Amount
    solve_s: Amount


class Plan(Record):
    """A plan. The invariants checked on reading are those of its shape; placement.cli.verify re-derives the rest."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Annotated[Literal["placement.plan/1"], Field(alias="schema")]
    scenario: ScenarioRecord
    phase: PlannedPhase
    objective: Objective
    tail: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
    dispatch: Dispatch
    #: What the placement was made under; `engine.messages` has the rule of each phase.
    message_rule: MessageRule
    split: SplitRecord
    #: As the scenario has it, where an older plan does not say.
    engine: EngineRecord = Field(
        default_factory=lambda data: EngineRecord.of(data["scenario"].spec, data["split"].split())
    )
    stages: Annotated[tuple[StageRecord, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    topology: TopologyRecord
    #: GPUs of `topology` that are lost, ascending: they hold no experts and are no token's home.
    failed_gpus: Annotated[tuple[Rank, ...], Field(max_length=MAX_GPUS)] = ()
    slots_per_gpu: Annotated[int, Field(ge=1, le=MAX_EXPERTS, strict=True)]
    tokens_per_gpu: Amount
    layers: Annotated[tuple[LayerRecord, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    memory: MemoryRecord
    predicted: PredictedRecord
    strategies: Annotated[tuple[StrategyRecord, ...], Field(max_length=64)]
    certificate: CertificateRecord
    provenance: ProvenanceRecord
    timings: TimingsRecord | None = None

    @model_validator(mode="after")
    def _shapes_agree(self) -> Plan:
        model = self.scenario.spec.model
        if tuple(layer.layer for layer in self.layers) != model.moe_layers:
            raise ValueError(f"layers are not the model's {len(model.moe_layers)} MoE layers in order; plan it anew")
        if self.topology.gpus > MAX_GPUS or self.topology.gpus != self.split.ep:
            raise ValueError(f"topology.gpus {self.topology.gpus} is not split.ep {self.split.ep}; plan it anew")
        if self.slots_per_gpu != self.split.slots_per_gpu:
            raise ValueError(f"slots_per_gpu {self.slots_per_gpu} is not split.slots_per_gpu; plan it anew")
        problem = cut_problem(self.scenario.spec, self.split.pp, self.split.cut, self.split.recompute)
        if problem:
            raise ValueError(f"split.{problem}; plan it anew")
        if list(self.failed_gpus) != sorted({gpu for gpu in self.failed_gpus if gpu < self.topology.gpus}):
            raise ValueError(f"failed_gpus are not GPUs below {self.topology.gpus} in order; plan it anew")
        for where, rows in self._placements():
            if rows is not None and len(rows) != len(self.layers):
                raise ValueError(f"{where} has {len(rows)} placements for {len(self.layers)} layers; plan it anew")
            for moe, width, row in zip(model.moes, self.widths, rows or (), strict=False):
                slots = self.topology.gpus * width
                if len(row) != slots:
                    raise ValueError(f"{where} has a placement of {len(row)} slots, not {slots}; plan it anew")
                if max(row) >= moe.experts:
                    raise ValueError(f"{where} names expert {max(row)} of {moe.experts} experts; plan it anew")
                empty = sum(row[g * width : (g + 1) * width].count(EMPTY) for g in self.failed_gpus)
                if not len(self.failed_gpus) * width == empty == row.count(EMPTY):
                    raise ValueError(f"{where}: the slots of failed_gpus, and no others, are {EMPTY}; plan it anew")
        for strategy in self.strategies:
            if strategy.dispatch_fractions is not None and len(strategy.dispatch_fractions) != len(self.layers):
                raise ValueError(f"strategies ({shown(strategy.name)}) lacks dispatch_fractions; plan it anew")
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) != len(names):
            raise ValueError("strategies names a strategy twice; plan it anew")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """[layers] slots of a GPU in each layer: `slots_per_gpu`, or fewer in layers of fewer experts."""
        model, redundant = self.scenario.spec.model, self.split.redundant
        return tuple(
            self.slots_per_gpu
            if moe.experts == model.moe.experts
            else slots_of(moe.experts, redundant, self.topology.gpus)
            for moe in model.moes
        )

    def _placements(self) -> Iterator[tuple[str, tuple[Slots, ...] | None]]:
        yield "layers", tuple(layer.physical_to_logical for layer in self.layers)
        for strategy in self.strategies:
            yield f"strategies ({shown(strategy.name)})", strategy.placements

    def __repr__(self) -> str:
        split, own, gpus = self.split, self.own, self.split.tp * self.split.dp * self.split.pp * self.split.instances
        named = (("TP", split.tp), ("EP", split.ep), ("PP", split.pp), ("DP", split.dp))
        degrees = " ".join(f"{name}{degree}" for name, degree in named if degree > 1) or "one GPU each"
        told = f"{gpus:,} GPUs {degrees}: {self.predicted.tokens_per_s.value:,.0f} tokens/s"
        rival = self.strategy("eplb")
        if rival is not None and own is not None and rival is not own and rival.tokens_per_s > 0:
            told += f", eplb {rival.tokens_per_s:,.0f} ({own.tokens_per_s / rival.tokens_per_s - 1:+.1%})"
        gap = self.certificate.gap
        return f"<Plan {told}, {'no bound' if gap is None else f'gap {gap:.0%}'}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        html: str = self.compare()._repr_html_()
        return html

    def compare(self) -> Any:
        """Every strategy's figures beside the plan's own: a placement.report.comparison.Comparison."""
        from placement.report.comparison import Comparison

        return Comparison((self,))

    def save(self, path: str | Path) -> None:
        """Writes the plan file, whole or not at all.

        Raises:
            InputError: The file can't be written.
        """
        write_text(path, plan_json(self), "`out`")

    @property
    def own(self) -> StrategyRecord | None:
        """The plan's own row among the strategies."""
        return next((strategy for strategy in self.strategies if strategy.placements is None), None)

    def strategy(self, name: str) -> StrategyRecord | None:
        """The strategy of that name, or None."""
        return next((strategy for strategy in self.strategies if strategy.name == name), None)


def plan_from_json(text: str, source: str) -> Plan:
    """The plan that a JSON text holds; `source` names it in messages.

    Raises:
        InputError: the text is no valid plan.
    """
    data = parse_json(text, source)
    found = data.get("schema")
    if found != SCHEMA:
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
    return plan_from_json(read_text(Path(path), source, MAX_BYTES), source)


def plan_json(plan: Plan) -> str:
    """The plan as JSON text: fields in their fixed order, lists of numbers on one line each."""
    data = plan.model_dump(mode="json", by_alias=True)
    if plan.timings is None:
        del data["timings"]
    if not plan.failed_gpus:
        del data["failed_gpus"]
    if not plan.provenance.params:
        del data["provenance"]["params"]
    if plan.provenance.gap is None:
        del data["provenance"]["gap"]
    if not plan.provenance.cut_short:
        del data["provenance"]["cut_short"]
    return json_text(data)


def plan_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a plan file."""
    schema = Plan.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


def schema_text() -> str:
    """The JSON Schema as the text of placement/records/schemas/plan.schema.json."""
    return json.dumps(plan_schema(), indent=2) + "\n"
