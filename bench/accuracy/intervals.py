"""Residuals of measurements held out, the intervals that they make, and how many measurements these hold."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import RenderableType

from bench.accuracy.conformal import COVERAGE, LEAST, LEAST_OF_PART, Residual, bands, nested
from bench.accuracy.folds import MEASUREMENT, MODEL
from bench.accuracy.published import PublishedFigure
from bench.accuracy.samples import Sample
from bench.accuracy.tables import Table
from bench.targets import Target
from placement.cost.calibration.intervals import Band, HeldOut, Intervals, MeasuredCase, Shape, Standing
from placement.report.text import columns, heading

#: How far the share of measurements that lie in their intervals may be off.
OFF = 0.05
#: Single measurements, held against those of other releases. Nothing is asked of them.
OTHER_RELEASES = "release"


@dataclass(frozen=True)
class Covered:
    """How many measurements lie in the intervals that others give them.

    Attributes:
        figure, held_out: of the residuals. gpu: of which measurements; "" for all.
        rows: judged, with the engine named and without. inside: share of them.
        each: the share if every part that was held out, and has enough rows, counts alike.
        width: median of the intervals' upper end over the lower.
    """

    figure: str
    held_out: str
    gpu: str
    rows: int
    inside: float
    each: float
    width: float


def known_of(samples: Sequence[Sample]) -> Intervals:
    """What was measured, still without bands: models on GPUs with enough measurements."""
    served = [sample for sample in samples if not sample.queued]
    cases = Counter(_case(sample) for sample in served)
    places = Counter((sample.model, _gpu(sample)) for sample in served)
    batches = sorted((sample.unnamed.split.batch for sample in served), reverse=True)
    shapes = {sample.model: Shape.of(sample.unnamed.scenario.model) for sample in served}
    return Intervals(
        source="",
        coverage=COVERAGE,
        largest_batch=batches[min(LEAST, len(batches)) - 1],
        models=dict(sorted(shapes.items())),
        cases=tuple(
            MeasuredCase(model=model, attention=attention, gpu=gpu, generation=generation, engine=engine, rows=rows)
            for (model, attention, gpu, generation, engine), rows in sorted(cases.items())
            if places[model, gpu] >= LEAST
        ),
        groups=(),
    )


def residuals_of(samples: Sequence[Sample], tables: Sequence[Table], known: Intervals) -> tuple[Residual, ...]:
    """What was held out in tables over its prediction, with the engine named and without it.

    Rows whose client queued are left out.
    """
    found = []
    for table in tables:
        for fold, i in ((fold, i) for fold, members in enumerate(table.folds) for i in members):
            sample, planned = samples[i], [figures[i] for figures in table.planned]
            for setting, figures in zip((sample.named, sample.unnamed), planned, strict=True):
                if figures is None or sample.queued:
                    continue
                standing = known.standing(setting.scenario, setting.split.batch)
                row, part = sample.row, f"{table.kind} {fold}"
                tpot, ttft = row.tpot_ms * 1e-3 / figures.tpot_s, row.ttft_ms * 1e-3 / figures.ttft_s
                for kind in _kinds(table.kind, sample, samples):
                    found += [
                        Residual("tpot", kind, part, standing, math.log(tpot), row.engine),
                        Residual("ttft", kind, part, standing, math.log(ttft), row.engine),
                    ]
    return tuple(found)


def of_deployments(figures: Sequence[PublishedFigure]) -> tuple[Residual, ...]:
    """Published rates over their prediction, as times.

    A deployment is one source's of a model on a generation of GPUs.
    """
    return tuple(
        Residual(
            "rate", "deployment", f"{figure.id.split('_')[0]} {figure.model} {figure.generation}",
            Standing(figure.generation, "", figure.model, "", None, 0), math.log(figure.predicted / figure.measured),
        )
        for figure in figures
        if figure.predicted is not None
    )  # fmt: skip


def intervals_of(known: Intervals, residuals: Sequence[Residual], source: str) -> Intervals:
    """The intervals that residuals make."""
    return known.model_copy(update={"source": source, "groups": bands(residuals)})


def covered(residuals: Sequence[Residual]) -> tuple[Covered, ...]:
    """The share of measurements within the intervals that others give them, overall and by GPU."""
    judged = list(nested(residuals))
    found = []
    for figure, kind in dict.fromkeys((each.figure, each.held_out) for each in residuals):
        own = [pair for pair in judged if (pair[0].figure, pair[0].held_out) == (figure, kind)]
        gpus = sorted({_place(residual) for residual, _ in own})
        for gpu in ("", *(gpus if len(gpus) > 1 else ())):
            some = [pair for pair in own if gpu in ("", _place(pair[0]))]
            if len(some) >= LEAST:
                found.append(_covered(figure, kind, gpu, some))
    return tuple(found)


def covered_by_release(residuals: Sequence[Residual]) -> tuple[Covered, ...]:
    """The share of single measurements within the intervals that other releases of engines give them.

    A plan does not say which release will run, and it may be a later one.
    """
    own = [replace(each, part=each.release) for each in residuals if each.held_out == MEASUREMENT and each.release]
    judged = list(nested(own))
    return tuple(
        _covered(figure, OTHER_RELEASES, "", some)
        for figure in dict.fromkeys(each.figure for each in own)
        if len(some := [pair for pair in judged if pair[0].figure == figure]) >= LEAST
    )


def coverage_parts(told: Sequence[Covered]) -> Iterator[RenderableType]:
    """The table of a report."""
    if told:
        yield ""
        yield heading(f"{COVERAGE:.0%} intervals", "  (rows in the interval that other folds give them)")
        rows = [
            [
                f"  {each.gpu}" if each.gpu else f"{each.figure.upper()}, {each.held_out}", str(each.rows),
                f"{each.inside:.1%}", f"{each.each:.1%}", f"{each.width:.2f}",
            ]
            for each in told
        ]  # fmt: skip
        yield columns(("held out", "rows", "within", "parts alike", "high / low"), rows)


def coverage_records(told: Sequence[Covered]) -> list[dict[str, Any]]:
    """The table for JSON."""
    return [asdict(each) for each in told]


def coverage_targets(told: Sequence[Covered]) -> Iterator[Target]:
    """What is asked: of single rows held out overall and by GPU; of parts held out, each counted alike."""
    for each in told:
        alone = each.held_out == MEASUREMENT
        if each.held_out != OTHER_RELEASES and (alone or not each.gpu):
            name = f"{each.figure.upper()} within intervals, {each.held_out}" + (f", {each.gpu}" if each.gpu else "")
            yield Target(
                f"{name}: off {COVERAGE:.0%} by", abs((each.inside if alone else each.each) - COVERAGE), OFF, ""
            )


def _covered(figure: str, kind: str, gpu: str, judged: Sequence[tuple[Residual, Band]]) -> Covered:
    parts: dict[str, list[bool]] = {}
    for residual, band in judged:
        parts.setdefault(residual.part, []).append(residual.within(band))
    inside = sum(map(sum, parts.values())) / len(judged)
    least = LEAST_OF_PART.get(kind, LEAST)
    shares = [statistics.fmean(part) for part in parts.values() if len(part) >= least]
    each = statistics.fmean(shares) if shares else inside
    return Covered(figure, kind, gpu, len(judged), inside, each, statistics.median(b.high / b.low for _, b in judged))


def _kinds(kind: str, sample: Sample, samples: Sequence[Sample]) -> tuple[HeldOut, ...]:
    """What is held out with a sample: with its model, its kind of attention, unless other models have it."""
    if kind != MODEL:
        return (kind,)  # type: ignore[return-value]
    own = sample.unnamed.case.attention
    shared = any(other.model != sample.model and other.unnamed.case.attention == own for other in samples)
    return ("attention", "model") if shared else ("attention",)


def _case(sample: Sample) -> tuple[str, str, str, str, str]:
    case = sample.named.case
    return (sample.model, case.attention, _gpu(sample), case.generation or "", case.engine or "")


def _gpu(sample: Sample) -> str:
    return sample.named.scenario.cluster.least_gpu.name


def _place(residual: Residual) -> str:
    return residual.standing.gpu or residual.standing.generation or ""
