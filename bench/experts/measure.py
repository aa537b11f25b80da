"""Every GPU of a plan played by one device, and the roofline f(n) beside it. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bench.alltoall.concrete import draw_slots
from bench.alltoall.prepare import Layout, Sample
from bench.experts.gemm import Products, Shape
from bench.experts.kernels import ProductType, device_name, library_of
from placement.problem.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Point:
    """One point of f(n): seconds of a slot with n tokens, all slots of the GPU alike."""

    tokens: int
    measured_us: float
    fitted_us: float
    catalog_us: float | None


@dataclass(frozen=True)
class Curve:
    """f(n) = max(weight_us, n * token_us): measured, fitted to its two ends, and as the catalog's GPU has it.

    Attributes:
        fitted_error, catalog_error: median of |f(n) / measured - 1| over the points.
        catalog_error is None where the dimensions or the type are not the model's.
    """

    slots: int
    weight_us: float
    token_us: float
    points: tuple[Point, ...]
    fitted_error: float
    catalog_error: float | None


@dataclass(frozen=True)
class LayerTime:
    """One layer under one layout: `largest_us` over the plan's GPUs is the layer's measured compute time."""

    layer: int
    layout: str
    largest_us: float
    mean_us: float
    slowest_gpu: int
    predicted_us: float
    token_balancedness: float


@dataclass(frozen=True)
class Played:
    """All that was measured."""

    times: tuple[LayerTime, ...]
    curves: tuple[Curve, ...]
    device: str


@dataclass(frozen=True)
class Effort:
    """Runs before the clock, and timed ones, of which the median counts."""

    warmup: int
    repeats: int
    seed: int


def play(
    layouts: Sequence[Layout], layers: Sequence[int], names: Sequence[int], sample: Sample, hidden: int, width: int,
    kind: ProductType, device: torch.device, effort: Effort, as_priced: bool, tell: Callable[[str], None],
) -> Played:  # fmt: skip
    """Times every GPU's experts under every layout.

    Args:
        layers: positions of MoE layers; names: their indices in the model.
        hidden, width: an expert's dimensions as run. as_priced: whether they and `kind` are the model's.
    """
    counts = {
        (place, layout.name): _counts(layout, place, position, sample, effort.seed)
        for place, position in enumerate(layers)
        for layout in layouts
    }
    products: dict[int, Products] = {}
    curves: dict[int, Curve] = {}
    for layout in layouts:
        slots = layout.problems[0].hardware.slots_per_gpu
        if slots not in products:
            own = [each for (_, name), each in counts.items() if name == layout.name]
            largest = max(1, max(int(each.max()) for each in own))
            # f(n) goes as far as any slot does: beyond its last point it would be a guess.
            most = max(slots * largest, max(int(each.sum(axis=1).max()) for each in counts.values()))
            products[slots] = Products(Shape(hidden, width, slots), library_of(kind), kind, device, most, effort.seed)
            tell(f"f(n) with {slots} slots")
            curves[slots] = _curve(products[slots], layout, largest, effort, as_priced and device.type == "cuda")
    times = []
    for place, layer in enumerate(names):
        for layout in layouts:
            tell(f"layer {layer}: {layout.name}")
            slots = layout.problems[0].hardware.slots_per_gpu
            times.append(_layer_time(layer, layout.name, counts[place, layout.name], products[slots], curves[slots],
                                     effort))  # fmt: skip
    return Played(tuple(times), tuple(curves.values()), device_name(device))


def _counts(layout: Layout, place: int, position: int, sample: Sample, seed: int) -> IntArray:
    """[gpus, slots_per_gpu] tokens of each slot."""
    problem = layout.problems[place]
    ids = sample.trace.topk_ids[position].astype(np.int64)
    served = draw_slots(
        problem, layout.slots[place], layout.fractions[place], ids, sample.home, seed * 1_009 + position
    )
    return np.bincount(served.reshape(-1), minlength=problem.slots).reshape(problem.topology.gpus, -1)


def _layer_time(layer: int, name: str, counts: IntArray, products: Products, curve: Curve, effort: Effort) -> LayerTime:
    # GPUs whose slots have the same counts take the same time.
    distinct, which = np.unique(np.sort(counts, axis=1), axis=0, return_inverse=True)
    each = np.array([products.timed(row, effort.warmup, effort.repeats).median_s for row in distinct]) * 1e6
    by_gpu = each[which.reshape(-1)]
    work = np.where(counts > 0, np.maximum(curve.weight_us, counts * curve.token_us), 0.0).sum(axis=1)
    tokens = counts.sum(axis=1)
    return LayerTime(
        layer, name, float(by_gpu.max()), float(by_gpu.mean()), int(by_gpu.argmax()), float(work.max()),
        float(tokens.mean() / tokens.max()),
    )  # fmt: skip


def _curve(products: Products, layout: Layout, largest: int, effort: Effort, with_catalog: bool) -> Curve:
    slots, rates = products.shape.slots, layout.problems[0].hardware.rates
    tokens = np.unique(np.r_[2 ** np.arange(largest.bit_length()), largest])
    seconds = np.array(
        [products.timed(np.full(slots, n), effort.warmup, effort.repeats).median_s / slots for n in tokens]
    )
    measured: FloatArray = seconds * 1e6
    weight_us, token_us = float(measured[0]), float(measured[-1] / tokens[-1])
    fitted = np.maximum(weight_us, tokens * token_us)
    catalog = np.maximum(rates.weight_s, tokens * rates.token_s) * 1e6
    return Curve(
        slots, weight_us, token_us,
        tuple(
            Point(int(n), float(m), float(f), float(c) if with_catalog else None)
            for n, m, f, c in zip(tokens, measured, fitted, catalog, strict=True)
        ),
        float(np.median(np.abs(fitted / measured - 1))),
        float(np.median(np.abs(catalog / measured - 1))) if with_catalog else None,
    )  # fmt: skip
