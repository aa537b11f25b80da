"""Pipelines to run orders on."""

from __future__ import annotations

from placement.cost.training.schedule.pipe import PassSeconds, Pipe


def even_pipe(devices: int, pieces: int, forward_s: float, input_s: float, weight_s: float) -> Pipe:
    """Equal pieces without messages that keep one byte for each microbatch until its weight pass has run."""
    return Pipe(
        passes=(PassSeconds(forward_s, input_s, weight_s),) * pieces,
        transfer_s=(0.0,) * (pieces - 1),
        kept_bytes=(1.0,) * pieces,
        operand_bytes=(1.0,) * pieces,
        fixed_bytes=(0.0,) * devices,
        capacity_bytes=float("inf"),
    )
