"""Options that several benchmarks take, worded once."""

from __future__ import annotations

import click

from bench.recorded import LAYERS

traces_option = click.option(
    "--traces", default="../shared/traces", envvar="PLACEMENT_TRACES", show_default=True, show_envvar=True,
    help="Folder of dsv2lite_*.npz.",
)  # fmt: skip
wheels_option = click.option(
    "--wheels", default="../wheels", envvar="ENGINE_WHEELS", show_default=True, show_envvar=True,
    help="Folder of the unpacked wheels of vLLM and SGLang: folders `vllm` and `sglang`.",
)  # fmt: skip
layers_option = click.option(
    "--layers", type=click.IntRange(1, LAYERS), default=LAYERS, show_default=True,
    help="MoE layers to solve, spread evenly over the model's.",
)  # fmt: skip
work_option = click.option(
    "--work", type=click.FloatRange(1e-3, 1e3), default=1.0, show_default=True, help="Search effort."
)
workers_option = click.option("--workers", type=click.IntRange(1, 1024), default=2, show_default=True)
seed_option = click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
check_option = click.option("--check", is_flag=True, help="Exit with 6 if a target is missed.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
