"""What fills HBM, what frees it, and what that buys in batch and tokens/s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.lab.target import LabCase, Outcome, Target, option


@dataclass(frozen=True)
class Options:
    """Extra arguments."""

    kv: Literal["keep", "fp8", "nvfp4"] = option("fp8", "Type of the KV cache to try, where the engine stores it.")
    experts: Literal["keep", "fp8", "nvfp4", "mxfp4"] = option(
        "keep", "Type of the experts to try: needs a checkpoint in it."
    )
    validate: bool = option(False, "Count parameters and KV again, and check capacity, divisibility, engine rules.")


def baseline(case: LabCase[Options]) -> Outcome:
    """The plan's HBM by line."""
    return _side(case, freed=False)


def optimized(case: LabCase[Options]) -> Outcome:
    """HBM after the steps that cost no tokens/s."""
    return _side(case, freed=True)


def _side(case: LabCase[Options], freed: bool) -> Outcome:
    from bench.lab.memory.study import Asked, outcome

    options = case.options
    return outcome(case, Asked(options.kv, options.experts), freed, options.validate)


TARGET = Target(
    "memory_budget",
    "HBM by line on the fullest GPU of each role; what frees it, and what that buys in batch and tokens/s.",
    baseline,
    optimized,
    options=Options,
    example="--validate",
)
