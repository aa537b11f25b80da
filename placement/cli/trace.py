"""`placement trace`: recordings of routing converted, described, split and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from placement.cli.command import Command
from placement.cli.running import emit, run
from placement.cli.trace_record import record

# Kept beside placement.routing.recordings.detect.FORMATS (a test compares them) so that --help imports nothing heavy.
FORMATS = ("sglang", "tensorrt-llm", "vllm", "vllm-eplb", "vllm-log", "array", "csv", "parquet", "json")

_model = click.option(
    "--model",
    metavar="NAME|FILE|DIR",
    help="The model that was recorded: of the catalog, in a YAML file, or a Hugging Face folder or config.json.",
)
_out = click.option("--out", required=True, metavar="FILE", help="The .npz file to write.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("trace")
def trace() -> None:
    """Recorded routing: convert what engines record, describe, split, merge."""


@trace.command("convert", cls=Command, short_help="Turn what an engine recorded into a trace or load counts.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_out
@_model
@click.option("--format", "form", type=click.Choice(FORMATS), help="What FILE is. Default: by what is in it.")
@click.option(
    "--axes", metavar="NAMES", help="Axes of an array, where they can't be told, such as layers,tokens,k or "
    "windows,layers,experts.",
)  # fmt: skip
@click.option(
    "--windows", type=click.IntRange(1, 10_000), default=16, show_default=True, metavar="N",
    help="Most windows of load counts; neighbours are added up.",
)  # fmt: skip
@click.option(
    "--tokens", type=click.IntRange(1, 2**30), metavar="N",
    help="Keep at most so many tokens, in whole sequences that are evenly spread. Default: what a trace may hold.",
)  # fmt: skip
@click.option(
    "--map", "slot_map", metavar="FILE",
    help="The map that SGLang ran, where a dump of slots does not hold it: as --init-expert-location takes it.",
)  # fmt: skip
@_json
def convert_command(files: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Turn FILEs, one recording, into a trace, or into load counts where no token's choices were recorded.

    Read are dumps of SGLang's recorder, statistics of TensorRT-LLM, responses of vLLM with routed_experts, and CSV,
    Parquet, JSON and numpy files of ids or counts. Files are read piece by piece. What is no routing (padding, dense
    layers, a fused shared expert, a profile run) is recognized, left out, and named.
    """
    from placement.cli.progress import ProgressBar
    from placement.planning.trace import convert_recording
    from placement.records.files import check_writable
    from placement.report.trace import conversion_json, conversion_text

    check_writable(options["out"], "`out`")
    with ProgressBar() as progress:
        done = convert_recording(files, **options, on_progress=progress)
    emit((conversion_json if as_json else conversion_text)(done))


@trace.command("stats", cls=Command, short_help="Say what recorded routing is like.")
@click.argument("file")
@_model
@click.option(
    "--windows", type=click.IntRange(1, 10_000), default=8, show_default=True, metavar="N",
    help="Windows of a trace that drift is told over.",
)  # fmt: skip
@click.option("--top-k", type=click.IntRange(1, 1024), metavar="N", help="Experts of a token, where counts don't say.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the placements.")
@click.option("--plot", metavar="FILE", help="Draw loads, skew and drift there (.png, .svg, .pdf).")
@_json
def stats_command(file: str, plot: str | None, as_json: bool, **options: Any) -> None:
    """Say what the routing in FILE is like: skew, drift, co-activation, locality, whether it looks degenerate.

    FILE is a trace, load counts, or a recording as 'placement trace convert' takes it. Of a log of vLLM's EPLB the
    balancedness is shown.
    """
    from placement.cli.progress import ProgressBar
    from placement.planning.trace import balancedness_log, trace_statistics
    from placement.report.trace import log_json, log_text, statistics_json, statistics_text
    from placement.report.trace_plot import check_plot, write_plot

    if (series := balancedness_log(file)) is not None:
        emit((log_json if as_json else log_text)(file, series))
        return
    if plot is not None:
        check_plot(plot)
    with ProgressBar() as progress:
        report = trace_statistics(file, **options, on_progress=progress)
    if plot is not None:
        write_plot(plot, report)
    emit(statistics_json(report) if as_json else statistics_text(report, plot))


@trace.command("split", cls=Command, short_help="Cut a trace into parts of whole sequences.")
@click.argument("file")
@click.option("--share", type=float, metavar="SHARE", help="Of the sequences for the first of two parts, such as 0.8.")
@click.option("--windows", type=click.IntRange(1, 10_000), metavar="N", help="Parts of about equally many tokens.")
@click.option("--out", required=True, metavar="FILE", help="NAME.npz: the parts are NAME-1.npz, NAME-2.npz and so on.")
def split_command(file: str, share: float | None, windows: int | None, out: str) -> None:
    """Cut the trace or load counts in FILE into parts, in order; sequences stay whole."""
    from placement.planning.trace import save_routing, split_trace

    for number, part in enumerate(split_trace(file, share=share, windows=windows), start=1):
        name = str(Path(out).with_name(f"{Path(out).stem}-{number}{Path(out).suffix or '.npz'}"))
        save_routing(name, part)
        emit(f"{name}: {part!r}")


@trace.command("merge", cls=Command, short_help="Join traces of one model.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@_out
def merge_command(files: tuple[str, ...], out: str) -> None:
    """Join traces (or load counts) of one model into one, in the order given."""
    from placement.planning.trace import merge_traces, save_routing

    merged = merge_traces(files)
    save_routing(out, merged)
    emit(f"{out}: {merged!r}")


trace.add_command(record)


def main() -> None:
    """Entry point of `python -m placement.trace`."""
    run(trace, "placement.trace")


if __name__ == "__main__":
    main()
