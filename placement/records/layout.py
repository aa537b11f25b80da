"""How a plan lays the model out: its scenario, split, stages, expert-parallel ranks and engine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from placement.problem.engine_rules import engine_notes, message_rule, role_phases
from placement.problem.split import Split
from placement.records.base import MAX_SLOTS, Record, Text
from specs.engine import MessageRule
from specs.fields import MAX_EXPERTS, MAX_LAYERS, Count, Degree
from specs.scenario import Scenario
from specs.workload import Phase, Recompute

#: Redundant experts of a layer.
Redundant = Annotated[int, Field(ge=0, le=MAX_SLOTS, strict=True)]


class ScenarioRecord(Record):
    """The scenario, resolved: every default and every option of the command line filled in."""

    name: Text
    spec: Scenario


class EngineName(Record):
    """A serving engine; see specs.engine.Engine. `notes`: what a user of the plan must know of it."""

    name: Text
    version: Text
    backend: Text
    notes: Annotated[tuple[Text, ...], Field(max_length=16)] = ()

    @property
    def label(self) -> str:
        """Name, version and backend, for people."""
        return f"{self.name} {self.version}".rstrip() + f", {self.backend}"


class EngineRecord(EngineName):
    """The engine that a plan is for. `messages`: message rule of each phase under the plan's split."""

    messages: dict[Phase, MessageRule]

    @classmethod
    def of(cls, scenario: Scenario, split: Split, role: str = "aggregated") -> EngineRecord:
        """The record of a scenario's engine under a split of a role's instances."""
        engine = scenario.engine
        return cls(
            name=engine.name, version=engine.version, backend=engine.backend,
            messages={phase: message_rule(scenario, split, phase) for phase in role_phases(scenario, role)},
            notes=engine_notes(scenario, split, role),
        )  # fmt: skip


class SplitRecord(Record):
    """The split; see placement.problem.split.Split."""

    tp: Degree
    ep: Degree
    pp: Degree
    dp: Degree
    etp: Degree
    batch: Count
    instances: Degree
    redundant: Redundant
    slots_per_gpu: Annotated[int, Field(ge=1, le=MAX_EXPERTS, strict=True)]
    microbatches: Count
    #: Layers of each contiguous piece of the model; null: cut evenly.
    cut: Annotated[tuple[Count, ...], Field(max_length=MAX_LAYERS)] | None = None
    #: What each layer computes again in training; null: the workload's choice for all.
    recompute: Annotated[tuple[Recompute, ...], Field(max_length=MAX_LAYERS)] | None = None
    #: Redundant experts of each MoE layer; null: `redundant` in all.
    layer_redundant: Annotated[tuple[Redundant, ...], Field(min_length=1, max_length=MAX_LAYERS)] | None = None

    @classmethod
    def of(cls, split: Split) -> SplitRecord:
        """The record of a split."""
        return cls(**{name: getattr(split, name) for name in cls.model_fields})

    def split(self) -> Split:
        """The split of the record, an InputError where its degrees do not multiply up."""
        return Split(**{name: getattr(self, name) for name in type(self).model_fields})


class StageRecord(Record):
    """One piece of the model: `layers` layers from `first_layer` on, on the `gpus` GPUs of rank `stage` of an instance.

    Pieces are in the order of layers. Schedules that give a rank several pieces name it several times.
    """

    stage: Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
    first_layer: Annotated[int, Field(ge=0, lt=MAX_LAYERS, strict=True)]
    layers: Annotated[int, Field(ge=1, le=MAX_LAYERS, strict=True)]
    gpus: Degree


class TopologyRecord(Record):
    """The expert-parallel ranks ("GPUs" of a layer) of one stage. A rank is `etp` GPUs that share its experts."""

    gpus: Degree
    gpus_per_node: Degree
    gpus_per_tray: Degree


class HeldRecord(Record):
    """What a node holds: instances (or parts of one) by their index in `instances`, on so many of its GPUs."""

    instance: Annotated[int, Field(ge=0)]
    gpus: Degree
    count: Degree


class NodesRecord(Record):
    """Nodes of a pool that hold the same."""

    pool: Text
    nodes: Degree
    holds: tuple[HeldRecord, ...]
