"""The constants of a measured case: those of `efficiency.yaml`, times what was fitted to measurements of its kind.

`fitted.yaml` is written by `python -m bench accuracy --write` (bench/accuracy/fit.py) and holds one multiplier for
each constant, and for some one more for each engine, generation of GPUs or kind of attention, all with their standard
errors (docs/cost-model.md, "Calibration"). What was not measured, or is not named, gets the population's.
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
from specs.scenario import Scenario

Factor = Literal["generation", "attention", "engine"]
#: No kernel gets more of a nominal rate than this.
CEILING = 0.95
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class Case:
    """What the constants of a prediction depend on; None where it is not known.

    Attributes:
        generation: of the GPU (specs.cluster.Gpu). attention: the model's kind. engine: of serving.
    """

    generation: str | None
    attention: str
    engine: Measured | None = None

    @classmethod
    def of(cls, scenario: Scenario) -> Case:
        """The case of a scenario."""
        generation = scenario.cluster.least_gpu.generation
        return cls(generation, scenario.model.attention_kind, scenario.engine.measured_as)

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
    attentions: tuple[str, ...]
    errors: dict[str, GroupError]
    effects: tuple[Effect, ...]

    def measured(self, case: Case) -> bool:
        """Whether the case's generation of GPUs and kind of attention were measured."""
        return case.generation in self.generations and case.attention in self.attentions

    def multipliers(self, case: Case) -> dict[str, float]:
        """The product of each constant's multipliers in a case: those of kinds that were not measured are 1."""
        found: dict[str, float] = {}
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
    """The constants of a scenario: those of its case; in training, which was not measured, those of efficiency.yaml.

    Their provenance is "calibrated" where its generation of GPUs and its kind of attention were measured, else
    "population".
    """
    if scenario.workload.kind == "training":
        return load_efficiency()
    return _resolved(Case.of(scenario))


@lru_cache(maxsize=256)
def _resolved(case: Case) -> Efficiency:
    shipped = load_calibration()
    found = calibrated(load_efficiency(), shipped.multipliers(case))
    return found if shipped.measured(case) else found.model_copy(update={"provenance": "population"})


def calibrated(base: Efficiency, multipliers: Mapping[str, float]) -> Efficiency:
    """`base` with constants multiplied; shares stay at most CEILING. Without multipliers `base` itself."""
    if not multipliers:
        return base
    update: dict[str, Any] = {"provenance": "calibrated"}
    for name, factor in multipliers.items():
        entry = getattr(base, name)
        if isinstance(entry, ByTypeEntry):
            value: Any = {kind: min(CEILING, share * factor) for kind, share in entry.value.items()}
        else:
            value = entry.value * factor
            if isinstance(entry, ShareEntry):
                value = min(CEILING, value)
        update[name] = entry.model_copy(update={"value": value})
    return base.model_copy(update=update)
