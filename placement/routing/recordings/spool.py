"""Token choices on their way into a trace: on disk, a file a layer, so that no recording has to fit into memory.

What rows mean is judged later (placement.routing.recordings.cleaning), when all of them have been seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.problem.arrays import BoolArray
from placement.routing.recordings.meter import Meter
from specs.fields import MAX_LAYERS, MAX_TOP_K

#: What a spool holds for every negative id. 65535 means padding in recordings, too.
PADDING = 65_535
#: Rows (a token in a layer) that are read back at once, and the most tokens of a recording.
ROWS, MAX_TOKENS = 2**17, 2**30


class Spool:
    """Rows of ids (and weights) by layer, in the order in which they were added."""

    def __init__(self, folder: Path, source: str, meter: Meter) -> None:
        """An empty spool that keeps its files in `folder`; messages name the recording `source`.

        `meter` is told of the bytes that are read back.
        """
        self._folder, self._source, self._meter = folder, source, meter
        self._tokens: dict[int, int] = {}
        self._ends: list[int] = []
        self.width = 0
        self.weighted: bool | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """Labels of the layers, ascending."""
        return tuple(sorted(self._tokens))

    @property
    def tokens(self) -> int:
        """Tokens of the longest layer."""
        return max(self._tokens.values(), default=0)

    @property
    def size(self) -> int:
        """Bytes of all ids."""
        return 2 * self.width * sum(self._tokens.values())

    def add(self, layer: int, ids: NDArray[Any], weights: NDArray[Any] | None = None) -> None:
        """Rows of a layer.

        Args:
            layer: its label. ids: [rows, k] numbers; negative ones are padding. weights: [rows, k], or None.

        Raises:
            InputError: numbers that are no ids, or rows unlike the others.
        """
        if not len(ids):
            return
        if not self.width:
            self.width, self.weighted = ids.shape[1], weights is not None
        self._check(layer, ids, weights)
        self._tokens[layer] = self._tokens.get(layer, 0) + len(ids)
        if self._tokens[layer] > MAX_TOKENS:
            raise InputError(self._source, "", f"has over {MAX_TOKENS} tokens", "convert a part of it")
        self._append(self._path(layer, "ids"), np.where(ids < 0, PADDING, ids).astype(np.uint16))
        if weights is not None:
            self._append(self._path(layer, "weights"), weights.astype(np.float32))

    def end_sequence(self) -> None:
        """The tokens since the last call are a sequence."""
        if self.tokens > (self._ends[-1] if self._ends else 0):
            self._ends.append(self.tokens)

    def end_sequences(self, lengths: NDArray[np.int64], source: str) -> None:
        """The tokens since the last end are sequences of these lengths.

        Raises:
            InputError: they are not as many tokens.
        """
        start = self._ends[-1] if self._ends else 0
        if int(lengths.sum()) != self.tokens - start:
            raise InputError(source, "seq_lens", f"sums to {lengths.sum()}, not {self.tokens - start}", "mend seq_lens")
        self._ends.extend((start + np.cumsum(lengths)).tolist())

    def sequences(self) -> NDArray[np.int64] | None:
        """[sequences] tokens of each; None where no sequence was ended. What follows the last end is one more."""
        if not self._ends:
            return None
        ends = self._ends if self._ends[-1] == self.tokens else [*self._ends, self.tokens]
        edges = np.array([0, *ends], dtype=np.int64)
        return edges[1:] - edges[:-1]

    def check_even(self) -> None:
        """Refuses layers of unlike numbers of tokens."""
        for layer, tokens in self._tokens.items():
            if tokens != self.tokens:
                raise InputError(
                    self._source, f"layer {layer}", f"has {tokens} tokens, but another layer has {self.tokens}",
                    "record the same tokens in every layer",
                )  # fmt: skip

    def rows(self, layer: int) -> Iterator[tuple[int, NDArray[np.uint16], NDArray[np.float32] | None]]:
        """(token of the first row, ids [rows, k], weights [rows, k] or None) of a layer, piece by piece."""
        with ExitStack() as files:
            ids = files.enter_context(self._path(layer, "ids").open("rb"))
            weights = files.enter_context(self._path(layer, "weights").open("rb")) if self.weighted else None
            for start in range(0, self._tokens[layer], ROWS):
                count = min(ROWS, self._tokens[layer] - start) * self.width
                own = np.frombuffer(ids.read(2 * count), np.uint16).reshape(-1, self.width)
                beside = None if weights is None else np.frombuffer(weights.read(4 * count), np.float32)
                self._meter.advance(2 * count)
                yield start, own, None if beside is None else beside.reshape(-1, self.width)

    def _check(self, layer: int, ids: NDArray[Any], weights: NDArray[Any] | None) -> None:
        field = f"layer {layer}"
        if not 0 <= layer < MAX_LAYERS:
            raise InputError(self._source, field, "is no layer", f"number layers from 0 to {MAX_LAYERS - 1}")
        if ids.ndim != 2 or ids.shape[1] != self.width or not 1 <= self.width <= MAX_TOP_K:
            problem = f"has rows of {ids.shape[-1]} ids, where others have {self.width}"
            raise InputError(self._source, field, problem, f"give k ids a token, 1 to {MAX_TOP_K}")
        if (weights is not None) != self.weighted or (weights is not None and weights.shape != ids.shape):
            raise InputError(self._source, field, "has weights for some ids only", "give them for all, or for none")
        if ids.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                broken = ~np.isfinite(ids) | (ids != np.floor(ids))
            if broken.any():
                raise InputError(self._source, field, f"holds the id {ids[broken][0]}", "give whole numbers")
        elif ids.dtype.kind not in "iu":
            raise InputError(self._source, field, f"has ids of type {ids.dtype}", "give whole numbers")
        if ids.max() > PADDING:
            raise InputError(self._source, field, f"holds the id {ids.max()}", f"no model has over {PADDING} experts")

    def _append(self, path: Path, rows: NDArray[Any]) -> None:
        with path.open("ab") as file:
            file.write(np.ascontiguousarray(rows).tobytes())

    def _path(self, layer: int, kind: str) -> Path:
        return self._folder / f"{layer}.{kind}"


def blank_rows(ids: NDArray[Any]) -> BoolArray:
    """[rows] whether a row holds one id in all its (used) places, or padding alone: no token uses an expert twice."""
    used = ids != PADDING
    first = np.where(used, ids, 0).max(axis=1, keepdims=True)
    alike = (~used | (ids == first)).all(axis=1)
    return np.asarray(alike if ids.shape[1] > 1 else ~used[:, 0])
