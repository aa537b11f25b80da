"""How a cluster is commonly split by hand, each recipe at its best batch and sizes in the same cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.cost.step.roles import Role, kv_bytes_per_request
from placement.errors import InfeasibleError, InputError, NothingFoundError
from placement.problem.split import Split
from solvers.deploy.columns import list_columns, pool_of
from solvers.deploy.problem import Column, MasterProblem
from solvers.deploy.solve import solve_master
from solvers.split.enumerate import enumerate_splits
from specs.scenario import Pins, Scenario


@dataclass(frozen=True)
class Recipe:
    """A way to split by hand.

    Attributes:
        pins: choices of degrees, of which the best feasible counts; for each role that it runs.
        source: where it comes from.
    """

    name: str
    pins: tuple[tuple[Role, tuple[Pins, ...]], ...]
    source: str


@dataclass(frozen=True)
class Yield:
    """What a way to split yields on the whole cluster.

    Attributes:
        tokens_per_s: None where nothing of it is feasible, and then why. kinds: columns in use with their counts, or
            a training split.
    """

    name: str
    tokens_per_s: float | None
    kinds: tuple[tuple[Column, int], ...] = ()
    split: Split | None = None
    why: str = ""


def powers(most: int) -> list[int]:
    """Powers of two up to `most`."""
    return [2**i for i in range(most.bit_length()) if 2**i <= most]


def recipes_of(scenario: Scenario) -> tuple[Recipe, ...]:
    """The hand recipes of a scenario's node size: TP alone, EP alone, the largest power of two, what was published."""
    m = scenario.cluster.gpus_per_node
    fits = [size for size in powers(m) if m % size == 0]
    largest = max(fits)
    whole: Role = "aggregated"
    training = scenario.workload.kind == "training"
    deep = [d for d in powers(scenario.model.layers) if scenario.model.layers % d == 0] if training else [1]
    found = [
        Recipe("TP only", ((whole, tuple(Pins(tp=t, dp=1, ep=1, pp=p) for t in fits for p in deep)),), "a default"),
        Recipe(
            "EP only", ((whole, tuple(Pins(tp=1, dp=d, ep=d, pp=p) for d in fits if d > 1 for p in deep)),),
            "attention data-parallel, experts over the same GPUs",
        ),
        Recipe(
            "largest power of two",
            ((whole, tuple(Pins(tp=largest, dp=1, ep=e, pp=p) for e in (1, largest) for p in deep)),),
            "all GPUs of a node that a power of two reaches",
        ),
    ]  # fmt: skip
    published = PUBLISHED.get((scenario.model.name, m))
    return (*found, published) if published is not None else tuple(found)


#: Published deployments by model and node size.
PUBLISHED = {
    ("gpt_oss_120b", 72): Recipe(
        "published: one GPU an instance", (("aggregated", (Pins(tp=1, dp=1, ep=1, pp=1),)),),
        "TensorRT-LLM, perf-overview.md: GB200, TP 1",
    ),
    ("deepseek_r1", 72): Recipe(
        "published: prefill EP 4, decode EP 36 or 72",
        (
            ("prefill", tuple(Pins(tp=1, dp=d, ep=d, pp=1) for d in (2, 4))),
            ("decode", tuple(Pins(tp=1, dp=d, ep=d, pp=1) for d in (36, 72))),
        ),
        "SGLang on GB200 (2025-09-25): prefill on 2 to 4 GPUs, decode on 48; here the divisors of a rack beside 48",
    ),
    ("moe_175b", 8): Recipe(
        "published: TP 8, PP 8 to 16",
        (("aggregated", tuple(Pins(tp=8, dp=1, ep=e, pp=p) for e in (1, 8) for p in (8, 16))),),
        "Megatron-LM, arXiv 2104.04473, 175B on A100",
    ),
}  # fmt: skip


def recipe_yield(scenario: Scenario, recipe: Recipe) -> Yield:
    """The best of a recipe's choices."""
    if scenario.workload.kind == "training":
        return _training(scenario, recipe.name, [pins for _, choices in recipe.pins for pins in choices])
    columns: list[Column] = []
    reasons: list[str] = []
    for role, choices in recipe.pins:
        for pins in choices:
            try:
                found = list_columns([scenario], (role,), pins, None)
            except InputError as error:
                reasons.append(error.problem)
                continue
            columns += found.columns
            reasons += [each.reason for each in found.dropped if "slower" not in each.reason]
    return _best(scenario, recipe.name, columns, reasons)


def solved_yield(scenario: Scenario, name: str, roles: Sequence[Role]) -> Yield:
    """The optimizer's answer over all columns of some roles."""
    if scenario.workload.kind == "training":
        return _training(scenario, name, [scenario.pins])
    found = list_columns([scenario], roles, scenario.pins, None)
    return _best(scenario, name, list(found.columns), [each.reason for each in found.dropped])


def _best(scenario: Scenario, name: str, columns: list[Column], reasons: list[str]) -> Yield:
    workload = scenario.workload
    if workload.kind != "serving" or not columns:
        return Yield(name, None, why=reasons[0] if reasons else "no split has these degrees")
    problem = MasterProblem((pool_of(scenario),), tuple(columns), kv_bytes_per_request(scenario))
    try:
        found = solve_master(problem)
    except (InfeasibleError, NothingFoundError) as error:
        return Yield(name, None, why=str(error))
    if found.requests_per_s <= 0:
        return Yield(name, None, why="; ".join(dict.fromkeys(reasons)) or "one role has no feasible split")
    kinds = tuple((c, n) for c, n in zip(columns, found.counts, strict=True) if n)
    return Yield(name, found.requests_per_s * workload.osl, kinds)


def _training(scenario: Scenario, name: str, choices: Sequence[Pins]) -> Yield:
    best = Yield(name, None, why="no split has these degrees")
    for pins in choices:
        try:
            choice = enumerate_splits(scenario, pins)
        except (InputError, InfeasibleError) as error:
            if best.tokens_per_s is None:
                best = replace(best, why=str(error))
            continue
        rate = choice.prediction.tokens_per_s
        if best.tokens_per_s is None or rate > best.tokens_per_s:
            best = Yield(name, rate, split=choice.best)
    return best
