"""The command `placement trace record`: the routing of texts through a Hugging Face model."""

from __future__ import annotations

from typing import Any

import click

from placement.cli.command import Command
from placement.cli.running import emit, note

# Kept beside placement.recording.record.DTYPES (a test compares them) so that --help imports nothing heavy.
DTYPES = ("auto", "float32", "bfloat16", "float16")


@click.command("record", cls=Command, short_help="Record the routing of texts through a Hugging Face model.")
@click.option("--model", required=True, metavar="DIR", help="A folder with config.json, weights and tokenizer.")
@click.option("--text", "texts", required=True, multiple=True, metavar="FILE", help="Text to route. Repeatable.")
@click.option("--out", required=True, metavar="FILE", help="The .npz file to write.")
@click.option(
    "--tokens", type=click.IntRange(1, 2**30), default=65_536, show_default=True, metavar="N",
    help="Tokens to record, equally many of each text.",
)  # fmt: skip
@click.option(
    "--length", type=click.IntRange(1, 2**20), metavar="N",
    help="Most tokens of a sequence. Default: 1024, or the model's context if that is shorter.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1, 2**16), default=8, show_default=True, metavar="N", help="Sequences of a pass."
)
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Type of the weights.")
@click.option(
    "--device", default="", metavar="NAME",
    help="Such as cpu or cuda:1; auto spreads the model over GPUs. Default: a GPU if there is one.",
)  # fmt: skip
def record(model: str, texts: tuple[str, ...], out: str, **options: Any) -> None:
    """Record which experts of a Hugging Face model the tokens of texts use.

    A .jsonl file has a document a line, an object with the field "text"; any other file is one document. Each FILE is
    a domain: a plan is judged on the second half of every one. Interrupted, the same command goes on where it was.
    """
    from placement.cli.progress import ProgressBar
    from placement.recording.record import RecordOptions, record_trace

    with ProgressBar() as progress:
        done = record_trace(model, texts, out, RecordOptions(**options), progress)
    if done.resumed:
        note(f"{done.resumed:,} tokens were there from an earlier run")
    if done.short:
        note(f"fewer tokens than asked for in {', '.join(done.short)}: {out} names no domains, halves are of the whole")
    emit(f"{out}: {done.trace!r}")
