"""How a prompt and a decode batch are cut into passes of an attention rank."""

from __future__ import annotations

from specs.workload import ServingWorkload


def prefill_budget(workload: ServingWorkload, tp: int) -> float:
    """Most tokens of one attention rank in a prefill pass: prefill_tokens_per_gpu on each of tp GPUs.

    Longer prompts take several passes, short ones that arrive together share one.
    """
    return float(workload.prefill_tokens_per_gpu * tp)


def decode_microbatches(pp: int, batch: int) -> int:
    """Microbatches of an attention rank that decode at once: one for each stage, while there are sequences."""
    return min(pp, batch)


def decode_context(workload: ServingWorkload) -> float:
    """Mean stored tokens of a sequence while it decodes."""
    return workload.isl + workload.osl / 2
