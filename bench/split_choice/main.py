"""`python -m bench run split_choice`: the planner's splits next to those that engineers configured."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import click

from bench.options import check_option, json_option, seed_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.split_choice.agree import Agreement
    from bench.split_choice.choose import Compared
    from bench.targets import Target

#: Asked of disaggregated rows of TensorRT-LLM: shares within a factor of 2, and of the same family.
ASKED = {"prefill": 0.85, "ratio": 0.70, "decode": 0.70, "family": 0.91}
MODES = {"disagg": ("disagg",), "agg": ("agg",), "all": ("disagg", "agg")}


@click.command("split_choice", cls=Command)
@click.option("--data", help="CSV file of configured layouts (recipes_2026.csv).")
@click.option("--deployments", "described", is_flag=True, help="Instead: deployments that their operators describe.")
@click.option(
    "--mode", type=click.Choice(list(MODES)), default="disagg", show_default=True,
    help="Rows with prefill and decode apart, rows that serve whole requests, or both.",
)  # fmt: skip
@click.option("--engine", "engines", multiple=True, help="Rows of this engine: trtllm, sglang, vllm. Repeatable.")
@click.option("--rows", type=click.IntRange(min=1), help="So many rows, drawn at random. Default: all.")
@click.option("--reasons", type=click.IntRange(min=0), default=10, show_default=True, help="Reasons that are told.")
@seed_option
@check_option
@json_option
def command(
    data: str | None,
    described: bool,
    mode: str,
    engines: tuple[str, ...],
    rows: int | None,
    reasons: int,
    seed: int,
    check: bool,
    as_json: bool,
) -> None:
    """The planner's answer at each recipe's model, GPUs, lengths and concurrency, against the engineers'.

    Clients form a closed loop: each has one request in flight. The planner takes the instances that serve them
    soonest, in at most as many GPUs; experts are taken as balanced. A row is a choice, not a proof: where the planner
    rates its own pick over 10% higher, the reason is told.
    """
    from bench.split_choice.agree import HIGHER
    from bench.split_choice.choose import compare
    from bench.split_choice.deployments import deployments
    from bench.split_choice.recipes import engine_of, read_recipes
    from bench.split_choice.shown import deployments_record, deployments_text, record, text
    from bench.targets import check_targets
    from placement.errors import InputError

    if (data is None) != described:
        raise click.UsageError("give --data FILE or --deployments, one of them")
    if data is None:
        beside = deployments(note)
        emit(json.dumps(deployments_record(beside), indent=1) if as_json else deployments_text(beside))
        return
    recipes, left = read_recipes(data)
    asked = [each for each in recipes if each.question.mode in MODES[mode]]
    if engines:
        asked = [each for each in asked if engine_of(each.question) in engines]
    if not asked and not recipes:
        why = f"no row can be asked (of {len(left)}: {left[0].reason})" if left else "has no rows"
        raise InputError(data, "", why, "give rows of models and GPUs of the catalog")
    if not asked:
        able = sorted({engine_of(each.question) or "" for each in recipes} - {""})
        problem = "no row that can be asked has this --mode and --engine"
        raise InputError(data, "", problem, f"leave one out; engines are {', '.join(able)}")
    if rows is not None and rows < len(asked):
        drawn = set(random.Random(seed).sample(range(len(asked)), rows))
        asked = [each for i, each in enumerate(asked) if i in drawn]
    compared = compare(asked, note)
    higher = sorted((each for each in compared if (each.gain or 0.0) > HIGHER), key=lambda each: -(each.gain or 0.0))
    targets = targets_of(compared)
    if as_json:
        emit(json.dumps(record(compared, left, higher, targets), indent=1))
    else:
        emit(text(compared, left, higher, reasons, targets))
    if check:
        check_targets(targets)


def targets_of(compared: Sequence[Compared]) -> list[Target]:
    """What is asked of TensorRT-LLM's disaggregated rows."""
    from bench.split_choice.agree import Agreement
    from bench.split_choice.recipes import engine_of
    from bench.targets import Target

    mine = [
        each
        for each in compared
        if each.recipe.question.mode == "disagg" and engine_of(each.recipe.question) == "trtllm"
    ]
    if not mine:
        return []
    found = Agreement.of(mine)
    return [
        Target(f"TensorRT-LLM, disaggregated: {_named(name)}", _value(found, name), limit, "", True)
        for name, limit in ASKED.items()
    ]


def _value(found: Agreement, name: str) -> float:
    return float(getattr(found, name) or 0.0)


def _named(name: str) -> str:
    return {
        "prefill": "GPUs of a prefill instance within 2x",
        "ratio": "prefill over decode GPUs within 2x",
        "decode": "GPUs of a decode instance within 2x",
        "family": "the same family",
    }[name]
