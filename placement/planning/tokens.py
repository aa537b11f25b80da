"""How many tokens of synthetic routing there is time for."""

from __future__ import annotations

import time

from placement.routing.holdout import synthetic_source
from specs.scenario import Scenario

#: Fewer tokens say nothing of which experts are used together.
LEAST_TOKENS = 512


def with_tokens(scenario: Scenario, tokens: int) -> Scenario:
    """The scenario with so many tokens of synthetic routing, in sequences that are as long as they were."""
    knobs = scenario.routing
    sequences = max(2, round(knobs.sequences * tokens / knobs.tokens))
    return scenario.model_copy(
        update={"routing": knobs.model_copy(update={"tokens": tokens, "sequences": min(sequences, tokens)})}
    )


def affordable_tokens(scenario: Scenario, seconds: float, workers: int) -> int:
    """Tokens that so many threads synthesize for all layers in about so many seconds: LEAST_TOKENS to those asked for.

    One layer is made of few tokens and, where all layers may not fit, of more; the rest follows by a straight line.
    """
    full, layers = scenario.routing.tokens, len(scenario.model.moe_layers)
    if full <= LEAST_TOKENS:
        return full
    each = seconds / -(-layers // workers)
    # Twice, since the first one loads what is compiled.
    least = min(_seconds(scenario, LEAST_TOKENS) for _ in range(2))
    if least * full / LEAST_TOKENS <= each:
        return full
    more = min(full, 4 * LEAST_TOKENS)
    rate = (more - LEAST_TOKENS) / max(_seconds(scenario, more) - least, 1e-9)
    return int(min(full, max(0.0, each - least) * rate + LEAST_TOKENS))


def _seconds(scenario: Scenario, tokens: int) -> float:
    """What one layer of so many tokens takes."""
    model = scenario.model.model_copy(update={"layers": 1, "dense_layers": ()})
    began = time.monotonic()
    synthetic_source(with_tokens(scenario, tokens).model_copy(update={"model": model}), 0)
    return time.monotonic() - began
