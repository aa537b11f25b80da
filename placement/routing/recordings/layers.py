"""Which rows of a recording are the model's MoE layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.errors import InputError
from placement.problem.arrays import BoolArray
from placement.routing.recordings.shape import ModelShape


def choose_layers(
    labels: tuple[int, ...], empty: BoolArray, shape: ModelShape, source: str
) -> tuple[BoolArray, list[str]]:
    """([rows] True where a row is an MoE layer, what was dropped).

    Args:
        labels: [rows] layer numbers: the model's, or counted over MoE layers alone. empty: [rows] whether a row holds
            no routing.

    Raises:
        InputError: the rows that are left can't be the model's MoE layers, with the cause.
    """
    keep, number = ~empty, np.array(labels)
    if not keep.any():
        raise InputError(source, "", "holds no routing in any layer", "record while the engine serves")
    if shape.moe_layers is None:
        return keep, [f"dropped {spans(number[empty])}: no routing (dense layers)"] if empty.any() else []
    moe, layers = np.array(shape.moe_layers), shape.layers or 0
    of_moe = np.ones(len(labels), dtype=bool) if len(labels) == len(moe) else np.isin(number, moe)
    missing = [int(n) for n in moe if n not in number] if len(labels) != len(moe) else []
    missing += number[of_moe & empty].tolist()
    if missing:
        raise InputError(
            source, "", f"has no routing in {spans(missing)}, where {shape.name} has experts",
            "record all MoE layers, or give another `model`",
        )  # fmt: skip
    beyond = keep & ~of_moe & (number >= layers)
    if (keep & ~of_moe & ~beyond).any():
        raise InputError(
            source, "", f"has routing in {spans(number[keep & ~of_moe & ~beyond])}, where {shape.name} is dense",
            "give the model that was recorded with `model`",
        )  # fmt: skip
    notes = [f"dropped {spans(number[empty])}: no routing (dense layers)"] if empty.any() else []
    if beyond.any():
        notes.append(f"dropped {spans(number[beyond])}: beyond the {layers} layers (next-token prediction)")
    return keep & of_moe, notes


def spans(labels: Sequence[int] | np.ndarray) -> str:
    """`layer 3`, or `layers 0-2, 60`."""
    runs: list[list[int]] = []
    for label in sorted(map(int, labels)):
        if runs and runs[-1][1] == label - 1:
            runs[-1][1] = label
        else:
            runs.append([label, label])
    told = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs[:12])
    more = f" and {len(runs) - 12} more" if len(runs) > 12 else ""
    return f"layer{'s' if len(labels) > 1 else ''} {told}{more}"
