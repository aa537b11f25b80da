"""The 16-norm, compiled: a smooth stand-in for the largest of several costs."""

from __future__ import annotations

import numpy as np

from placement.kernels import inlined


@inlined
def power_16(x: float) -> float:
    """x ** 16."""
    x *= x
    x *= x
    x *= x
    return x * x


@inlined
def root_16(x: float) -> float:
    """x ** (1 / 16)."""
    return float(np.sqrt(np.sqrt(np.sqrt(np.sqrt(x)))))
