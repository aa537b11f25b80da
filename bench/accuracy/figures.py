"""Predicted figures of one measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Predicted seconds."""

    tpot_s: float
    ttft_s: float
