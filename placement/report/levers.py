"""What a scenario runs in, and what it has switched on of the levers that users have, in words for screens."""

from __future__ import annotations

from collections.abc import Iterator

from placement.report.units import grouped
from specs.scenario import Scenario
from specs.speculation import Speculation

_DRAFTS = {
    "mtp": "its next-token module",
    "eagle3": "an EAGLE-3 head",
    "draft_model": "a smaller model",
    "ngram": "look-ups in the sequence",
}


def lever_lines(scenario: Scenario) -> tuple[str, ...]:
    """One phrase for each lever that is set; none where none is."""
    return tuple(_levers(scenario))


def _levers(scenario: Scenario) -> Iterator[str]:
    workload = scenario.workload
    if workload.kind != "serving":
        return
    if workload.speculation is not None:
        yield _speculation(workload.speculation)
        if workload.speculation.method == "mtp" and not any("next-token" in part for part in scenario.model.left_out):
            yield f"{scenario.model.name} is not known to have a next-token module: name another --draft-method"
    if workload.prefix_hit:
        moved = "" if scenario.engine.decode_prefix_cache else "; KV caches move whole"
        yield f"prefix cache: {workload.prefix_hit:.1%} of input tokens found{moved}"
    if workload.chunk_tokens is not None:
        yield f"prefill in passes of at most {grouped(workload.chunk_tokens)} tokens of an attention rank"
    if not scenario.engine.cuda_graphs:
        yield "no CUDA graphs: decode steps wait for the host's launches"


def _speculation(told: Speculation) -> str:
    size = "" if told.parameters_b is None else f" ({told.parameters_b:g}B)"
    return (
        f"speculative decoding by {_DRAFTS[told.method]}{size}: {told.draft} drafted in a step, "
        f"{told.mean_accepted:.2f} accepted (assumed)"
    )


def types_in_words(scenario: Scenario) -> str:
    """The data types that the model runs in; the engine is named where it chose what experts are multiplied in."""
    types, own = scenario.types, scenario.model.types
    chosen = own.compute is None and types.multiplied != types.experts
    by = f" ({scenario.engine.label} by default)" if chosen else ""
    return (
        f"{types.experts} experts, {types.dense} other weights, {types.multiplied} expert products{by}, "
        f"{types.kv_cache} KV"
    )


def left_out(scenario: Scenario) -> tuple[str, ...]:
    """What of the checkpoint is not planned; a next-token module that drafts is."""
    workload, parts = scenario.workload, scenario.model.left_out
    told = workload.speculation if workload.kind == "serving" else None
    if told is None or told.method != "mtp":
        return parts
    return tuple(part for part in parts if "next-token" not in part)
