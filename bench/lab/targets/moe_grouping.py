"""Where a model's experts lie: by a hash, together where they are used together, balanced, and solved."""

from __future__ import annotations

from dataclasses import dataclass

from bench.lab.target import LabCase, Outcome, Target, option


@dataclass(frozen=True)
class Options:
    """Extra arguments."""

    windows: int = option(8, "Stretches of the judging routing whose tail is told.", least=2, most=64)


def baseline(case: LabCase[Options]) -> Outcome:
    """Experts by a hash, as a load-unaware system spreads them."""
    from bench.lab.grouping.study import study

    return study(case, case.options.windows).hashed()


def optimized(case: LabCase[Options]) -> Outcome:
    """The best of all ways to group them."""
    from bench.lab.grouping.study import study

    return study(case, case.options.windows).best()


TARGET = Target(
    "moe_grouping",
    "Experts grouped by hash, by locality, by balance, and solved: throughput, nodes per token, tail.",
    baseline,
    optimized,
    options=Options,
    spec="deepseek_v2_lite_h100_ib",
    example="--windows 4",
)
