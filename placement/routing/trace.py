"""Recorded routing: the trace and load-count formats, read and written. Every problem in a file is one InputError."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.problem.arrays import FloatArray


@dataclass(frozen=True)
class Trace:
    """Routing of tokens.

    Attributes:
        topk_ids: [moe_layers, tokens, k] unsigned logical experts; the k of a token are distinct.
        seq_lens: [sequences] tokens of each sequence, in order; sums to tokens.
        experts: logical experts per layer.
        name: the file's stem, or the synthesizer's name.
        source: where it comes from, for people; starts with "synthetic" if it was synthesized.
        topk_weights: [moe_layers, tokens, k] router weights, or None.
        meta: the file's own meta record. sha256: digest of the file, or "".
    """

    topk_ids: NDArray[Any]
    seq_lens: NDArray[np.int64]
    experts: int
    name: str
    source: str
    topk_weights: NDArray[Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def layers(self) -> int:
        return int(self.topk_ids.shape[0])

    @property
    def tokens(self) -> int:
        return int(self.topk_ids.shape[1])

    @property
    def top_k(self) -> int:
        return int(self.topk_ids.shape[2])

    @property
    def synthetic(self) -> bool:
        return self.source.startswith("synthetic")

    def __repr__(self) -> str:
        return f"<Trace {self.name}: {self.layers} layers, {self.tokens:,} tokens, top-{self.top_k} of {self.experts}>"


@dataclass(frozen=True)
class LoadCounts:
    """Load counts without co-activation.

    Attributes:
        counts: [windows, moe_layers, experts] tokens routed to each expert.
        name, source, sha256, meta: as in Trace.
    """

    counts: FloatArray
    name: str
    source: str
    sha256: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        return int(self.counts.shape[1])

    @property
    def experts(self) -> int:
        return int(self.counts.shape[2])

    @property
    def synthetic(self) -> bool:
        return self.source.startswith("synthetic")

    def __repr__(self) -> str:
        return f"<LoadCounts {self.name}: {len(self.counts)} windows, {self.layers} layers, {self.experts} experts>"
