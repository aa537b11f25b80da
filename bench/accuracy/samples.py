"""Measurements as they are judged: each once, as a user writes it, with what its client did apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.accuracy.rows import Row
from bench.accuracy.settings import Setting, Unpredicted, settings_of
from placement.cost.memory.hbm import MemoryModel


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        named, unnamed: as a user writes it, with the engine and without.
        queued: the client had more requests open than HBM holds: some waited, and TTFT tells how many were open.
    """

    row: Row
    named: Setting
    unnamed: Setting
    queued: bool

    @property
    def model(self) -> str:
        """Name of the catalog's model: a row that calls a checkpoint by its base model's name is of the same."""
        return self.unnamed.scenario.model.name

    @property
    def group(self) -> str:
        """Model and GPU."""
        return f"{self.model} on {self.row.gpu}"


def samples_of(rows: Sequence[Row]) -> tuple[tuple[Sample, ...], tuple[Unpredicted, ...]]:
    """Every measurement that can be predicted, once however many rows state it; and the rows that can't be."""
    unnamed, left = settings_of(rows, "unnamed")
    named = {setting.row.line: setting for setting in settings_of(rows, "named")[0]}
    found: dict[object, Sample] = {}
    for setting in unnamed:
        row = setting.row
        if row.line in named and row.measurement not in found:
            found[row.measurement] = Sample(row, named[row.line], setting, _queued(setting))
    return tuple(found.values()), left


def _queued(setting: Setting) -> bool:
    """Whether the running requests' prompts and half of their answers are more than HBM holds.

    A case that does not fit with one request, but was run, says nothing.
    """
    scenario, split = setting.scenario, setting.split
    workload = scenario.workload
    if workload.kind != "serving":
        raise TypeError("a measured setting serves")
    half = workload.model_copy(update={"osl": -(-workload.osl // 2)})
    memory = MemoryModel(scenario.model_copy(update={"workload": half}), split)
    return memory.total_bytes(1) <= memory.capacity_bytes < memory.total_bytes(split.batch)
