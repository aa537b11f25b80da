"""`python -m bench accuracy`: predicted against measured TTFT and TPOT, and the fit of the constants."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bench.options import check_option, json_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.accuracy.conformal import Residual
    from bench.accuracy.published import PublishedFigure
    from bench.accuracy.rows import Row
    from bench.accuracy.shown import Shown
    from bench.accuracy.tables import Table
    from bench.targets import Target
    from placement.cost.calibration.intervals import Intervals

#: Asked of the constants on rows held out, in each kind of fold: median errors of TPOT and TTFT.
LIMITS = {"measurement": (0.12, 0.22), "model and GPU": (0.14, 0.25), "model": (0.16, 0.25), "GPU type": (0.20, 0.30)}
RANK = 0.9


@click.command("accuracy", cls=Command)
@click.option("--data", help="CSV file of measured serving configurations (docs/formats.md).")
@click.option(
    "--published",
    help="CSV file of published throughputs; prints predicted, published and error of each. With --data, constants are "
    "fitted to both, and each deployment is predicted by those that were not fitted to it.",
)
@click.option("--levers", is_flag=True, help="Levers such as speculative decoding, against published pairs of figures.")
@click.option("--folds", type=click.IntRange(2, 100), default=5, show_default=True, help="Random folds.")
@click.option(
    "--validate/--no-validate", default=True, show_default=True,
    help="Fit anew without the rows that are predicted: random folds, then each model and GPU, each model and each GPU "
    "type in turn.",
)  # fmt: skip
@click.option("--by-group", is_flag=True, help="Errors by model, by GPU and by both, too.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the random folds.")
@click.option("--write", "out", metavar="FILE", help="Fit the constants to all rows and write them to FILE.")
@click.option(
    "--write-intervals", "intervals", metavar="FILE",
    help="Write the intervals of predictions to FILE: of --data and --published.",
)  # fmt: skip
@check_option
@json_option
def command(
    data: str | None,
    published: str | None,
    levers: bool,
    folds: int,
    validate: bool,
    by_group: bool,
    seed: int,
    out: str | None,
    intervals: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """How far predicted TTFT and TPOT are from measured ones, where a user stands: the engine named or not, no release.

    The constants as shipped were fitted to measurements (docs/cost-model.md); --validate shows what constants reach on
    rows that they were not fitted to, beside two rivals on the same rows: a regression on eight roofline terms, and
    AIConfigurator where it is installed and its tables cover a row.
    """
    from bench.targets import check_targets

    if levers and (data is not None or published is not None):
        raise click.UsageError("--levers goes alone")
    if intervals is not None and (data is None or published is None or not validate):
        raise click.UsageError("--write-intervals needs --data, --published and --validate")
    if levers:
        from bench.accuracy.levers import report as against_pairs

        shown = against_pairs()
    elif data is not None:
        shown = _measured(data, published, folds, validate, by_group, seed, out, intervals)
    elif published is not None:
        from bench.accuracy.deployments import report

        shown = report(str(published))
    else:
        raise click.UsageError("give --data FILE, --published FILE or both, or --levers")
    emit(json.dumps(shown.record, indent=1) if as_json else shown.text)
    if check:
        check_targets(shown.targets)


def _measured(
    data: str,
    published: str | None,
    folds: int,
    validate: bool,
    by_group: bool,
    seed: int,
    out: str | None,
    intervals: str | None,
) -> Shown:
    from bench.accuracy.deployments import report
    from bench.accuracy.intervals import coverage_targets, covered, covered_by_release, known_of, residuals_of
    from bench.accuracy.published import deployments_of, published_figures, read_published
    from bench.accuracy.rows import read_rows
    from bench.accuracy.samples import samples_of
    from bench.accuracy.shown import Shown, measured_record, measured_text
    from bench.accuracy.tables import Ways
    from placement.errors import InputError
    from placement.records.files import write_text

    rows = read_rows(data)
    samples, left = samples_of(rows)
    if not samples:
        raise InputError(data, "", f"no row can be predicted (first: {left[0].reason})", "see docs/formats.md")
    deployments = () if published is None else deployments_of(read_published(published))
    ways = Ways(samples, note, deployments)
    tables = [ways.shipped()]
    if validate:
        tables += [table for table in (ways.held_out(kind, folds, seed) for kind in LIMITS) if table is not None]
    known = known_of(samples)
    residuals = residuals_of(samples, tables, known)
    told = (*covered(residuals), *covered_by_release(residuals))
    targets = [*_targets(tables), *coverage_targets(told)]
    if out is not None:
        calibration = ways.fitted_to_all().model_copy(
            update={"source": _source(data, rows, len(samples), published, len(deployments))}
        )
        write_text(out, _document(calibration.model_dump(mode="json")), "--write")
        note(f"wrote {out}")
    text = measured_text(rows, samples, left, tables, by_group, told, targets)
    record = measured_record(rows, samples, left, tables, told, targets)
    if published is not None:
        held_out = ways.published(folds, seed) if validate else None
        if intervals is not None:
            figures = published_figures(read_published(published), held_out)
            write_text(intervals, _intervals(known, residuals, figures, data, published), "--write-intervals")
            note(f"wrote {intervals}")
        also = report(published, held_out)
        text, record = f"{text}\n{also.text}", record | {"published": also.record}
        targets += also.targets
    return Shown(text, record, tuple(targets))


def _targets(tables: Sequence[Table]) -> list[Target]:
    """What is asked of the constants on rows held out: medians, ranks, and to be ahead of both rivals."""
    from bench.accuracy.tables import COVERED, NAMED, REGRESSION, RIVAL, UNNAMED
    from bench.targets import Target

    targets = []
    for table in tables:
        if table.kind not in LIMITS:
            continue
        by_name = {each.name: each.overall for each in table.judged}
        for figure, limit in zip(("tpot", "ttft"), LIMITS[table.kind], strict=True):
            errors = {name: getattr(each, figure) for name, each in by_name.items()}
            title = f"{figure.upper()}, {table.title}"
            targets.append(Target(f"{title}: median error", errors[UNNAMED].median, limit, ""))
            targets.append(Target(f"{title}: rank correlation", errors[UNNAMED].rank, RANK, "", True))
            targets.append(Target(f"{title}: with the engine named", errors[NAMED].median, errors[UNNAMED].median, ""))
            for mine, rival in ((UNNAMED, REGRESSION), (COVERED, RIVAL)):
                if mine in errors and rival in errors:
                    targets.append(Target(f"{title}: ahead of {rival}", errors[mine].median, errors[rival].median, ""))
    return targets


def _intervals(
    known: Intervals, residuals: Sequence[Residual], figures: Sequence[PublishedFigure], data: str, published: str
) -> str:
    from pathlib import Path

    import yaml

    from bench.accuracy.intervals import intervals_of, of_deployments

    found = intervals_of(known, (*residuals, *of_deployments(figures)), f"{Path(data).name}, {Path(published).name}")
    head = (
        "# How far measurements held out lie from predictions, by group: written by\n"
        "# `python -m bench accuracy --data FILE --published FILE --write-intervals FILE`. Do not edit.\n"
    )
    return head + yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False, width=120, default_flow_style=None)


def _source(data: str, rows: Sequence[Row], measurements: int, published: str | None, deployments: int) -> str:
    import hashlib
    from pathlib import Path

    def named(path: str) -> str:
        return f"{Path(path).name} (sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}...)"

    served = f"{named(data)}: {measurements} measurements in {len(rows)} rows"
    return served if published is None else f"{served}; {named(published)}: {deployments} throughputs"


def _document(record: dict[str, Any]) -> str:
    import yaml

    head = (
        "# Multipliers of the constants in efficiency.yaml, fitted to measured serving configurations by\n"
        "# `python -m bench accuracy --write`; each with the standard error of its logarithm. Do not edit.\n"
    )
    return head + yaml.safe_dump(record, sort_keys=False, width=120, default_flow_style=None)
