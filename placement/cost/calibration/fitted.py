"""The constants of a measured case: those of `efficiency.yaml`, times what was fitted to measurements of its kind.

`fitted.yaml` is written by `python -m bench accuracy --write` (bench/accuracy/fit.py) and holds one multiplier for
each constant, and for some one more for each kind of GPU, engine or model, all with their standard errors
(docs/cost-model.md, "Calibration"). A GPU generation without measurements keeps the constants as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from placement.cost.calibration.efficiency import ByTypeEntry, Efficiency, ShareEntry, load_efficiency
from specs.engine import Measured
from specs.fields import DataType
from specs.scenario import Scenario

Factor = Literal["generation", "gpu", "model", "attention", "experts", "compute", "engine", "release"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Case:
    """What the constants of a prediction depend on; None where it is not known.

    Attributes:
        generation, gpu: of the GPU (specs.cluster.Gpu). model, attention: the model's name and kind of attention.
        experts, compute: data types of expert weights and of products.
        engine, release: serving engine, and its name with its version.
    """

    generation: str | None
    gpu: str
    model: str
    attention: str
    experts: DataType
    compute: DataType
    engine: Measured | None = None
    release: str | None = None

    @classmethod
    def of(cls, scenario: Scenario, release: str | None = None) -> Case:
        """The case of a scenario."""
        gpu, model = scenario.cluster.least_gpu, scenario.model
        return cls(
            gpu.generation, gpu.name, model.name, model.attention_kind, model.types.experts, scenario.types.multiplied,
            scenario.engine.measured_as, release,
        )  # fmt: skip

    def level(self, by: tuple[Factor, ...]) -> str | None:
        """The values of `by` joined by "/" ("all" of none), or None where one is not known."""
        values = [getattr(self, name) for name in by]
        return None if None in values else "/".join(values) or "all"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Level(_Record):
    """A fitted multiplier and the standard error of its logarithm."""

    multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Effect(_Record):
    """Multipliers of one constant, by the kinds of case that `by` tells apart (none: one for all)."""

    constant: str
    by: tuple[Factor, ...] = ()
    levels: dict[str, Level]


class GroupError(_Record):
    """Median absolute percentage errors of the fit within a group of measurements."""

    rows: int
    tpot: Finite
    ttft: Finite


class Calibration(_Record):
    """All fitted multipliers, where they come from, and how well they fit."""

    source: str
    generations: tuple[str, ...]
    errors: dict[str, GroupError]
    effects: tuple[Effect, ...]

    def multipliers(self, case: Case) -> dict[str, float]:
        """The product of each constant's multipliers in a case; nothing for a generation that was not measured."""
        found: dict[str, float] = {}
        if case.generation not in self.generations:
            return found
        for effect in self.effects:
            level = case.level(effect.by)
            if level is not None and level in effect.levels:
                found[effect.constant] = found.get(effect.constant, 1.0) * effect.levels[level].multiplier
        return found


@cache
def load_calibration() -> Calibration:
    """The multipliers as shipped (an immutable record, read once)."""
    text = files("placement.cost.calibration").joinpath("fitted.yaml").read_text(encoding="utf-8")
    return Calibration.model_validate(yaml.safe_load(text))


def efficiency_of(scenario: Scenario) -> Efficiency:
    """The constants of a scenario: calibrated for serving on a measured GPU generation, else as in efficiency.yaml.

    Training keeps the latter: nothing of it was measured.
    """
    if scenario.workload.kind == "training":
        return load_efficiency()
    return _resolved(Case.of(scenario))


@lru_cache(maxsize=256)
def _resolved(case: Case) -> Efficiency:
    return calibrated(load_efficiency(), load_calibration().multipliers(case))


def calibrated(base: Efficiency, multipliers: Mapping[str, float]) -> Efficiency:
    """`base` with constants multiplied; shares stay at most 1. Without multipliers `base` itself."""
    if not multipliers:
        return base
    update: dict[str, Any] = {"provenance": "calibrated"}
    for name, factor in multipliers.items():
        entry = getattr(base, name)
        if isinstance(entry, ByTypeEntry):
            value: Any = {kind: min(1.0, share * factor) for kind, share in entry.value.items()}
        else:
            value = entry.value * factor
            if isinstance(entry, ShareEntry):
                value = min(1.0, value)
        update[name] = entry.model_copy(update={"value": value})
    return base.model_copy(update=update)
