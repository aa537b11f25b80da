"""`python -m bench.alltoall`: carries the real traffic of a plan's layouts and times it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click

from bench.options import json_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from bench.alltoall.fabric import Fabric
    from bench.alltoall.job import Job, Ran
    from bench.alltoall.prepare import Settings
    from placement.records.plan import Plan
    from placement.routing.parts import Part
    from placement.routing.trace import Trace
    from specs.workload import Phase


@click.command("alltoall", cls=Command)
@click.option("--plan", "plan_path", required=True, metavar="FILE", help="Plan file, as solve writes it.")
@click.option("--trace", "traces", required=True, multiple=True, metavar="FILE", help="Recorded routing. Repeatable.")
@click.option(
    "--baseline", "baselines", multiple=True, metavar="NAME",
    help="A strategy of the plan to run beside its own, in turn. Repeatable.",
)  # fmt: skip
@click.option("--ranks", type=click.IntRange(1, 4096), metavar="N", help="Checked against the plan's: one rank a GPU.")
@click.option("--backend", type=click.Choice(["gloo", "nccl"]), default="gloo", show_default=True)
@click.option(
    "--dtype", type=click.Choice(["bf16", "fp8", "fp32"]), default="bf16", show_default=True,
    help="Hidden states in dispatch; combine sends bf16 (fp32 for fp32).",
)  # fmt: skip
@click.option(
    "--tokens-per-rank", type=click.IntRange(1, 1_000_000), metavar="N", help="Default: the plan's, in --phase."
)
@click.option(
    "--phase", type=click.Choice(["prefill", "decode", "train"]), help="Default: the plan's, decode of serving."
)
@click.option(
    "--part", type=click.Choice(["all", "first-half", "second-half"]),
    help="Which sequences of the traces. Default: what the plan was judged on.",
)  # fmt: skip
@click.option(
    "--layers", type=click.IntRange(1, 2048), default=4, show_default=True, metavar="N",
    help="MoE layers, spread evenly over the plan's.",
)  # fmt: skip
@click.option("--repeats", type=click.IntRange(1, 10_000), default=5, show_default=True)
@click.option("--warmup", type=click.IntRange(0, 10_000), default=1, show_default=True, help="Untimed repeats.")
@click.option("--mlp", is_flag=True, help="Compute the experts' MLPs; without it each expert scales by a vector.")
@click.option(
    "--expert-width", type=click.IntRange(1, 1_000_000), metavar="N", help="With --mlp. Default: the model's."
)
@click.option("--fabric", "fabric_path", metavar="FILE", help="Shape the links between nodes (root; docs/alltoall.md).")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(1, 86_400), default=300.0, show_default=True, metavar="SECONDS",
    help="How long a rank waits for another.",
)  # fmt: skip
@json_option
@click.option("--out", metavar="FILE", help="Write the JSON to this file, too.")
def command(**options: Any) -> None:
    """Run a plan's dispatch and combine for real, with one process a rank, and hold bytes and times against the scorer.

    Every result is checked against a reference, and every byte against the scorer's matrix; a difference ends with
    exit code 6. Under torchrun the processes are its own.
    """
    torchrun = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))
    with deaths_told():
        _run(torchrun=torchrun, **options)


@contextmanager
def deaths_told() -> Iterator[None]:
    """Turns a rank's death into its own last words on stderr and exit code 1."""
    try:
        yield
    except RuntimeError as error:
        from bench.alltoall.launch import RankDiedError

        if not isinstance(error, RankDiedError):
            raise
        # This process's own traceback would tell nothing.
        first, _, words = str(error).partition("\n")
        click.echo(words, err=True)
        note(f"error: {first}")
        raise SystemExit(1) from None


def _run(
    plan_path: str,
    traces: tuple[str, ...],
    baselines: tuple[str, ...],
    ranks: int | None,
    backend: Literal["gloo", "nccl"],
    dtype: Literal["bf16", "fp8", "fp32"],
    tokens_per_rank: int | None,
    phase: Phase | None,
    part: Part | None,
    layers: int,
    repeats: int,
    warmup: int,
    mlp: bool,
    expert_width: int | None,
    fabric_path: str | None,
    seed: int,
    timeout_s: float,
    as_json: bool,
    out: str | None,
    torchrun: bool,
) -> None:
    from bench.alltoall.fabric import read_fabric
    from bench.alltoall.launch import need_torch
    from bench.alltoall.measured import measured
    from bench.alltoall.prepare import Settings, plan_layouts, prepare, take_sample
    from bench.alltoall.report import Report, check, report_json, report_text
    from placement.errors import InputError
    from placement.records.files import check_writable, write_text
    from placement.records.plan import load_plan

    plan = load_plan(plan_path)
    gpus = plan.role().topology.gpus
    if ranks is not None and ranks != gpus:
        raise InputError(
            "--ranks", "", f"is {ranks}, but the plan has {gpus} expert-parallel ranks",
            f"leave it out, or solve with --ep {ranks}",
        )  # fmt: skip
    if fabric_path is not None and (torchrun or backend == "nccl"):
        raise InputError("--fabric", "", "shapes gloo ranks that this command starts", "leave out nccl and torchrun")
    if expert_width is not None and not mlp:
        raise InputError("--expert-width", "", "counts with --mlp alone", "add --mlp")
    fabric = None if fabric_path is None else read_fabric(fabric_path)
    if out is not None:
        check_writable(out, "--out")
    need_torch()
    if backend == "nccl":
        _need_gpus(gpus, torchrun)
    settings = Settings(
        tokens_per_rank=tokens_per_rank or phase_tokens(plan, phase or plans_phase(plan)),
        backend=backend,
        wire=dtype,
        kind="mlp" if mlp else "scale",
        expert_width=expert_width,
        warmup=warmup,
        repeats=repeats,
        seed=seed,
        timeout_s=timeout_s,
    )
    recorded = read_traces(plan, traces, part)
    sample = take_sample(recorded, gpus, settings.tokens_per_rank, seed, plan.role().failed_gpus)
    chosen = spaced(layers, len(plan.role().layers))
    layouts = plan_layouts(plan, baselines, chosen, sample, settings, fabric)
    prepared = prepare(layouts, chosen, sample, plan.scenario.spec.model, settings)
    ran = _measure(prepared.job, settings, fabric, torchrun)
    if ran is None:  # a rank of torchrun that does not report
        return
    found = measured(prepared, ran, links_known=fabric is not None or backend == "nccl")
    report = Report.of(plan.scenario.name, plan_path, prepared, ran, found, settings, fabric)
    if out is not None:
        write_text(out, report_json(report) + "\n", "--out")
    emit(report_json(report) if as_json else report_text(report))
    check(report)


def _measure(job: Job, settings: Settings, fabric: Fabric | None, torchrun: bool) -> Ran | None:
    """What the ranks saw; None on a rank of torchrun other than 0."""
    from bench.alltoall.launch import run_job, run_under_torchrun

    if torchrun:
        return run_under_torchrun(job)
    if fabric is None:
        return run_job(job)
    from bench.alltoall.namespaces import shaped

    with shaped(fabric, job.nodes) as places:
        return run_job(job, places)


def _need_gpus(ranks: int, torchrun: bool) -> None:
    import torch

    from placement.errors import InputError

    wanted = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if torchrun else ranks
    if torch.cuda.device_count() < wanted:
        raise InputError(
            "--backend", "nccl", f"needs a GPU a rank, {wanted}; here are {torch.cuda.device_count()}", "use gloo"
        )


def plans_phase(plan: Plan) -> Phase:
    """The phase of the passes that a plan is made for; decode where it is made for both."""
    phase = plan.role().phase
    return "decode" if phase == "serving" else phase


def phase_tokens(plan: Plan, phase: Phase) -> int:
    """Tokens of a rank in one pass of a phase, at least one."""
    from placement.cost.layer.scenario_rates import default_tokens_per_rank
    from placement.errors import InputError
    from placement.problem.engine_rules import phases_of

    scenario = plan.scenario.spec
    if phase not in phases_of(scenario):
        raise InputError(
            "--phase", "", f"{phase} is no phase of the plan's workload", f"choose {' or '.join(phases_of(scenario))}"
        )
    return max(1, round(default_tokens_per_rank(scenario, plan.role().split.split(), phase)))


def read_traces(plan: Plan, paths: tuple[str, ...], part: Part | None) -> list[Trace]:
    from placement.errors import InputError
    from placement.routing.holdout import read_sources
    from placement.routing.parts import select_part
    from placement.routing.trace import Trace

    found = []
    for source in read_sources(plan.scenario.spec.model, paths):
        if not isinstance(source.routing, Trace):
            raise InputError(source.routing.name, "topk_ids", "is missing: load counts name no tokens", "give a trace")
        found.append(select_part(source.routing, part or plan.provenance.routing.judged_on))
    return found


def spaced(layers: int, of: int) -> list[int]:
    """`layers` positions spread evenly over `of`."""
    wanted = min(layers, of)
    return [round(i * (of - 1) / max(1, wanted - 1)) for i in range(wanted)]
