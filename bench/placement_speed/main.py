"""`python -m bench run placement_speed`: how fast plans are made, and how good they are then, against targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.options import check_option, json_option, traces_option, wheels_option, workers_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bench.targets import Target

PARTS = ("drop-in", "engines", "counts", "two-slots", "largest", "recorded", "sizes", "bounds")


@click.command("placement_speed", cls=Command)
@click.option("--parts", default=",".join(PARTS), show_default=True, help="What to run, separated by commas.")
@traces_option
@wheels_option
@workers_option
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True)
@click.option("--out", type=click.Path(file_okay=False), help="Folder for results.json and, with matplotlib, a plot.")
@check_option
@json_option
def command(
    parts: str, traces: str, wheels: str, workers: int, seed: int, out: str | None, check: bool, as_json: bool
) -> None:
    """Seconds, gaps and memory of expert placement by size. Figures of a busy machine are upper figures."""
    from bench.targets import check_targets, target_records, target_table
    from placement.errors import InputError
    from placement.records.files import write_text
    from placement.report.text import rendered

    chosen = [part.strip() for part in parts.split(",") if part.strip()]
    for part in chosen:
        if part not in PARTS:
            raise InputError("--parts", part, "is no part", f"choose of {', '.join(PARTS)}")
    if "engines" in chosen and not Path(wheels).is_dir():
        note(f"engines: left out; {wheels} is not there (--wheels)")
        chosen.remove("engines")
    tables, targets, records = _run(chosen, traces, wheels, workers, seed)
    text = json.dumps({"targets": target_records(targets), "records": records}, indent=1)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_text(Path(out) / "results.json", text + "\n", "--out")
        if "sizes" in records:
            _plot(records["sizes"], Path(out) / "cost_by_size.svg")
    emit(text if as_json else rendered([*tables, *([target_table(targets)] if targets else [])]))
    if check:
        check_targets(targets)


def _run(
    parts: list[str], traces: str, wheels: str, workers: int, seed: int
) -> tuple[list[RenderableType], list[Target], dict[str, list[dict[str, object]]]]:
    from bench.placement_speed import loads, tokens
    from bench.targets import Target
    from placement.report.text import columns, heading

    tables: list[RenderableType] = []
    targets: list[Target] = []
    records: dict[str, list[dict[str, object]]] = {}

    def keep(part: str, title: str, header: list[str], rows: list[list[str]], found: Sequence[Any]) -> None:
        tables.extend([heading(title), columns(header, rows), ""])
        records[part] = [asdict(each) for each in found]

    if "drop-in" in parts:
        note("drop-in: 58 layers x 256 experts, 288 slots, 32 GPUs")
        found = loads.drop_in(seed)
        keep(
            "drop-in", "Drop-in function, whole DeepSeek-R1 from counts (58 layers x 256 experts, 32 GPUs)",
            ["policy, effort", "ms", "balancer ms", "balancedness", "balancer's", "layers worse", "gap"],
            [
                [f"{r.policy}, {r.effort}", f"{r.milliseconds:.0f}", f"{r.balancer_milliseconds:.0f}",
                 f"{r.balancedness:.4f}", f"{r.balancer_balancedness:.4f}", str(r.worse_layers), f"{r.gap:.2%}"]
                for r in found
            ], found,
        )  # fmt: skip
        quick = [r for r in found if r.effort == "fast"]
        targets.append(Target("drop-in, milliseconds", max(r.milliseconds for r in quick), 50, "ms"))
        targets.append(Target("drop-in, layers less balanced", max(r.worse_layers for r in quick), 0, ""))
        best = next(r for r in found if r.effort == "best" and r.policy == "global")
        targets.append(Target("drop-in, best effort, milliseconds", best.milliseconds, 1000, "ms"))
        targets.append(Target("drop-in, best effort, gap", 100 * best.gap, 0.5, "%"))
    if "engines" in parts:
        from bench.placement_speed.engines import beside_engines

        note("the drop-in beside the engines' own functions")
        beside = beside_engines(wheels, seed)
        keep(
            "engines", "Drop-in beside engines' functions: ms for all layers, balancedness",
            ["layers, experts, slots, groups, nodes, GPUs", "ms", "balancedness", *beside[0].engines],
            [
                [", ".join(map(str, r.shape)), f"{r.milliseconds:.2f}", f"{r.balancedness:.4f}",
                 *(f"{ms:.2f} {balance:.4f}" for ms, balance in r.engines.values())]
                for r in beside
            ], beside,
        )  # fmt: skip
        slower = sum(r.milliseconds > r.engines["vllm"][0] for r in beside)
        targets.append(Target("drop-in, shapes slower than vLLM's function", slower, 0, ""))
    shapes: list[tuple[str, str, tuple[loads.Planned, ...]]] = []
    if "counts" in parts:
        note("58 layers x 256 experts, 288 slots, 32 and 72 GPUs")
        shapes.append(("counts", "Whole DeepSeek-R1 from counts, by `auto`", loads.whole_model(seed, workers)))
    if "two-slots" in parts:
        note("two slots per GPU")
        two = loads.two_slots(8, seed, workers)
        shapes.append(("two-slots", "Two slots per GPU, from counts, by `auto`", two))
        targets.append(Target("two slots per GPU, worst mean gap", 100 * max(p.mean_gap for p in two), 2, "%"))
    if "largest" in parts:
        note("94 layers x 512 experts x 1,024 GPUs")
        most = loads.largest(94, seed, workers)
        shapes.append(("largest", "94 layers x 512 experts on 1,024 GPUs, from counts, by `auto`", most))
        targets.append(Target("largest, seconds", max(p.seconds for p in most), 30, "s"))
        targets.append(Target("largest, memory", max(p.peak_mib for p in most), 2048, "MiB"))
    for part, title, points in shapes:
        keep(
            part, title,
            ["GPUs x slots, experts", "layers", "seconds", "gap", "largest gap", "eplb's gap", "proven optimal", "MiB"],
            [
                [f"{p.gpus} x {p.slots_per_gpu}, {p.experts}", str(p.layers), f"{p.seconds:.1f}", f"{p.mean_gap:.2%}",
                 f"{p.largest_gap:.2%}", f"{p.balancer_gap:.2%}", str(len(p.optimal)), f"{p.peak_mib:.0f}"]
                for p in points
            ], points,
        )  # fmt: skip
    timed: list[tuple[str, str, tuple[tokens.Timed, ...]]] = []
    if "recorded" in parts:
        note("26 recorded layers with replicas")
        runs = tuple(tokens.recorded(traces, dispatch, workers, seed) for dispatch in ("even", "nearest", "planned"))
        timed.append(("recorded", "DeepSeek-V2-Lite, three recorded traces, 50% redundant experts, by `auto`", runs))
        targets.extend(Target(f"recorded, {run.dispatch}, seconds", run.seconds, 10, "s") for run in runs)
    if "sizes" in parts:
        note("synthetic layers by size")
        runs = tokens.by_size("nearest", seed)
        title = f"Cost by size: seconds a layer grow as (experts x GPUs) ^ {tokens.exponent(runs):.2f}"
        timed.append(("sizes", title, runs))
    for part, title, runs in timed:
        keep(
            part, title, ["dispatch, experts, GPUs", "layers", "tokens", "seconds", "remote nodes/token", "gap", "MiB"],
            [
                [f"{r.dispatch}, {r.experts}, {r.gpus}", str(r.layers), f"{r.tokens:,}", f"{r.seconds:.1f}",
                 f"{r.remote_nodes_per_token:.2f}", f"{r.gap:.0%}", f"{r.peak_mib:.0f}"]
                for r in runs
            ], runs,
        )  # fmt: skip
    if "bounds" in parts:
        from bench.placement_speed.bounds import by_tokens

        note("bounds by experts and tokens")
        bounds = by_tokens(seed)
        keep(
            "bounds", "Bounds of one synthetic layer, one copy each, nodes of 4 GPUs (CPU seconds)",
            ["experts, GPUs, top-k", "tokens", "bound, ms", "gap", "heuristic's", "seconds", "search's", "proven by"],
            [
                [f"{r.experts}, {r.gpus}, {r.top_k}", f"{r.tokens:,}", f"{1e3 * r.bound:.3f}",
                 "-" if r.gap is None else f"{r.gap:.0%}",
                 f"{r.heuristic_gap:.0%}", f"{r.seconds:.1f}",
                 "-" if r.search_seconds is None else f"{r.search_seconds:.1f}", r.source]
                for r in bounds
            ], bounds,
        )  # fmt: skip
        largest = bounds[-1]
        targets.append(Target("512 experts on 128 GPUs, gap", 100 * (largest.gap or 0.0), 60, "%"))
        share = largest.seconds / (largest.search_seconds or 1.0)
        targets.append(Target("512 experts on 128 GPUs, bound over search, seconds", share, 2, "x"))
        steps = [r for r in bounds if r.experts == 256]
        jump = max(later.heuristic_gap / before.heuristic_gap for before, later in pairwise(steps[1:]))
        targets.append(Target("256 experts, largest rise of a gap with more tokens", 100 * (jump - 1), 15, "%"))
        # The heuristic's answer moves, too; of the bound alone, from the fewest tokens to any more of them:
        loss = max(1 - later.bound / before.bound for before, later in pairwise(steps))
        targets.append(Target("256 experts, largest step down of a bound with more tokens", 100 * loss, 2.5, "%"))
    return tables, targets, records


def _plot(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds a layer over experts x GPUs; left out, with a line that says so, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        note("no plot: matplotlib is not installed; pip install 'placement[bench]'")
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    size = [float(str(r["experts"])) * float(str(r["gpus"])) for r in rows]
    seconds = [float(str(r["seconds"])) / float(str(r["layers"])) for r in rows]
    axes.loglog(size, seconds, "o-")
    axes.set(xlabel="experts x GPUs", ylabel="seconds a layer", title="Placement with replicas and token sets")
    axes.grid(True, which="both", alpha=0.3)
    figure.savefig(path)
