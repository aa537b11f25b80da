"""The command `placement export`: a plan as the folder that an engine is started from, or an engine's file checked."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from placement.cli.command import Command
from placement.cli.options import engine_option, role_option
from placement.cli.running import emit, note, run

#: Kept beside placement.engines (a test compares them) so that --help needs no import of it.
FORMATS = ("sglang", "trtllm", "vllm", "vllm-record", "vllm-hygon", "vllm-ascend", "omni", "deepseek", "megatron")


@click.command("export", cls=Command, short_help="Write a plan as the files that a serving engine loads.")
@click.option("--plan", "plan_path", required=True, metavar="FILE", help="Plan file, as solve writes it.")
@click.option("--to", type=click.Choice(FORMATS), required=True, help="The engine, or a format of one.")
@click.option("--out", metavar="DIR", help="Write the folder here; it must be new or empty.")
@click.option("--check", "check_path", metavar="FILE", help="Compare this file of the engine with the plan instead.")
@click.option(
    "--architecture", metavar="NAME", default="", help="The model's class, as `architectures` of its config.json says."
)
@click.option(
    "--next-token-layers", type=click.IntRange(0, 64), metavar="N", default=0,
    help="Layers of a next-token module that get rows, too (trtllm).",
)  # fmt: skip
@engine_option
@role_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    plan_path: str, to: str, out: str | None, check_path: str | None, architecture: str, next_token_layers: int,
    engine: str | None, role: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a folder with all that starts an engine as planned, or check an engine's file.

    The folder holds, for each role, the expert map and a launch script for each OS node; Kubernetes and Docker Compose
    files; and a README.md that says how to start it and how to see that the map was taken.

    With --check, the file is read as strictly as the engine reads it and compared with the plan. Exits with 6 and the
    first difference if it holds something else.
    """
    from placement.errors import ParameterError
    from placement.planning.export import check_export, export_plan
    from placement.records.plan import load_plan

    if (out is None) == (check_path is None):
        raise ParameterError("out", "one of `out` and `check` is needed", "name a folder to write or a file to check")
    plan = load_plan(plan_path)
    if check_path is not None:
        compared = check_export(plan, check_path, to, role=role)
        told = (
            f"{check_path}: holds the plan's map: {compared.layers} MoE layers on {compared.gpus} GPUs, "
            f"{compared.slots} slots"
        )
        emit(json.dumps(asdict(compared), indent=2) if as_json else "\n".join([told, *compared.notes]))
        return
    if role is not None:
        raise ParameterError("role", "all roles are written", "leave it out")
    written = export_plan(
        plan, to, out or "", engine=engine, architecture=architecture, next_token_layers=next_token_layers
    )
    if as_json:
        emit(json.dumps(asdict(written), indent=2))
        return
    emit("\n".join(f"{written.folder}/{name}" for name in written.files))
    for told in written.notes:
        note(told)
    note(f"start it as {written.folder}/README.md says")


def main() -> None:
    """Entry point of `python -m placement.export`."""
    run(command, "placement.export")


if __name__ == "__main__":
    main()
