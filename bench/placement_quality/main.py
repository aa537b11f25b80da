"""`python -m bench run placement_quality`: solved placements against the load balancers', on held-out routing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.options import (
    check_option,
    json_option,
    layers_option,
    seed_option,
    traces_option,
    work_option,
    workers_option,
)
from bench.recorded import LAYERS
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.placement_quality.protocol import Protocol
    from bench.placement_quality.result import Part
    from bench.targets import Target

PARTS = ("bytes", "time", "nodes", "phases", "rivals", "sweep", "robust", "rounding", "migration", "bounds", "tokens")


@click.command("placement_quality", cls=Command)
@click.option("--parts", default=",".join(PARTS), show_default=True, help="What to run, separated by commas.")
@click.option(
    "--protocol", "protocols", type=click.Choice(["in-domain", "held-out", "joint"]), multiple=True,
    help="What part `bytes` solves on and judges on. Repeatable. Default: all three.",
)  # fmt: skip
@traces_option
@layers_option
@work_option
@workers_option
@seed_option
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, show_default=True,
    help="Searches that part `time` takes means over, with --seed and the seeds after it.",
)  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False), help="Folder for results.json, table.txt and plots.")
@check_option
@json_option
def command(
    parts: str,
    protocols: tuple[Protocol, ...],
    traces: str,
    layers: int,
    work: float,
    workers: int,
    seed: int,
    seeds: int,
    out: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Bytes, layer time and balance of solved placements against eplb's, at the same slots, dispatch and scorer.

    Recorded routing of three domains; what judges was not solved on. All layers take some 45 minutes on two cores;
    --layers 5 gives a first picture in nine.
    """
    from bench.targets import check_targets, target_records
    from placement.errors import InputError
    from placement.records.files import write_text

    chosen = [part.strip() for part in parts.split(",") if part.strip()]
    for part in chosen:
        if part not in PARTS:
            raise InputError("--parts", part, "is no part", f"choose of {', '.join(PARTS)}")
    from bench.placement_quality import certified, gains, learning, risks, rivals
    from bench.placement_quality.measure import Solves
    from bench.placement_quality.plot import write_plots
    from bench.placement_quality.protocol import PROTOCOLS, Recorded, spaced

    makers: dict[str, Callable[[Solves, gains.Tell], Part]] = {
        "bytes": gains.bytes_part, "time": partial(gains.time_part, seeds=seeds), "nodes": gains.nodes_part,
        "phases": gains.phases_part, "rivals": rivals.rivals_part, "sweep": rivals.sweep_part,
        "robust": risks.robust_part, "rounding": risks.rounding_part, "migration": risks.migration_part,
        "bounds": certified.bounds_part, "tokens": learning.tokens_part,
    }  # fmt: skip
    recorded = Recorded(traces, spaced(layers, LAYERS))
    solves = Solves(recorded, work, seed, workers, protocols or PROTOCOLS)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
    done: list[Part] = []
    targets: list[Target] = []
    text, table, plotted = "", "", True
    for name in PARTS:
        if name not in chosen:
            continue
        done.append(makers[name](solves, note))
        targets = [target for part in done for target in part.targets]
        text = json.dumps(
            {
                "layers": layers, "work": work, "seed": seed, "seeds": seeds, "targets": target_records(targets),
                "parts": {part.name: [asdict(record) for record in part.records] for part in done},
            },
            indent=1,
        )  # fmt: skip
        table = _table(done, f"{len(solves.recorded.layers)} of {LAYERS} layers, work {work:g}, seed {seed}")
        if out is not None:
            # After each part, so that a run that is cut short leaves what it has.
            write_text(Path(out) / "results.json", text + "\n", "--out")
            write_text(Path(out) / "table.txt", table, "--out")
            plotted = write_plots(done[-1:], Path(out))
    if not plotted:
        note("no plots: matplotlib is not installed; pip install 'placement[bench]'")
    emit(text if as_json else table)
    if check:
        check_targets(targets)


def _table(parts: Sequence[Part], run: str) -> str:
    from bench.targets import target_table
    from placement.report.text import columns, heading, rendered

    shown: list[RenderableType] = [run, ""]
    for part in parts:
        shown += [heading(part.title), columns(part.header, part.rows), ""]
    targets = [target for part in parts for target in part.targets]
    if targets:
        shown += [heading("Targets", f" ({run})"), target_table(targets)]
    return rendered(shown)
