"""How far measurements lie from predictions: an 80% interval for every figure, and what was measured nearest to it.

`intervals.yaml` is written by `python -m bench accuracy --write-intervals` (bench/accuracy/intervals.py). It holds, for
groups of measurements that no constant of their prediction was fitted to, the factors between which 80% of them lie
(split-conformal, docs/cost-model.md, "Intervals").

What was held out with a measurement decides what its residual tells: a plan on measured ground takes residuals of
measurements held out by themselves, a model that nobody measured those of whole models held out, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from specs.documents import shipped_yaml
from specs.model import Model
from specs.scenario import Scenario

#: What intervals are of; "rate": the time of a token in full passes, as published throughputs tell it.
Figure = Literal["tpot", "ttft", "rate"]
#: What was held out together: single measurements; all of a model on a GPU; of a model, whose kind of attention others
#: have, or perhaps not; of a type of GPU; or a published deployment, of a batch beyond those of measurements.
HeldOut = Literal["measurement", "model and GPU", "model", "attention", "GPU type", "deployment"]
#: What tells groups apart. "named": whether the engine is; "engine": which.
Key = Literal["named", "generation", "gpu", "model", "engine"]
#: The groups that may hold a case's measurements, nearest first, by what was held out with them.
NEAREST: dict[HeldOut, tuple[tuple[Key, ...], ...]] = {
    "measurement": (("gpu", "model", "engine"), ("named", "gpu", "model")),
    "model and GPU": (("named",),),
    "model": (("named",),),
    "attention": (("named",),),
    "GPU type": (("named",),),
    "deployment": (("generation",), ()),
}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Band(_Record):
    """Factors of a predicted time between which `coverage` of the measured ones lie, and from how many it was told."""

    rows: Annotated[int, Field(ge=1)]
    low: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    high: Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Nearest:
    """The band of a group, and the group in words."""

    band: Band
    words: str


class Bands(_Record):
    """Bands of one figure, by the values of `by` joined by "/" ("all" of none)."""

    figure: Figure
    held_out: HeldOut
    by: tuple[Key, ...]
    bands: dict[str, Band]


class Shape(_Record):
    """What a model is known by, whatever it is called."""

    layers: int
    hidden: int
    experts: int
    top_k: int

    @classmethod
    def of(cls, model: Model) -> Shape:
        """The shape of a model."""
        return cls(layers=model.layers, hidden=model.hidden, experts=model.moe.experts, top_k=model.moe.top_k)


class MeasuredCase(_Record):
    """A model on a GPU under an engine, and how many of its measurements were predicted."""

    model: str
    attention: str
    gpu: str
    generation: str
    engine: str
    rows: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Standing:
    """Where a plan stands: what its uncertainty depends on.

    Attributes:
        model: the measured model of its shape, or None. engine: None where it is not named.
        batch: sequences of an attention rank.
    """

    generation: str | None
    gpu: str
    model: str | None
    attention: str
    engine: str | None
    batch: int

    def level(self, by: tuple[Key, ...]) -> str | None:
        """The values of `by` joined by "/" ("all" of none), or None where one is not known."""
        told = {"named": "no engine" if self.engine is None else "engine named"}
        values = [told.get(name) or getattr(self, name) for name in by]
        return None if None in values else "/".join(values) or "all"


@dataclass(frozen=True)
class Interval:
    """Factors of a predicted time between which a share of the measured ones lie.

    Attributes:
        group, nearest: the measurements that tell so, and what was measured nearest, in words.
    """

    low: float
    high: float
    coverage: float
    group: str
    nearest: str

    def of_rate(self) -> Interval:
        """The factors of a rate: the inverse ones."""
        return replace(self, low=1.0 / self.high, high=1.0 / self.low)


class Intervals(_Record):
    """All bands, and what was measured.

    Attributes:
        source: the data. coverage: share of measurements within a band.
        largest_batch: of an attention rank that enough measurements reach; beyond it, published deployments tell.
        models: shapes of the measured models by name.
        cases: what enough measurements are of.
    """

    source: str
    coverage: Annotated[float, Field(gt=0, lt=1)]
    largest_batch: Annotated[int, Field(ge=1)]
    models: dict[str, Shape]
    cases: tuple[MeasuredCase, ...]
    groups: tuple[Bands, ...]

    def standing(self, scenario: Scenario, batch: int) -> Standing:
        """Where a scenario stands with so many sequences per attention rank."""
        gpu, model, shape = scenario.cluster.least_gpu, scenario.model, Shape.of(scenario.model)
        known = next((name for name, own in self.models.items() if own == shape), None)
        return Standing(
            gpu.generation, gpu.name, known, model.attention_kind, scenario.engine.measured_as, batch
        )  # fmt: skip

    def find(self, figure: Figure, standing: Standing) -> Interval | None:
        """The interval of a figure; None where no group is large enough.

        Where several things were never measured, it spans the intervals of each. TPOT of a batch beyond those measured
        is as uncertain as rates.
        """
        if figure == "tpot" and standing.batch > self.largest_batch:
            figure = "rate"
        kinds = self._novel(figure, standing)
        found = [told for kind in kinds if (told := band_of(self.groups, figure, kind, standing)) is not None]
        if not found:
            return None
        low, high = min(each.band.low for each in found), max(each.band.high for each in found)
        group = "; ".join(dict.fromkeys(f"{each.band.rows} {each.words}" for each in found))
        return Interval(low, high, self.coverage, group, self.nearest(standing))

    def nearest(self, standing: Standing) -> str:
        """What was measured nearest to a plan, in words."""
        if not self.cases:
            return "nothing measured"
        best = max(self.cases, key=lambda case: _likeness(case, standing))
        engines = {case.engine for case in self.cases if (case.model, case.gpu) == (best.model, best.gpu)}
        differs = [
            f"another {name}"
            for name, same in (
                ("model", best.model == standing.model),
                ("GPU", best.gpu == standing.gpu),
                ("engine", standing.engine is None or standing.engine in engines),
            )
            if not same
        ]
        if differs:
            return f"nearest measured: {best.model} on {_short(best.gpu)}, {' and '.join(differs)}"
        engine = standing.engine or "engine not named"
        return f"measured within: {best.model}, {_short(best.gpu)}, {engine}"

    def _novel(self, figure: Figure, standing: Standing) -> tuple[HeldOut, ...]:
        """What of a case was never measured: held out likewise, measurements tell how far it is off."""
        if figure == "rate":
            return ("deployment",)
        pairs = {(case.model, case.gpu) for case in self.cases}
        if (standing.model, standing.gpu) in pairs:
            return ("measurement",)
        model = any(standing.model == case.model for case in self.cases)
        gpu = any(standing.gpu == case.gpu for case in self.cases)
        if model and gpu:
            return ("model and GPU",)
        attention = any(standing.attention == case.attention for case in self.cases)
        lacks: list[HeldOut] = [] if model else ["model" if attention else "attention"]
        return (*lacks, *(() if gpu else ("GPU type",)))


def band_of(groups: Sequence[Bands], figure: Figure, held_out: HeldOut, standing: Standing) -> Nearest | None:
    """The band of the nearest group that is large enough, and what the group has in common."""
    for by in NEAREST[held_out]:
        level = standing.level(by)
        for group in groups:
            if (group.figure, group.held_out, group.by) == (figure, held_out, by) and level in group.bands:
                return Nearest(group.bands[level], _words(held_out, by, standing))
    return None


@cache
def load_intervals() -> Intervals:
    """The intervals as shipped (an immutable record, read once)."""
    return Intervals.model_validate(shipped_yaml("placement.cost.calibration", "intervals.yaml"))


def interval_of(scenario: Scenario, figure: Figure, batch: int) -> Interval | None:
    """The interval of a predicted time of a scenario with so many sequences per attention rank."""
    return _found(figure, load_intervals().standing(scenario, batch))


@lru_cache(maxsize=1024)
def _found(figure: Figure, standing: Standing) -> Interval | None:
    return load_intervals().find(figure, standing)


def _likeness(case: MeasuredCase, standing: Standing) -> tuple[int, ...]:
    """How near a measured case is: the model and the GPU count first, then what they have in common with others."""
    model, gpu = case.model == standing.model, case.gpu == standing.gpu
    return (
        model + gpu, model, case.attention == standing.attention, case.generation == standing.generation,
        case.engine == standing.engine, case.rows,
    )  # fmt: skip


#: Groups in words, after their number of rows.
_WORDS: dict[HeldOut, str] = {
    "measurement": "measurements", "model and GPU": "measurements, models on GPUs held out",
    "model": "measurements, models held out", "attention": "measurements, models and their attention held out",
    "GPU type": "measurements, GPU types held out", "deployment": "published deployments",
}  # fmt: skip


def _words(held_out: HeldOut, by: tuple[Key, ...], standing: Standing) -> str:
    """A group in words, after its number of rows."""
    told = _WORDS[held_out]
    if "model" in by:
        told += f" of {standing.model} on {_short(standing.gpu)}"
    if "generation" in by:
        told += f" on {standing.generation} GPUs"
    return told + (f" under {standing.engine}" if "engine" in by else "")


def _short(gpu: str) -> str:
    """A GPU's name without its form and memory."""
    return gpu.split()[0]
