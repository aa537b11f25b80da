"""How a cluster is commonly split for training by hand, each recipe at its best sizes in the same cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.errors import InfeasibleError, InputError
from placement.problem.split import Split
from solvers.deploy.rivals.layouts import powers
from solvers.split.enumerate import enumerate_splits
from specs.scenario import Pins, Scenario


@dataclass(frozen=True)
class Recipe:
    """A way to split by hand.

    Attributes:
        pins: choices of degrees, of which the best feasible counts. source: where it comes from.
    """

    name: str
    pins: tuple[Pins, ...]
    source: str


@dataclass(frozen=True)
class Yield:
    """What a way to split yields on the whole cluster.

    Attributes:
        tokens_per_s: None where nothing of it is feasible, and then why.
    """

    name: str
    tokens_per_s: float | None
    split: Split | None = None
    why: str = ""


def recipes_of(scenario: Scenario) -> tuple[Recipe, ...]:
    """The hand recipes of a scenario's node size: TP alone, EP alone, the largest power of two, what was published."""
    m = scenario.cluster.gpus_per_node
    fits = [size for size in powers(m) if m % size == 0]
    largest = max(fits)
    deep = [d for d in powers(scenario.model.layers) if scenario.model.layers % d == 0]
    found = [
        Recipe("TP only", tuple(Pins(tp=t, dp=1, ep=1, pp=p) for t in fits for p in deep), "a default"),
        Recipe(
            "EP only", tuple(Pins(tp=1, dp=d, ep=d, pp=p) for d in fits if d > 1 for p in deep),
            "attention data-parallel, experts over the same GPUs",
        ),
        Recipe(
            "largest power of two", tuple(Pins(tp=largest, dp=1, ep=e, pp=p) for e in (1, largest) for p in deep),
            "all GPUs of a node that a power of two reaches",
        ),
    ]  # fmt: skip
    published = PUBLISHED.get((scenario.model.name, m))
    return (*found, published) if published is not None else tuple(found)


#: Published splits by model and node size.
PUBLISHED = {
    ("moe_175b", 8): Recipe(
        "published: TP 8, PP 8 to 16", tuple(Pins(tp=8, dp=1, ep=e, pp=p) for e in (1, 8) for p in (8, 16)),
        "Megatron-LM, arXiv 2104.04473, 175B on A100",
    ),
}  # fmt: skip


def best_of(scenario: Scenario, name: str, choices: Sequence[Pins]) -> Yield:
    """The best split of some choices of degrees."""
    best = Yield(name, None, why="no split has these degrees")
    for pins in choices:
        try:
            choice = enumerate_splits(scenario, pins)
        except (InputError, InfeasibleError) as error:
            if best.tokens_per_s is None:
                best = Yield(name, None, why=str(error))
            continue
        rate = choice.prediction.tokens_per_s
        if best.tokens_per_s is None or rate > best.tokens_per_s:
            best = Yield(name, rate, choice.best)
    return best
