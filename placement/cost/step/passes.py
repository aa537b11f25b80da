"""How a prompt and a decode batch are cut into passes of an attention rank."""

from __future__ import annotations

from specs.workload import ServingWorkload


def decode_microbatches(pp: int, batch: int) -> int:
    """Microbatches of an attention rank that decode at once: one for each stage, while there are sequences."""
    return min(pp, batch)


def decode_context(workload: ServingWorkload) -> float:
    """Mean stored tokens of a sequence while it decodes."""
    return workload.isl + workload.osl / 2
