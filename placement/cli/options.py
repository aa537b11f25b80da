"""Options that solve, compare and evaluate share, and the record they fill. Imports nothing heavy: --help is quick."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import click

#: A cap on integers that are sizes of real systems; the specs have the precise limits.
_MOST = 10_000_000


def redundant_experts(value: str) -> int | str:
    """A count of redundant experts, or `auto`."""
    if value == "auto":
        return value
    try:
        count = int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a whole number nor auto") from None
    if not 0 <= count <= _MOST:
        raise click.BadParameter(f"{value} is not in the range 0 to {_MOST}")
    return count


def positive(value: str) -> float:
    """A positive, finite number."""
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number") from None
    if not (math.isfinite(number) and 0 < number <= 1e9):
        raise click.BadParameter(f"{value} is not a positive number")
    return number


@dataclass(frozen=True)
class Effort:
    """How long and with what to search; see `effort_options`."""

    backend: Literal["processes", "threads", "sequential", "ray"] | None = None
    time_limit: float | None = None
    work: float = 1.0
    seed: int = 0
    workers: int = 0

    @property
    def threads(self) -> int:
        """Workers: as asked, or one per core of this process."""
        return self.workers or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class SolveOptions(Effort):
    """What the command line asks of a solve. None takes the scenario's own."""

    traces: tuple[str, ...] = ()
    phase: Literal["serving", "decode", "prefill", "train"] | None = None
    objective: Literal["time", "load", "traffic"] | None = None
    strategy: str = "auto"
    redundant: int | Literal["auto"] | None = None
    dispatch: Literal["even", "nearest", "planned"] | None = None
    message_rule: Literal["per_expert", "per_rank", "per_node"] | None = None
    keep_groups: bool | None = None
    tp: int | None = None
    ep: int | None = None
    pp: int | None = None
    dp: int | None = None
    batch: int | None = None
    holdout: bool | None = None
    windows: int | None = None
    tail: float = 1.0
    balance_floor: bool = True


@dataclass(frozen=True)
class DeployOptions:
    """What the command line asks of a deployment. None takes the scenario's own."""

    mode: Literal["aggregated", "disaggregated", "mixed"] = "mixed"
    target_rate: float | None = None
    front: bool = False
    pools: tuple[str, ...] = ()
    redundant: int | Literal["auto"] | None = None
    tp: int | None = None
    ep: int | None = None
    pp: int | None = None
    dp: int | None = None
    batch: int | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    traces: tuple[str, ...] = ()
    placed: bool = True
    kernel_tables: bool = False
    second_opinion: bool = False
    time_limit: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class MigrateOptions(Effort):
    """What the command line asks of a migration. At most one budget is set."""

    traces: tuple[str, ...] = ()
    max_moves: int | None = None
    max_moves_percent: float | None = None
    max_transfer_ms: float | None = None
    failed_gpus: tuple[int, ...] = ()
    fixed_gpus: tuple[int, ...] = ()


def effort_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how long and with what to search; they don't change what is asked."""
    options = [
        click.option(
            "--time-limit", type=positive, metavar="SECONDS", help="Stop solving after this many seconds, too."
        ),
        click.option(
            "--work",
            type=positive,
            metavar="NUMBER",
            default="1",
            show_default=True,
            help="Effort of search and bounds over the default; the plan depends on it and the seed, not on the clock.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            metavar="N",
            default=0,
            show_default=True,
            help="Of every random choice.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(0, 1024),
            metavar="N",
            default=0,
            show_default=True,
            help="Processes or threads; 0 takes one per core. Does not change the plan.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["processes", "threads", "sequential", "ray"]),
            help="What solves layers in parallel. Default: processes, but threads where there is little to do.",
        ),
    ]
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), function)


def solve_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that make a SolveOptions, all but --trace."""
    degree = click.IntRange(1, _MOST)
    options = [
        click.option(
            "--phase",
            type=click.Choice(["serving", "decode", "prefill", "train"]),
            help="What expert placement is priced for. Default: serving, which is decode and prefill as they count in "
            "tokens/s; train for training.",
        ),
        click.option(
            "--objective",
            type=click.Choice(["time", "load", "traffic"]),
            help="Least MoE-layer time, least largest GPU load, or least bytes between nodes. Default: time, or load "
            "where only counts are known.",
        ),
        click.option(
            "--strategy",
            default="auto",
            metavar="NAME",
            show_default=True,
            help="Solver, as 'placement strategies' lists them.",
        ),
        click.option(
            "--redundant", type=redundant_experts, metavar="N|auto", help="Redundant experts per MoE layer, or auto."
        ),
        click.option(
            "--dispatch",
            type=click.Choice(["even", "nearest", "planned"]),
            help="Which copy of an expert serves a token.",
        ),
        click.option(
            "--message-rule",
            type=click.Choice(["per_expert", "per_rank", "per_node"]),
            help="What a token is sent once per.",
        ),
        click.option(
            "--keep-groups/--no-keep-groups",
            default=None,
            help="Keep all copies of an expert group on one node (group-limited routing). Default: the scenario's.",
        ),
        click.option("--tp", type=degree, metavar="N", help="Pin the tensor-parallel degree."),
        click.option("--ep", type=degree, metavar="N", help="Pin the expert-parallel degree."),
        click.option("--pp", type=degree, metavar="N", help="Pin the pipeline stages."),
        click.option("--dp", type=degree, metavar="N", help="Pin the attention data-parallel degree of an instance."),
        click.option("--batch", type=degree, metavar="N", help="Pin the sequences per attention rank."),
        click.option(
            "--holdout/--no-holdout",
            default=None,
            help="Solve on the first half of each trace's sequences and report on the second. Default: where possible.",
        ),
        click.option(
            "--windows",
            type=click.IntRange(1, 10_000),
            metavar="N",
            help="Load windows per trace. Default: three in all to solve on, one per trace to judge on.",
        ),
        click.option(
            "--tail",
            type=click.FloatRange(0.0, 1.0),
            metavar="SHARE",
            default=1.0,
            show_default=True,
            help="Look at the worst share of the windows only: 1 their mean, 0 the worst window.",
        ),
        click.option(
            "--balance-floor/--no-balance-floor",
            default=True,
            help="Keep the plan at least as balanced as the load balancers' placements. Default: on.",
        ),
    ]
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), effort_options(function))


def trace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --trace (also --loads), repeatable."""
    option = click.option(
        "--trace",
        "--loads",
        "traces",
        multiple=True,
        metavar="FILE",
        help="Recorded routing: a trace (.npz), or load counts (.npz, .npy, FILE::KEY). Repeatable. "
        "Default: synthetic routing.",
    )
    wrapped: Callable[..., Any] = option(function)
    return wrapped
