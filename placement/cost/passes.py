"""How a prompt and a decode batch are cut into passes of an attention rank."""

from __future__ import annotations

from specs.schema import ServingWorkload


def prefill_chunks(workload: ServingWorkload, tp: int) -> int:
    """Passes that a prompt takes in chunks of at most prefill_tokens_per_gpu tokens on each of tp GPUs."""
    return -(-workload.isl // (workload.prefill_tokens_per_gpu * tp))


def prefill_pass_tokens(workload: ServingWorkload, tp: int) -> float:
    """Tokens of one attention rank in a prefill pass: a prompt, or an equal part of it. Prompts are not joined."""
    return workload.isl / prefill_chunks(workload, tp)


def decode_microbatches(pp: int, batch: int) -> int:
    """Microbatches of an attention rank that decode at once: one for each stage, while there are sequences."""
    return min(pp, batch)


def decode_context(workload: ServingWorkload) -> float:
    """Mean stored tokens of a sequence while it decodes."""
    return workload.isl + workload.osl / 2
