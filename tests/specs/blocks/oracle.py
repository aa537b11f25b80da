"""Caches filled token by token, masks asked pair by pair, recurrences run number by number: what tests of blocks
compare with. Nothing here comes from specs.blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

CONTEXTS = (0, 1, 3, 4, 7, 8, 9, 127, 128, 129, 255, 257)
LENGTHS = (1, 2, 5, 8, 9, 16, 23, 24)
TP = (1, 2, 8)
#: Bytes of an element, scales counted in: 8 bits for each block of 32 (mxfp8) or 16 (nvfp4).
SIZES = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "mxfp8": 33 / 32, "nvfp4": 9 / 16}


def kv_heads_of_a_gpu(query_heads: int, kv_heads: int, tp: int) -> int:
    """Distinct KV heads that the queries of the first GPU look at."""
    return len({query * kv_heads // query_heads for query in range(query_heads // tp)})


class _Kept(Protocol):
    def size(self, kv_cache: Any, state: Any) -> float: ...


class _Stores(Protocol):
    def stored(self, context: float, tp: int) -> _Kept: ...


def size(mixer: _Stores, context: float, tp: int, kv: Any = "bf16", state: Any = "fp32") -> float:
    """Bytes that a mixer says it keeps."""
    return mixer.stored(context, tp).size(kv, state)


def windowed(tokens: int, window: int | None) -> int:
    """Entries of a cache that drops the oldest beyond a window."""
    kept: list[int] = []
    for token in range(tokens):
        kept.append(token)
        if window is not None and len(kept) > window:
            kept.pop(0)
    return len(kept)


def chunked(tokens: int, chunk: int) -> int:
    """The most entries that a cache ever holds which is emptied at the start of each chunk."""
    kept: list[int] = []
    most = 0
    for token in range(tokens):
        if token % chunk == 0:
            kept.clear()
        kept.append(token)
        most = max(most, len(kept))
    return most


def compressed(tokens: int, ratio: int) -> int:
    """Entries that come of every `ratio` tokens, once all of them are there."""
    entries: list[list[int]] = []
    waiting: list[int] = []
    for token in range(tokens):
        waiting.append(token)
        if len(waiting) == ratio:
            entries.append(waiting)
            waiting = []
    return len(entries)


Mask = Callable[[int, int], bool]


def causal(query: int, key: int) -> bool:
    """Of tokens counted from 0."""
    return key <= query


def sliding(window: int) -> Mask:
    """The last `window` tokens, the query's own among them."""
    return lambda query, key: query - window < key <= query


def side_by_side(chunk: int) -> Mask:
    """Those of the query's chunk."""
    return lambda query, key: key <= query and key // chunk == query // chunk


def complete(ratio: int) -> Mask:
    """Compressed entries that have all of their tokens."""
    return lambda query, entry: (entry + 1) * ratio - 1 <= query


def pairs(queries: range, keys: int, mask: Mask, most: int | None = None) -> int:
    """Pairs under a mask, of which a query attends to `most` at most."""
    total = 0
    for query in queries:
        seen = sum(mask(query, key) for key in range(keys))
        total += seen if most is None else min(seen, most)
    return total


def attended(length: int, mask: Mask = causal, keys: int | None = None, most: int | None = None) -> tuple[int, int]:
    """Pairs of a whole prompt, and of its last query."""
    keys = length if keys is None else keys
    return pairs(range(length), keys, mask, most), pairs(range(length - 1, length), keys, mask, most)


@dataclass
class Numbers:
    """Arithmetic that counts its operations."""

    operations: int = 0

    def times(self, a: float, b: float) -> float:
        self.operations += 1
        return a * b

    def plus(self, a: float, b: float) -> float:
        self.operations += 1
        return a + b


def delta_step(rows: int, columns: int, corrects: bool) -> int:
    """Operations on the state (work on single rows apart) when one head of a recurrence takes one token."""
    n, state = Numbers(), [[1.0] * columns for _ in range(rows)]
    key, value, query = [0.5] * rows, [2.0] * columns, [0.25] * rows
    state = [[n.times(0.9, each) for each in row] for row in state]
    if corrects:
        for column in range(columns):
            held = 0.0
            for row in range(rows):
                held = n.plus(held, n.times(key[row], state[row][column]))
            value[column] -= held
    state = [[n.plus(state[i][j], n.times(key[i], value[j])) for j in range(columns)] for i in range(rows)]
    for column in range(columns):
        out = 0.0
        for row in range(rows):
            out = n.plus(out, n.times(query[row], state[row][column]))
    return n.operations


def convolution(channels: int, taps: int) -> int:
    """Operations of a short convolution on one token."""
    n = Numbers()
    for _ in range(channels):
        out = 0.0
        for _ in range(taps):
            out = n.plus(out, n.times(1.0, 1.0))
    return n.operations


def chunks(length: int, size: int) -> Iterator[int]:
    """Tokens of each chunk of a prompt."""
    while length > 0:
        yield min(size, length)
        length -= size


def product(m: int, k: int, n: int) -> int:
    """FLOPs of a matrix of m x k times one of k x n."""
    return sum(2 * k for _ in range(m) for _ in range(n))


def chunk_flops(size: int, rows: int, columns: int, corrects: bool) -> int:
    """FLOPs of the products of one head in one chunk of `size` tokens."""
    total = product(size, rows, size)  # queries with keys
    total += product(size, size, columns)  # scores with values
    total += product(rows, size, columns)  # the state's update
    total += product(size, rows, columns)  # its readout
    if corrects:
        total += product(size, rows, size)  # keys with keys
        total += product(size, size, rows)  # what that makes of keys
        total += product(size, size, columns)  # and of values
        total += product(size, rows, columns)  # what the state holds of them
    return total
