"""`python -m bench.experts`: one device plays each GPU of a plan in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from bench.options import json_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from bench.experts.kernels import ProductType
    from placement.routing.parts import Part
    from specs.model import Model
    from specs.workload import Phase

#: What dimensions are divided by where no GPU multiplies.
CPU_SCALE = 8


@click.command("experts", cls=Command)
@click.option("--plan", "plan_path", required=True, metavar="FILE", help="Plan file, as solve writes it.")
@click.option("--trace", "traces", multiple=True, metavar="FILE", help="Recorded routing; without: synthetic.")
@click.option("--baseline", "baselines", multiple=True, metavar="NAME", help="A strategy of the plan. Repeatable.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["bf16", "fp8", "mxfp4", "fp32"]),
    help="Default: bf16, fp8 if the model's; on a CPU fp32.",
)
@click.option(
    "--phase", type=click.Choice(["prefill", "decode", "train"]), help="Default: the plan's, decode of serving."
)
@click.option("--tokens-per-rank", type=click.IntRange(1, 1_000_000), metavar="N", help="Default: the plan's.")
@click.option(
    "--part", type=click.Choice(["all", "first-half", "second-half"]),
    help="Which sequences of the traces. Default: what the plan was judged on.",
)  # fmt: skip
@click.option("--layers", type=click.IntRange(1, 2048), default=4, show_default=True, metavar="N")
@click.option(
    "--scale", type=click.IntRange(1, 1024), metavar="N",
    help=f"Divide hidden and expert width by N. Default: 1, on a CPU {CPU_SCALE}.",
)  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--warmup", type=click.IntRange(1, 10_000), default=3, show_default=True, help="Untimed repeats.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@json_option
@click.option("--out", metavar="FILE", help="Write the JSON to this file, too.")
def command(
    plan_path: str,
    traces: tuple[str, ...],
    baselines: tuple[str, ...],
    device: Literal["cuda", "cpu"],
    dtype: Literal["bf16", "fp8", "mxfp4", "fp32"] | None,
    phase: Phase | None,
    tokens_per_rank: int | None,
    part: Part | None,
    layers: int,
    scale: int | None,
    repeats: int,
    warmup: int,
    seed: int,
    as_json: bool,
    out: str | None,
) -> None:
    """Time the experts' grouped products of every GPU of a plan, with its own routed tokens, on one device.

    The largest over the GPUs is the layer's measured compute time. Weights rotate through several caches' worth of
    memory. The roofline f(n) of the cost model stands beside what was measured.
    """
    from bench.alltoall.launch import need_torch
    from bench.alltoall.main import phase_tokens, plans_phase, read_traces, spaced
    from bench.alltoall.prepare import Settings, plan_layouts, take_sample
    from bench.experts.report import Report, layout_times, median_error, report_json, report_text
    from placement.records.files import check_writable, write_text
    from placement.records.plan import load_plan
    from placement.routing.holdout import synthetic_source
    from placement.routing.trace import Trace

    plan = load_plan(plan_path)
    scenario = plan.scenario.spec
    if out is not None:
        check_writable(out, "--out")
    chosen_phase = phase or plans_phase(plan)
    tokens = tokens_per_rank or phase_tokens(plan, chosen_phase)
    if traces:
        recorded = read_traces(plan, traces, part)
    else:
        made = synthetic_source(scenario, seed).routing
        recorded = [made] if isinstance(made, Trace) else []
    need_torch()
    import torch

    from bench.experts.kernels import check_kind, chosen_device, library_of
    from bench.experts.measure import Effort, play

    stored = scenario.model.types.experts
    kind: ProductType = dtype or ("fp32" if device == "cpu" else stored if stored in ("bf16", "fp8") else "bf16")
    target = chosen_device(device, "--device")
    check_kind(library_of(kind), kind, target)
    divisor = scale or (1 if device == "cuda" else CPU_SCALE)
    hidden, width = (max(16, size // divisor // 16 * 16) for size in _dimensions(plan.role().split.etp, scenario.model))
    sample = take_sample(recorded, plan.role().topology.gpus, tokens, seed, plan.role().failed_gpus)
    positions = spaced(layers, len(plan.role().layers))
    layouts = plan_layouts(plan, baselines, positions, sample, Settings(tokens, seed=seed), None)
    names = [plan.role().layers[i].layer for i in positions]
    with torch.no_grad():
        played = play(
            layouts, positions, names, sample, hidden, width, kind, target, Effort(warmup, repeats, seed),
            kind == stored and (hidden, width) == _dimensions(plan.role().split.etp, scenario.model), note,
        )  # fmt: skip
    report = Report(
        scenario=plan.scenario.name,
        phase=chosen_phase,
        gpus=plan.role().topology.gpus,
        tokens_per_rank=tokens,
        synthetic=not traces,
        hidden=hidden,
        expert_width=width,
        dtype=kind,
        repeats=repeats,
        played=played,
        layouts=layout_times(played.times),
        median_error=median_error(played.times),
    )
    if out is not None:
        write_text(out, report_json(report) + "\n", "--out")
    emit(report_json(report) if as_json else report_text(report))


def _dimensions(etp: int, model: Model) -> tuple[int, int]:
    """(hidden, width) of an expert's part on one GPU."""
    return model.hidden, model.moe.expert_width // etp
