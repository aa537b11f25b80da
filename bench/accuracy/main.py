"""`python -m bench accuracy`: predicted against measured TTFT and TPOT, and the fit of the constants."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from placement.cli.running import emit, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from bench.accuracy.rows import Row
    from bench.accuracy.settings import Setting, Unpredicted
    from bench.accuracy.shown import Shown
    from bench.accuracy.validate import Judged
    from bench.targets import Target

#: Names of the three ways to predict.
SHIPPED, RANDOM, GROUPED = "constants as shipped", "random {} folds", "held out by model and GPU"


@click.command("accuracy")
@click.option("--data", help="CSV file of measured serving configurations (docs/formats.md).")
@click.option("--published", help="CSV file of published throughputs; prints predicted, published and error of each.")
@click.option("--folds", type=click.IntRange(2, 100), default=5, show_default=True, help="Random folds.")
@click.option(
    "--validate/--no-validate", default=True, show_default=True,
    help="Fit the constants anew without the rows that are predicted: random folds, and each model and GPU in turn.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the random folds.")
@click.option("--workers", type=click.IntRange(1, 1024), default=2, show_default=True)
@click.option("--write", "out", metavar="FILE", help="Fit the constants to all rows and write them to FILE.")
@click.option("--check", is_flag=True, help="Exit with 6 if a target is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    data: str | None,
    published: str | None,
    folds: int,
    validate: bool,
    seed: int,
    workers: int,
    out: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """How far predicted TTFT and TPOT are from measured ones, by model, GPU and overall.

    The constants as shipped were fitted to measurements (docs/cost-model.md); --validate shows what constants reach on
    rows that they were not fitted to, by fitting them again on the rest of FILE (some minutes).
    """
    from bench.targets import check_targets

    if (data is None) == (published is None):
        raise click.UsageError("give --data FILE or --published FILE, one of them")
    if published is not None:
        from bench.accuracy.deployments import report

        shown = report(published)
    else:
        shown = _measured(str(data), folds, validate, seed, workers, out)
    emit(json.dumps(shown.record, indent=1) if as_json else shown.text)
    if check:
        check_targets(shown.targets)


def _measured(data: str, folds: int, validate: bool, seed: int, workers: int, out: str | None) -> Shown:
    from bench.accuracy.fit import fit, predictions
    from bench.accuracy.rows import read_rows
    from bench.accuracy.settings import settings_of
    from bench.accuracy.shown import Shown
    from bench.accuracy.validate import grouped_folds, held_out, judge, random_folds
    from placement.cost.calibration.fitted import load_calibration
    from placement.errors import InputError
    from placement.records.files import write_text

    rows = read_rows(data)
    settings, left = settings_of(rows)
    if not settings:
        raise InputError(data, "", f"no row can be predicted (first: {left[0].reason})", "see docs/formats.md")
    judged = [judge(SHIPPED, settings, predictions(settings, load_calibration()))]
    if validate:
        ways = ((RANDOM.format(folds), random_folds(settings, folds, seed)), (GROUPED, grouped_folds(settings)))
        for name, parts in ways:
            if len(parts) < 2:
                note(f"{name}: {len(parts)} part in {data}, nothing to hold out")
                continue
            note(f"{name}: {len(parts)} fits")
            judged.append(judge(name, settings, held_out(settings, parts, workers)))
    targets = _targets(judged, folds)
    if out is not None:
        calibration = fit(settings).model_copy(update={"source": _source(data, rows, settings)})
        write_text(out, _document(calibration.model_dump(mode="json")), "--write")
        note(f"wrote {out}")
    return Shown(_text(rows, left, judged, targets), _record(rows, left, judged, targets), tuple(targets))


def _targets(judged: Sequence[Judged], folds: int) -> list[Target]:
    from bench.targets import Target

    limits = {RANDOM.format(folds): (0.13, 0.20), GROUPED: (0.20, 0.30)}
    targets = []
    for each in judged:
        if each.name in limits:
            tpot, ttft = limits[each.name]
            targets.append(Target(f"TPOT median error, {each.name}", each.overall.tpot_median, tpot, ""))
            targets.append(Target(f"TTFT median error, {each.name}", each.overall.ttft_median, ttft, ""))
            targets.append(Target(f"TPOT rank correlation, {each.name}", each.overall.tpot_rank, 0.9, "", True))
    return targets


def _text(rows: Sequence[Row], left: Sequence[Unpredicted], judged: Sequence[Judged], targets: Sequence[Target]) -> str:
    from bench.targets import target_table
    from placement.report.text import columns, heading, rendered

    distinct = len({row.measurement for row in rows})
    parts: list[RenderableType] = [
        heading("rows", f"  {len(rows)}, {distinct} different measurements; {len(rows) - len(left)} predicted"),
    ]
    for reason, count in _reasons(left):
        parts.append(f"  {count:4} not predicted: {reason}")
    mended = sum(row.mended for row in rows)
    if mended:
        parts.append(f"  {mended:4} with degrees stated for gpus = tp x ep, read as those of one instance")
    header = ("", "rows", "TPOT median", "mean", "TTFT median", "mean", "TPOT rank", "TTFT rank")
    for each in judged:
        lines = [("overall", each.overall), *each.groups]
        table = [
            [
                name, str(e.rows), f"{e.tpot_median:.1%}", f"{e.tpot_mean:.1%}", f"{e.ttft_median:.1%}",
                f"{e.ttft_mean:.1%}", _number(e.tpot_rank), _number(e.ttft_rank),
            ]
            for name, e in lines
        ]  # fmt: skip
        parts += ["", heading(each.name, "  (absolute percentage errors)"), columns(header, table, marked=0)]
    if targets:
        parts += ["", target_table(targets)]
    return rendered(parts)


def _record(
    rows: Sequence[Row], left: Sequence[Unpredicted], judged: Sequence[Judged], targets: Sequence[Target]
) -> dict[str, Any]:
    from bench.targets import target_records

    return {
        "rows": len(rows),
        "measurements": len({row.measurement for row in rows}),
        "mended": sum(row.mended for row in rows),
        "predicted": len(rows) - len(left),
        "not_predicted": [{"reason": reason, "rows": count} for reason, count in _reasons(left)],
        "judged": [
            {
                "constants": each.name,
                "overall": _finite(asdict(each.overall)),
                "groups": [{"group": name, **_finite(asdict(errors))} for name, errors in each.groups],
            }
            for each in judged
        ],
        "targets": target_records(targets),
    }


def _reasons(left: Sequence[Unpredicted]) -> list[tuple[str, int]]:
    return sorted(Counter(each.reason for each in left).items(), key=lambda item: (-item[1], item[0]))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no nan."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in record.items()}


def _source(data: str, rows: Sequence[Row], settings: Sequence[Setting]) -> str:
    import hashlib
    from pathlib import Path

    digest = hashlib.sha256(Path(data).read_bytes()).hexdigest()[:16]
    different = len({setting.row.measurement for setting in settings})
    return f"{Path(data).name} (sha256 {digest}...): {different} measurements in {len(settings)} of {len(rows)} rows"


def _document(record: dict[str, Any]) -> str:
    import yaml

    head = (
        "# Multipliers of the constants in efficiency.yaml, fitted to measured serving configurations by\n"
        "# `python -m bench accuracy --write`; each with the standard error of its logarithm. Do not edit.\n"
    )
    return head + yaml.safe_dump(record, sort_keys=False, width=120, default_flow_style=None)
