"""Measures f(n) of the recorded cases on one device. Imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.experts.gemm import Products, Shape
from bench.experts.kernels import ProductType, check_kind
from bench.experts.recorded import Case, Curve, Point

#: Where the kernel module of NVIDIA's driver says its version.
_DRIVER = Path("/sys/module/nvidia/version")
#: (hidden, width) on a CPU, where only the command is tried.
_SMALL = (64, 32)


def driver_version() -> str:
    """Of the NVIDIA driver; "none" where there is none."""
    return _DRIVER.read_text().strip() if _DRIVER.exists() else "none"


def case_curve(case: Case, device: torch.device, most: int, warmup: int, repeats: int, seed: int) -> Curve:
    """f(n) of a case up to `most` tokens a slot; on a CPU divided dimensions in fp32, to try the command.

    Raises:
        InputError, MissingExtraError: the device has no kernels for the case's type.
    """
    (hidden, width), library = case.dimensions(), case.library
    kind: ProductType = case.kind
    if device.type == "cpu":
        (hidden, width), library, kind = _SMALL, "torch", "fp32"
    check_kind(library, kind, device)
    tokens = case.tokens(most)
    products = Products(Shape(hidden, width, case.slots), library, kind, device, tokens[-1] * case.slots, seed)
    points = []
    for n in tokens:
        found = products.timed(np.full(case.slots, n), warmup, repeats)
        points.append(
            Point(tokens=n, us=found.median_s / case.slots * 1e6, spread=found.spread, clock_mhz=found.clock_mhz)
        )
    return Curve(case=case, points=tuple(points))
