"""Rates of an attention rank apart from any service: prefill alone, decode alone, a queue of requests worked off."""

from __future__ import annotations

import math

from placement.cost.step.throughput import ServingModel


def prefill_tokens_per_s(model: ServingModel) -> float:
    """Input tokens/s of an attention rank that does nothing but full prefill passes."""
    return model.budget / model.full_pass.slowest_s


def decode_tokens_per_s(model: ServingModel, batch: int) -> float:
    """Output tokens/s of an attention rank that decodes `batch` sequences and never prefills."""
    return batch / model.decode_step_s(batch)


def queue_tokens_per_s(model: ServingModel, requests: int, batch: int) -> float:
    """Output tokens/s of an attention rank that works off its `requests`, all queued at once.

    Requests of one length end together, so at most `batch` of them run in each of as many waves as it takes, all of
    about the same size; every wave is prefilled in full passes, then decoded.
    """
    workload = model.workload
    waves = math.ceil(requests / batch)
    size = math.ceil(requests / waves)
    prefill_s = requests * workload.isl / prefill_tokens_per_s(model)
    decode_s = waves * workload.osl * model.decode_step_s(size)
    return requests * workload.osl / (prefill_s + decode_s)
