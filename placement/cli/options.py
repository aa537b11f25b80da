"""Options that several commands share, under the library's names. Imports nothing heavy: --help is quick."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce, wraps
from typing import Any

import click

#: The scenario that is taken where none is named.
DEFAULT_SPEC = "gpt_oss_120b_gb200_ib"

#: Kept beside specs.engine's types (a test compares them) so that --help needs no import of the schema.
DISPATCH = ("even", "nearest", "planned", "token_hash", "sglang_static", "sglang_dynamic")
MESSAGE_RULES = ("per_expert", "per_rank", "per_node", "dense")

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
    """A positive number, of at most 1e9."""
    return _positive(value, 1e9)


def output_rate(value: str) -> float:
    """A rate that a cluster may be too small for, which is for the planner to say."""
    return _positive(value, 1e15)


def _positive(value: str, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number") from None
    if not (math.isfinite(number) and number > 0):
        raise click.BadParameter(f"{value} is not a positive number")
    if number > most:
        raise click.BadParameter(f"{value} is too large; give at most {most:g}".replace("e+0", "e").replace("e+", "e"))
    return number


def share(value: str) -> float:
    """A share from 0 to 1, as a number or in percent."""
    try:
        number = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a share, such as 0.01, nor a percentage, such as 1%") from None
    if not 0 <= number <= 1:
        raise click.BadParameter(f"{value} is not in the range 0 to 1")
    return number


def scenario_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes out of `options` those that override the scenario (specs.overrides)."""
    from specs.overrides import OVERRIDES, read_settings

    overrides = {name: options.pop(name) for name in OVERRIDES if name in options}
    return {**overrides, "set": read_settings(options.pop("set", ()))}


def library_options(options: dict[str, Any]) -> dict[str, Any]:
    """What is left, as the library takes it: work and time limit as a Budget, a file of parameters as SearchParams."""
    from placement.planning.effort import Budget
    from solvers.params import SearchParams

    budget = Budget(**{name: options.pop(name) for name in ("work", "time_limit", "gap") if name in options})
    if options.get("params") is not None:
        options["params"] = SearchParams.load(options["params"])
    return {**options, "budget": budget}


def stacked(*options: Callable[..., Any]) -> Callable[..., Any]:
    """One decorator for several options, listed in this order by --help."""
    return lambda function: reduce(lambda wrapped, option: option(wrapped), reversed(options), function)


#: How long and with what to search; these don't change what is asked.
effort_options = stacked(
    click.option("--time-limit", type=positive, metavar="SECONDS", help="Stop solving after this many seconds, too."),
    click.option(
        "--work", type=positive, metavar="NUMBER", default="1", show_default=True,
        help="Effort of search and bounds over the default; the plan depends on it and the seed, not on the clock.",
    ),
    click.option(
        "--gap", type=share, metavar="SHARE", default="1%", show_default=True,
        help="Search nothing where a heuristic is proven within this share of tokens/s, or within what a search "
        "would have to gain to count. 0 searches everything.",
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**63 - 1), metavar="N", default=0, show_default=True,
        help="Of every random choice.",
    ),
    click.option(
        "--workers", type=click.IntRange(0, 1024), metavar="N", default=0, show_default=True,
        help="Processes or threads; 0 takes one per core. Does not change the plan.",
    ),
    click.option(
        "--backend", type=click.Choice(["processes", "threads", "sequential", "ray"]),
        help="What solves layers in parallel. Default: processes, but threads where there is little to do.",
    ),
)  # fmt: skip

_COUNT = click.IntRange(1, _MOST)

#: Kept beside specs.speculation and specs.fields (a test compares them), as DISPATCH is.
DRAFT_METHODS = ("mtp", "eagle3", "draft_model", "ngram")
KV_TYPES = ("bf16", "fp16", "fp8", "int8", "nvfp4", "mxfp4")

#: What users switch to serve more of the same model on the same GPUs.
lever_options = stacked(
    click.option(
        "--draft", type=click.IntRange(1, 64), metavar="N",
        help="Speculative decoding: tokens drafted for each sequence in a step; needs --acceptance or --accepted.",
    ),
    click.option("--acceptance", type=share, metavar="SHARE", help="Chance that a drafted token is accepted."),
    click.option(
        "--accepted", type=positive, metavar="TOKENS",
        help="Instead: drafted tokens accepted in a step, on average (engines' accepted length, less 1).",
    ),
    click.option(
        "--draft-method", type=click.Choice(DRAFT_METHODS),
        help="What drafts: the model's next-token module, a trained head, a smaller model, or a look-up. Default: mtp.",
    ),
    click.option(
        "--prefix-hit", type=share, metavar="SHARE", help="Share of input tokens that lie in the prefix cache."
    ),
    click.option(
        "--chunk-tokens", type=_COUNT, metavar="N", help="Most tokens of an attention rank in a prefill pass."
    ),
    click.option("--kv-type", type=click.Choice(KV_TYPES), help="Data type of the KV cache."),
    click.option(
        "--cuda-graphs/--no-cuda-graphs", default=None,
        help="Run decode steps as captured CUDA graphs, or launch kernel by kernel. Default: captured.",
    ),
)  # fmt: skip

#: What changes the scenario's model, cluster and workload; and --set, which changes any field.
variant_options = stacked(
    click.option(
        "--model", metavar="NAME|FILE|DIR",
        help="Another model: of the catalog, in a YAML file, or a Hugging Face folder or config.json.",
    ),
    click.option("--cluster", metavar="NAME|FILE", help="Another cluster."),
    click.option("--nodes", type=_COUNT, metavar="N", help="Nodes of the cluster."),
    click.option("--isl", type=_COUNT, metavar="TOKENS", help="Input tokens of a request."),
    click.option("--osl", type=_COUNT, metavar="TOKENS", help="Output tokens of a request."),
    click.option("--ttft-ms", type=positive, metavar="MS", help="Objective: time to the first token."),
    click.option("--tpot-ms", type=positive, metavar="MS", help="Objective: time per further token."),
    lever_options,
    click.option(
        "--set", multiple=True, metavar="PATH=VALUE",
        help="Give a field another value, such as model.types.experts=fp8 or cluster=h200_hgx_ib; "
        "'placement specs schema' lists the fields. Repeatable.",
    ),
)  # fmt: skip

engine_option = click.option(
    "--engine", metavar="NAME[:BACKEND]",
    help="Serving engine of the catalog (or a file) with its all-to-all backend, such as sglang:deepep.",
)  # fmt: skip


def _level(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    """Sets `verbose`: 1 with -v, -1 with -q, else 0."""
    level = ctx.params.setdefault("verbose", 0)
    if given and level:
        raise click.UsageError("-q and -v exclude each other; leave one of them out", ctx)
    if given:
        ctx.params["verbose"] = 1 if option.name == "more" else -1


#: How much a screen says.
screen_options = stacked(
    click.option(
        "-v", "--verbose", "more", is_flag=True, expose_value=False, callback=_level,
        help="Also memory by line, what nodes hold, what was left out, and where the time went.",
    ),
    click.option("-q", "--quiet", "less", is_flag=True, expose_value=False, callback=_level, help="The answer alone."),
)  # fmt: skip

explain_option = click.option(
    "--explain", is_flag=True,
    help="Also say what looser limits, more memory, faster links or another node would buy; takes longer.",
)  # fmt: skip


def plan_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The plan file, as an argument or by --plan; the command is called with `plan_path`."""

    @wraps(function)
    def called(plan: str | None, plan_option: str | None, **options: Any) -> Any:
        if plan is not None and plan_option is not None:
            raise click.UsageError("the plan is given twice; give PLAN or --plan", click.get_current_context())
        path = plan if plan is not None else plan_option
        if path is None:
            raise click.UsageError("no plan; give the plan file, as solve writes it", click.get_current_context())
        return function(plan_path=path, **options)

    both = stacked(
        click.argument("plan", required=False),
        click.option("--plan", "plan_option", metavar="FILE", help="The plan file, if it is not given as PLAN."),
    )
    wrapped: Callable[..., Any] = both(called)
    return wrapped


quiet_option = click.option("-q", "--quiet", is_flag=True, help="The figures alone, and no progress.")

role_option = click.option(
    "--role", type=click.Choice(["prefill", "decode", "aggregated"]),
    help="Which role of a plan that has several.",
)  # fmt: skip

current_option = click.option(
    "--current", metavar="FILE",
    help="The engine's own file of what runs, in any format of 'placement export'.",
)  # fmt: skip

degrees_option = click.option(
    "--degrees", type=click.Choice(["usual", "any"]),
    help="Degrees that are tried where none is pinned: those that somebody runs (powers of two, and stages of a "
    "multiple of 8 GPUs), or any that the engine loads. Default: the scenario's, which is usual if it says nothing.",
)  # fmt: skip

#: Degrees that are fixed; prefill and decode instances may have their own.
pin_options = stacked(
    *(
        click.option(f"--{name}", type=_COUNT, metavar="N", help=f"Pin the {what}.")
        for name, what in (
            ("tp", "tensor-parallel degree"), ("ep", "expert-parallel degree"), ("pp", "pipeline stages"),
            ("dp", "attention data-parallel degree of an instance"), ("batch", "sequences per attention rank"),
        )
    ),
    *(
        click.option(
            f"--{role}-{name}", type=_COUNT, metavar="N",
            help=f"Pin {name.upper() if name != 'batch' else name} of {role} instances alone.",
        )
        for role in ("prefill", "decode")
        for name in ("tp", "ep", "pp", "dp", *(("batch",) if role == "decode" else ()))
    ),
    click.option(
        "--prefill-cp", type=_COUNT, metavar="N",
        help="Pin the attention ranks that share a prompt in prefill instances (context parallelism).",
    ),
)  # fmt: skip

#: Which instances may be chosen.
instance_options = stacked(
    click.option(
        "--mode", type=click.Choice(["auto", "aggregated", "disaggregated"]), default="auto", show_default=True,
        help="Instances that serve whole requests, that prefill or decode, or whichever serve more.",
    ),
    click.option(
        "--max-kinds", type=click.IntRange(1, 64), metavar="N", default=2, show_default=True,
        help="Most kinds of instances: 2 are one that prefills and one that decodes.",
    ),
    click.option(
        "--pool", "pools", multiple=True, metavar="CLUSTER", help="A further pool of other GPUs. Repeatable."
    ),
    click.option(
        "--target-rate", type=output_rate, metavar="TOKENS/S", help="Reach this output rate with the fewest GPUs."
    ),
    click.option(
        "--placed/--balanced", default=True, show_default=True,
        help="Price splits with quickly placed experts, or take experts as balanced.",
    ),
    click.option(
        "--kernel-tables", is_flag=True,
        help="Price splits with measured times of expert kernels where there are any ([kernels] extra).",
    ),
)  # fmt: skip

#: Who asks when; kept beside placement.planning.demand.Asked.
demand_options = stacked(
    click.option(
        "--rate", type=positive, metavar="REQUESTS/S", help="Serve so many requests/s, at random, with the fewest GPUs."
    ),
    click.option(
        "--concurrency", type=click.IntRange(1, 1_000_000), metavar="N",
        help="Serve so many requests in flight with the fewest GPUs.",
    ),
    click.option(
        "--arrivals", metavar="FILE", help="Serve the requests of a CSV file: columns arrival_s, isl and osl."
    ),
    click.option(
        "--simulate/--no-simulate", default=None,
        help="Simulate arrivals: TTFT and TPOT at the mean and at p95. Default: where there is a demand.",
    ),
    click.option(
        "--load-balance", type=click.Choice(["planned", "random", "round_robin", "least_loaded"]), default="planned",
        show_default=True,
        help="Which rank gets a simulated request; planned: by chance if it only prefills, else in turn.",
    ),
)  # fmt: skip


def demand_asked(options: dict[str, Any]) -> Any:
    """Takes the demand out of `options`: a placement.planning.demand.Asked.

    Raises:
        InputError: Values that exclude each other, or arrivals that can't be read.
    """
    from placement.errors import ParameterError
    from placement.planning.demand import Asked
    from placement.records.arrivals import read_arrivals

    told = {name: options.pop(name) for name in ("rate", "concurrency", "arrivals", "simulate", "load_balance")}
    if told["arrivals"] is not None:
        for name in ("isl", "osl"):
            if options[name] is not None:
                raise ParameterError(name, "it and `arrivals` exclude each other", "leave one of the two out")
        told["arrivals"] = read_arrivals(told["arrivals"])
    return Asked(**told)


#: All of a solve but --trace.
solve_options = stacked(
    click.option(
        "--phase", type=click.Choice(["serving", "decode", "prefill", "train"]),
        help="What expert placement is priced for. Default: serving, which is decode and prefill as they count in "
        "tokens/s; train for training.",
    ),
    click.option(
        "--objective", type=click.Choice(["time", "load", "traffic"]),
        help="Least MoE-layer time, least largest GPU load, or least bytes between nodes. Default: time, or load "
        "where only counts are known.",
    ),
    click.option(
        "--strategy", default="auto", metavar="NAME", show_default=True,
        help="Solver, as 'placement strategies' lists them.",
    ),
    click.option(
        "--redundant", type=redundant_experts, metavar="N|auto", help="Redundant experts per MoE layer, or auto."
    ),
    click.option(
        "--redundant-by-layer", is_flag=True,
        help="Let the layers of a stage share its redundant experts: the same slots in all, more where they gain more.",
    ),
    click.option(
        "--dispatch", type=click.Choice(DISPATCH),
        help="Which copy of an expert serves a token. Default: the engine's.",
    ),
    click.option(
        "--message-rule", type=click.Choice(MESSAGE_RULES),
        help="What a token is sent once per, in every phase. Default: the engine's, for each phase.",
    ),
    click.option(
        "--keep-groups/--no-keep-groups", default=None,
        help="Keep all copies of an expert group on one node (group-limited routing). Default: the scenario's.",
    ),
    pin_options,
    degrees_option,
    instance_options,
    click.option(
        "--holdout/--no-holdout", default=None,
        help="Solve on the first half of each trace's sequences and report on the second. Default: where possible.",
    ),
    click.option(
        "--windows", type=click.IntRange(1, 10_000), metavar="N",
        help="Load windows per trace. Default: three in all to solve on, one per trace to judge on.",
    ),
    click.option(
        "--tail", type=click.FloatRange(0.0, 1.0), metavar="SHARE", default=1.0, show_default=True,
        help="Look at the worst share of the windows only: 1 their mean, 0 the worst window.",
    ),
    click.option(
        "--balance-floor/--no-balance-floor", default=True,
        help="Keep the plan at least as balanced as the load balancers' placements. Default: on.",
    ),
    click.option("--params", metavar="FILE", help="Parameters of the search: YAML or JSON of SearchParams."),
    engine_option,
    effort_options,
    variant_options,
)  # fmt: skip

trace_option = click.option(
    "--trace", "--loads", "traces", multiple=True, metavar="FILE",
    help="Recorded routing: a trace (.npz), or load counts (.npz, .npy, FILE::KEY). Repeatable. "
    "Default: synthetic routing.",
)  # fmt: skip
