"""Plan files of `placement.plan/1`, which had one role, read as those of today."""

from __future__ import annotations

from typing import Any, Literal

from placement.errors import InputError
from placement.records.layout import EngineRecord, ScenarioRecord, SplitRecord
from specs.scenario import Scenario
from specs.validation import validate

SCHEMA: Literal["placement.plan/1"] = "placement.plan/1"
#: Fields that stand in a role today.
_OF_ROLE = (
    "phase", "dispatch", "message_rule", "split", "stages", "topology", "failed_gpus", "slots_per_gpu",
    "tokens_per_gpu", "layers", "memory", "predicted", "strategies", "certificate",
)  # fmt: skip


def upgraded(data: dict[str, Any], source: str) -> dict[str, Any]:
    """The data of a `/2` plan with the one role of a `/1` plan.

    Raises:
        InputError: A scenario, split or engine that is none.
    """
    rest = {name: value for name, value in data.items() if name not in (*_OF_ROLE, "engine")}
    scenario: Scenario = validate(ScenarioRecord, _record(data, "scenario", source), source).spec
    split: SplitRecord = validate(SplitRecord, _record(data, "split", source), source)
    # Older plans don't say their engine.
    engine = _record(data, "engine", source) if "engine" in data else None
    if engine is None:
        engine = EngineRecord.of(scenario, split.split()).model_dump(mode="json")
    role = {name: data[name] for name in _OF_ROLE if name in data}
    kind = "aggregated" if scenario.workload.kind == "serving" else "training"
    figures = _record(data, "predicted", source)
    return {
        **rest,
        "schema": "placement.plan/2",
        "engine": {name: value for name, value in engine.items() if name != "messages"},
        "mode": kind,
        "roles": [{"role": kind, "messages": engine.get("messages"), "posed_batch": split.batch, **role}],
        "predicted": {name: value for name, value in figures.items() if name != "breakdown"},
    }


def _record(data: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    """A field that is a record.

    Raises:
        InputError: It is missing, or something else.
    """
    found = data.get(name)
    if not isinstance(found, dict):
        told = "is missing" if name not in data else "is no record"
        raise InputError(source, name, told, "give a plan file as 'placement solve' writes it")
    return found
