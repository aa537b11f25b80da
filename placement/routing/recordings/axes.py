"""Which axis of an array is which: by the user's word, by sizes, and by what only one axis can look like."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.recordings.shape import ModelShape
from placement.routing.recordings.spool import PADDING, blank_rows
from specs.fields import MAX_TOP_K

IDS = ("tokens", "layers", "k")
COUNTS = ("windows", "layers", "experts")
#: Entries that are looked at.
_SAMPLE = 2**20


def axes_of_ids(
    shape: tuple[int, ...],
    may_be_k: Callable[[int], bool],
    model: ModelShape,
    given: tuple[str, ...] | None,
    source: str,
) -> tuple[str, ...]:
    """The names of a 3-d array's axes, of IDS.

    Args:
        may_be_k: whether ids differ along an axis (see differ). given: what the user says.

    Raises:
        InputError: what is given does not fit, or more than one order does.
    """
    if given is not None:
        return _given(given, IDS, source)
    fitting = [order for order in permutations(IDS) if _fits(dict(zip(order, shape, strict=True)), model)]
    if not fitting:
        moe = 0 if model.moe_layers is None else len(model.moe_layers)
        sizes = f"{model.name} has {model.layers} layers, {moe} with experts, and top-{model.top_k}"
        problem = sizes if moe else f"of which none can be the experts of a token (1 to {MAX_TOP_K})"
        raise InputError(source, "", f"has ids of shape {shape}, {problem}", "give the recording's own `model`")
    fitting = [order for order in fitting if may_be_k(order.index("k"))]
    if len({order.index("k") for order in fitting}) > 1:
        fitting = [order for order in fitting if order[2] == "k"] or fitting
    if len(fitting) == 2:
        # Layers are few and tokens are many, where neither is known.
        places = [dict(zip(order, shape, strict=True)) for order in fitting]
        fitting = [order for order, size in zip(fitting, places, strict=True) if size["tokens"] > size["layers"]]
    if len(fitting) != 1:
        raise InputError(
            source,
            "",
            f"has ids of shape {shape}, whose axes can't be told",
            "name them, such as `axes` layers,tokens,k",
        )
    return fitting[0]


def axes_of_counts(
    array: NDArray[Any], model: ModelShape, given: tuple[str, ...] | None, source: str
) -> tuple[str, ...]:
    """The names of a 2-d or 3-d array's axes, of COUNTS (`windows` only in 3-d). Arguments as in axes_of_ids.

    In each window every layer counts the same tokens: where only one order says so, it is that one.

    Raises:
        InputError: what is given does not fit.
    """
    names = COUNTS[3 - array.ndim :]
    if given is not None:
        return _given(given, names, source)
    fitting = [order for order in permutations(names) if _fits(dict(zip(order, array.shape, strict=True)), model)]
    fitting = fitting or list(permutations(names))
    even = [order for order in fitting if _even(array, order)]
    candidates = even or fitting
    return names if names in candidates else candidates[0]


def is_even(array: NDArray[Any]) -> bool:
    """Whether a 3-d array counts as load counts do, in some order of its axes."""
    return any(_even(array, order) for order in permutations(COUNTS))


def _given(given: tuple[str, ...], names: tuple[str, ...], source: str) -> tuple[str, ...]:
    if sorted(given) != sorted(names):
        raise InputError(
            source, "", f"has the axes {', '.join(names)} in some order, not {', '.join(given)}", "set `axes`"
        )
    return given


def _fits(size: dict[str, int], model: ModelShape) -> bool:
    """Whether axes of such sizes can be this model's."""
    layers = None if model.moe_layers is None else {len(model.moe_layers), model.layers}
    if layers is not None and size["layers"] not in layers:
        return False
    if "k" in size:
        return (model.top_k or 1) <= size["k"] <= MAX_TOP_K
    return model.experts is None or size["experts"] >= model.experts


def differ(array: NDArray[Any], axis: int) -> bool:
    """Whether all along this axis ids differ, but for padding and for rows of one id: no token uses an expert twice."""
    if array.shape[axis] == 1:
        return True
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    rows = rows[:: max(1, rows.size // _SAMPLE)]
    rows = np.where(rows < 0, PADDING, rows)
    rows = np.sort(rows[~blank_rows(rows)], axis=1)
    return not ((rows[:, 1:] == rows[:, :-1]) & (rows[:, 1:] != PADDING)).any()


def _even(array: NDArray[Any], order: tuple[str, ...]) -> bool:
    """Whether all layers that count anything count alike, in every window."""
    moved = np.moveaxis(array, [order.index(name) for name in COUNTS if name in order], range(array.ndim))
    total = moved.astype(np.float64).sum(axis=-1).reshape(-1, moved.shape[-2])
    total = total[:, total.any(axis=0)]
    return bool(total.shape[1] > 1 and np.allclose(total, total[:, :1], rtol=1e-9))
