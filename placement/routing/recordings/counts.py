"""Load counts on their way into a file: windows are added up as they come, so that their number is bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.arithmetic import log
from placement.errors import InputError
from placement.problem.arrays import FloatArray
from placement.routing.reader import MAX_COUNTED
from placement.routing.recordings.layers import choose_layers
from placement.routing.recordings.shape import ModelShape
from specs.fields import MAX_EXPERTS, MAX_LAYERS

#: Windows that are kept apart while a recording is read; above twice as many, neighbours are added up.
FINE = 256
#: Counts that a recording may hold in one window, and that are kept in all: of large windows fewer stay apart.
MAX_CELLS, MOST_KEPT = 2**24, 2**25
#: Tokens of a pass that all take the same experts, from which on it is a profile run and no text.
PROFILED = 8
#: Means are scaled so that a layer's least total has at least this many tokens.
_RESOLUTION, _MOST_DIGITS = 10**6, 250


class CountWindows:
    """Counts by window, layer and expert (or another column), with neighbours added up as they become many.

    Attributes:
        layers: labels of the rows. seen: windows that were added; idle, profiled: of them, left out.
    """

    def __init__(self, source: str) -> None:
        """No counts yet; messages name the recording `source`."""
        self._source = source
        self._sums: dict[int, FloatArray] = {}
        self._group, self._fine, self._columns = 1, FINE, 0
        self.layers: tuple[int, ...] = ()
        self.idle = self.profiled = self.seen = 0

    def add(self, counts: NDArray[Any], layers: tuple[int, ...] | None = None, place: int | None = None) -> None:
        """One window.

        Args:
            counts: [layers, columns] numbers of at least 0. layers: their labels; None: 0, 1, ...
            place: where it stands among all, such as a pass that each rank counts its part of; None: behind the others.

        Raises:
            InputError: numbers that are no counts, or a window unlike the others.
        """
        counts = self._checked(counts, layers)
        at, self.seen = self.seen if place is None else place, self.seen + 1
        if not counts.any():
            self.idle += 1
        elif _is_profile(counts):
            self.profiled += 1
        else:
            self._put(at // self._group, counts)
            while len(self._sums) >= 2 * self._fine:
                self._group *= 2
                halves, self._sums = self._sums, {}
                for key in sorted(halves):
                    self._put(key // 2, halves[key])

    def array(self) -> FloatArray:
        """[windows, layers, columns] of what was added, in order."""
        return np.stack([self._sums[key] for key in sorted(self._sums)])

    def __len__(self) -> int:
        return len(self._sums)

    def _put(self, key: int, counts: FloatArray) -> None:
        self._sums[key] = self._sums[key] + counts if key in self._sums else counts

    def _checked(self, counts: NDArray[Any], layers: tuple[int, ...] | None) -> FloatArray:
        if counts.ndim != 2 or counts.dtype.kind not in "iuf" or not counts.size:
            problem = f"has counts of shape {counts.shape} and type {counts.dtype}"
            raise InputError(self._source, "", problem, "give numbers as [layers, experts]")
        if counts.shape[0] > MAX_LAYERS or counts.shape[1] > MAX_EXPERTS or counts.size > MAX_CELLS:
            raise InputError(
                self._source, "", f"has {counts.shape[0]} layers of {counts.shape[1]} experts", "give [layers, experts]"
            )
        labels = tuple(range(len(counts))) if layers is None else layers
        if not self.seen:
            self.layers, self._columns = labels, counts.shape[1]
            self._fine = max(1, min(FINE, MOST_KEPT // counts.size))
        elif labels != self.layers or counts.shape[1] != self._columns:
            problem = f"has windows of unlike shape: {counts.shape} after {(len(self.layers), self._columns)}"
            raise InputError(self._source, "", problem, "give the same layers and experts in every window")
        found = counts.astype(np.float64)
        broken = ~np.isfinite(found) | (found < 0) | (found > 2.0**53)
        if broken.any():
            layer, expert = np.argwhere(broken)[0]
            raise InputError(
                self._source, f"layer {labels[layer]}, expert {expert}", f"{found[layer, expert]:g} is no count",
                "give numbers of at least 0",
            )  # fmt: skip
        return found


def _is_profile(counts: FloatArray) -> bool:
    """Whether all tokens of a pass took the same experts in each layer: as many of them in every layer, all alike."""
    busy = counts[counts.any(axis=1)]
    used = (busy > 0).sum(axis=1)
    most = busy.max(axis=1)
    alike = np.where(busy > 0, busy, most[:, None]) == most[:, None]
    few = int(used[0]) * 4 <= counts.shape[1]
    return bool(few and (used == used[0]).all() and (most == most[0]).all() and most[0] >= PROFILED and alike.all())


@dataclass(frozen=True)
class CleanCounts:
    """[windows, layers, experts] counts of the model's MoE layers and routed experts, and what was found on the way."""

    counts: FloatArray
    notes: tuple[str, ...]


def clean_counts(windows: CountWindows, shape: ModelShape, source: str, wanted: int) -> CleanCounts:
    """Counts without what is no routing, in at most `wanted` windows.

    Raises:
        InputError: nothing is left, or what is left can't be this model's, with the cause.
    """
    notes = []
    if windows.idle:
        notes.append(f"dropped {windows.idle} of {windows.seen} windows: no tokens")
    if windows.profiled:
        notes.append(
            f"dropped {windows.profiled} of {windows.seen} windows: profile run (all tokens on the same experts)"
        )
    if not len(windows):
        raise InputError(source, "", "; ".join(notes) or "holds no counts", "record while the engine serves")
    counts = windows.array()
    rows, said = choose_layers(windows.layers, np.asarray(~counts.any(axis=(0, 2))), shape, source)
    counts = counts[:, rows]
    notes += said
    counts = _routed(counts, shape, source, notes)
    counts = _merged(counts, wanted)
    return CleanCounts(_whole(counts, source, notes), tuple(notes))


def _routed(counts: FloatArray, shape: ModelShape, source: str, notes: list[str]) -> FloatArray:
    """The columns of routed experts."""
    columns, experts = counts.shape[2], shape.experts
    if experts is None:
        experts = columns - 1 if _is_shared(counts, shape) else columns
    if columns < experts:
        raise InputError(
            source, "", f"counts {columns} experts a layer, {shape.name} has {experts}",
            "give the files of all ranks together, where each counts its own experts",
        )  # fmt: skip
    shared = columns == experts + 1 and _is_shared(counts, shape)
    if columns > experts and not shared and counts[:, :, experts:].any():
        raise InputError(
            source, "", f"counts {columns} columns, {shape.name} has {experts} experts: they are slots of a placement",
            "record logical experts, or a file that holds its physical_to_logical_map",
        )  # fmt: skip
    if columns > experts:
        what = "a fused shared expert (every token)" if shared else "no tokens"
        beyond = f"column {experts}" if columns == experts + 1 else f"columns {experts}-{columns - 1}"
        notes.append(f"dropped {beyond}: {what}")
    return counts[:, :, :experts]


def _is_shared(counts: FloatArray, shape: ModelShape) -> bool:
    """Whether the last column counts every token: the others' sum is k times its, with one whole k."""
    total = counts.sum(axis=0)
    last, others = total[:, -1], total[:, :-1].sum(axis=1)
    if counts.shape[2] < 3 or (last <= total[:, :-1].max(axis=1)).any():
        return False
    k = np.round(others / last)
    return bool((k == k[0]).all() and k[0] == (shape.top_k or max(k[0], 1)) and np.array_equal(others, k * last))


def _merged(counts: FloatArray, wanted: int) -> FloatArray:
    """Neighbouring windows added up: at most `wanted`, each with tokens in every layer."""
    parts = min(wanted, len(counts))
    edges = np.linspace(0, len(counts), parts + 1).astype(np.int64)[:-1]
    merged = np.add.reduceat(counts, edges, axis=0)
    full: list[FloatArray] = []
    for window in merged:
        if full and not full[-1].any(axis=1).all():
            full[-1] = full[-1] + window
        else:
            full.append(window)
    if len(full) > 1 and not full[-1].any(axis=1).all():
        full[-2:] = [full[-2] + full[-1]]
    return np.stack(full)


def _whole(counts: FloatArray, source: str, notes: list[str]) -> FloatArray:
    """Whole counts of at most MAX_COUNTED a layer."""
    total = counts.sum(axis=(0, 2))
    scale = 1.0
    if (counts != np.floor(counts)).any():
        scale = 10.0 ** np.clip(np.ceil(log(_RESOLUTION / float(total.min())) / log(10.0)), 0, _MOST_DIGITS)
        notes.append(f"counts are means or shares: times {scale:,.0f}, rounded")
    if total.max() * scale > MAX_COUNTED:
        scale = MAX_COUNTED / 2 / total.max()
        notes.append(f"counts are very large: times {scale:.3g}, rounded")
    scaled = np.round(counts * scale)
    if (scaled.sum(axis=2) == 0).any():
        raise InputError(source, "", "counts too unevenly to be scaled to whole numbers", "record more alike windows")
    return scaled
