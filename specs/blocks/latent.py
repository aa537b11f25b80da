"""Attention on a compressed KV vector: DeepSeek-V2's MLA, with DeepSeek-V3.2's sparse indexer, and DeepSeek-V4's."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from specs.blocks.base import PLAIN_BYTES, Mixer, Stored, Weight, causal_pairs, does_not_divide, sparse_pairs
from specs.fields import Count, Flag, Heads, Spec, Width

#: Scales of what sparse attention stores in 8 bits: 4 bytes for every 128 elements (DeepSeek-V3.2, inference code).
SCALE_BYTES, SCALE_BLOCK = 4, 128


def scale_bytes(width: int) -> int:
    """Bytes of scales of a vector in 8 bits."""
    return -(-width // SCALE_BLOCK) * SCALE_BYTES


class Indexer(Spec):
    """Picks what a query attends to (DeepSeek-V3.2, "lightning indexer"): a cheap score of every stored key."""

    heads: Heads
    """Heads."""
    head_dim: Width
    """Width of a head."""
    top_k: Count
    """Stored entries that a query attends to at most."""
    shared: Flag = False
    """Attends to what an earlier layer picked: no projections, keys or scores of its own (GLM-5's later releases)."""

    def weights(self, hidden: int, rank: int) -> tuple[Weight, ...]:
        """Its projections, whole on every GPU; queries come from the attention's query rank."""
        if self.shared:
            return ()
        return (
            Weight("indexer.q_proj", rank * self.heads * self.head_dim, 1),
            Weight("indexer.k_proj", hidden * self.head_dim, 1),
            Weight("indexer.weights_proj", hidden * self.heads, 1),
            Weight("indexer.k_norm", 2 * self.head_dim, 1, plain=True),
        )

    @property
    def entry_bytes(self) -> int:
        """Bytes of one stored key."""
        return 0 if self.shared else self.head_dim + scale_bytes(self.head_dim)

    @property
    def pair_flops(self) -> float:
        """FLOPs of one query's score of one key."""
        return 0.0 if self.shared else 2.0 * self.heads * self.head_dim


class MlaAttention(Mixer):
    """Multi-head latent attention (DeepSeek-V2, section 2.1): a compressed KV vector and one shared rotary key."""

    kind: Literal["mla"]
    """Which kind of block this is."""
    heads: Heads
    """Heads."""
    q_rank: Width | None = None
    """Width of the compressed query vector; none where queries are projected at once."""
    kv_rank: Width
    """Width of the compressed KV vector."""
    rope_dim: Width
    """Rotary part of a head."""
    nope_dim: Width
    """Part of a head without position."""
    value_dim: Width
    """Width of a value head."""
    bias: Flag = False
    """Bias of the down-projections and of the output projection."""
    gate: Flag = False
    """A learned gate on every element of the output."""
    indexer: Indexer | None = None
    """Sparse attention (DSA): a query attends to the entries that the indexer picks."""
    window: Count | None = None
    """Tokens that a query sees at most, itself included; all where it is not given."""

    @model_validator(mode="after")
    def _window_or_indexer(self) -> MlaAttention:
        if self.window is not None and self.indexer is not None:
            raise ValueError("window and indexer both say what a query sees; leave one out")
        return self

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        query_dim, outputs = self.heads * (self.nope_dim + self.rope_dim), self.heads * self.value_dim
        rank = self.q_rank or 0
        down = hidden * (self.kv_rank + self.rope_dim)
        return (
            Weight("q_a_proj", hidden * rank, 1),
            Weight("q_b_proj", (rank or hidden) * query_dim),
            Weight("kv_a_proj", down, 1),
            Weight("kv_b_proj", self.kv_rank * self.heads * (self.nope_dim + self.value_dim)),
            Weight("gate_proj", hidden * outputs * self.gate),
            Weight("o_proj", outputs * hidden),
            Weight("norms", rank + self.kv_rank, 1, plain=True),
            Weight("bias", (rank + self.kv_rank + self.rope_dim + hidden) * self.bias, 1, plain=True),
            *(self.indexer.weights(hidden, rank or hidden) if self.indexer else ()),
        )

    def tp_problem(self, tp: int) -> str:
        return does_not_divide(tp, self.heads, "heads")

    @property
    def _entry(self) -> int:
        return self.kv_rank + self.rope_dim

    def stored(self, context: float, tp: int) -> Stored:
        """One compressed vector and the rotary key, and the indexer's key, whole on each GPU."""
        return self._of(context if self.window is None else min(context, self.window), context)

    def read(self, context: float, tp: int) -> Stored:
        return self.stored(context, tp) if self.indexer is None else self._of(min(context, self.indexer.top_k), context)

    def _of(self, entries: float, keys: float) -> Stored:
        """So many entries and indexer's keys.

        Sparse attention keeps the rotary part in 16 bits, and scales beside an 8-bit vector: 656 bytes in DeepSeek-V3.2
        (vLLM 0.33, flashmla_sparse.py; SGLang 0.5.23, dsa_backend.py).
        """
        if self.indexer is None:
            return Stored(self._entry * entries)
        fixed = PLAIN_BYTES * self.rope_dim * entries + self.indexer.entry_bytes * keys
        return Stored(self.kv_rank * entries, bytes=fixed, scales=scale_bytes(self.kv_rank) * entries)

    def _absorbed_flops(self, tp: int) -> float:
        """A pair where every head works on the one compressed vector."""
        return 2 * self.heads / tp * (2 * self.kv_rank + self.rope_dim)

    def prefill_flops(self, length: float, tp: int) -> float:
        """On expanded heads; with an indexer absorbed, over the picked pairs, and its score of every pair."""
        if self.indexer is None or length <= self.indexer.top_k:
            flops = 2 * self.heads / tp * (self.nope_dim + self.rope_dim + self.value_dim)
            flops *= causal_pairs(length, self.window)
        else:
            flops = self._absorbed_flops(tp) * causal_pairs(length, self.indexer.top_k)
        return flops + (self.indexer.pair_flops * causal_pairs(length) if self.indexer else 0.0)

    def decode_flops(self, context: float, tp: int) -> float:
        if self.indexer is None:
            return self._absorbed_flops(tp) * (context if self.window is None else min(context, self.window))
        picked = self._absorbed_flops(tp) * min(context, self.indexer.top_k)
        return picked + self.indexer.pair_flops * context

    def _latent(self) -> int:
        return (self.q_rank or 0) + self._entry

    def width(self, tp: int) -> float:
        gate = self.value_dim * self.gate
        return self._latent() + self.heads / tp * (2 * (self.nope_dim + self.rope_dim + self.value_dim) + gate)

    def selective_width(self, tp: int) -> float:
        """Up-projections from what is compressed are computed again (arXiv 2412.19437, section 3.2.3)."""
        queries = 0 if self.q_rank else self.nope_dim + self.rope_dim
        return self._latent() + self.heads / tp * (queries + self.value_dim * (1 + self.gate))

    def operand_elements(self) -> float:
        inner = 2 * ((self.q_rank or 0) + self.kv_rank) + self.rope_dim
        values = (2 + self.gate) * self.value_dim
        return float(inner + self.heads * (2 * self.nope_dim + self.rope_dim + values))

    def again(self) -> int:
        up = self.heads * self.kv_rank * (self.nope_dim + self.value_dim)
        return up + self.heads * (self.q_rank or 0) * (self.nope_dim + self.rope_dim)


class CompressedAttention(Mixer):
    """DeepSeek-V4's attention: one shared KV head, of the last `window` tokens and of entries that stand for `ratio`.

    With an indexer (CSA) a query reads the entries that it picks, without (HCA) all of them; ratio 0 leaves the window
    alone. The output projection has two steps, the first in groups of heads.
    """

    kind: Literal["compressed"]
    """Which kind of block this is."""
    heads: Heads
    """Heads."""
    head_dim: Width
    """Width of a head."""
    q_rank: Width
    """Width of the compressed query vector; none where queries are projected at once."""
    output_groups: Heads
    """Groups of heads in the first step of the output projection."""
    output_rank: Width
    """Width of a group after that step."""
    window: Count
    """Tokens that a query sees at most, itself included."""
    ratio: int = Field(default=0, ge=0, le=65_536, strict=True)
    """Tokens that one compressed entry stands for; 0: no compressed entries."""
    overlap: Flag = False
    """Entries are made of overlapping stretches, with twice the projections."""
    indexer: Indexer | None = None
    """What picks the entries that a query attends to."""

    @model_validator(mode="after")
    def _indexer_has_entries(self) -> CompressedAttention:
        if self.indexer is not None and not self.ratio:
            raise ValueError("indexer picks compressed entries, but ratio is 0; set ratio or leave the indexer out")
        if self.heads % self.output_groups:
            raise ValueError(
                f"heads {self.heads} is not a multiple of output_groups {self.output_groups}; change one of them"
            )
        return self

    @property
    def measured_as(self) -> str:
        return "mla"

    @property
    def _key_dim(self) -> int:
        """Width of the indexer's own keys; 0 where it has none."""
        return 0 if self.indexer is None or self.indexer.shared else self.indexer.head_dim

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        outputs = self.output_groups * self.output_rank
        compressed = (1 + self.overlap) * self.head_dim if self.ratio else 0
        keys = (1 + self.overlap) * self._key_dim
        # Of the query, of keys, and of either compressor's entries.
        norms = self.q_rank + self.head_dim + (self.head_dim + self._key_dim if self.ratio else 0)
        indexer = self.indexer.weights(hidden, self.q_rank) if self.indexer else ()
        return (
            Weight("q_a_proj", hidden * self.q_rank, 1),
            Weight("q_b_proj", self.q_rank * self.heads * self.head_dim),
            Weight("kv_proj", hidden * self.head_dim, 1),
            Weight("o_a_proj", self.heads * self.head_dim // self.output_groups * outputs),
            Weight("o_b_proj", outputs * hidden),
            Weight("compressor", 2 * hidden * compressed, 1, plain=True),
            # The indexer compresses keys of its own, by a value and a weight.
            Weight("indexer.compressor", 2 * hidden * keys, 1, plain=True),
            *(each for each in indexer if each.name not in ("indexer.k_proj", "indexer.k_norm")),
            Weight("norms", norms + self.ratio * (compressed + keys), 1, plain=True),
            Weight("sinks", self.heads, plain=True),
        )

    def tp_problem(self, tp: int) -> str:
        return does_not_divide(tp, self.heads, "heads") or (
            does_not_divide(tp, self.output_groups, "output groups") if tp <= self.output_groups else ""
        )

    def _entries(self, context: float) -> float:
        """Entries that are complete."""
        return context // self.ratio if self.ratio else 0.0

    def stored(self, context: float, tp: int) -> Stored:
        """Whole on each GPU; what waits to be compressed is kept in 32 bits."""
        entries = self._entries(context)
        waiting = 2.0 * 4.0 * self.ratio * (1 + self.overlap) ** 2 * (self.head_dim + self._key_dim)
        keys = self.indexer.entry_bytes * entries if self.indexer else 0.0
        return Stored(self.head_dim * (min(context, self.window) + entries), bytes=waiting + keys)

    def _picked(self, context: float) -> float:
        entries = self._entries(context)
        return min(entries, self.indexer.top_k) if self.indexer else entries

    def read(self, context: float, tp: int) -> Stored:
        """Of what waits to be compressed a step touches a few rows: not counted."""
        keys = self.indexer.entry_bytes * self._entries(context) if self.indexer else 0.0
        return Stored(self.head_dim * (min(context, self.window) + self._picked(context)), bytes=keys)

    def prefill_flops(self, length: float, tp: int) -> float:
        pairs, scored = causal_pairs(length, self.window), 0.0
        if self.ratio:
            pairs += sparse_pairs(length, self.ratio, self.indexer.top_k if self.indexer else None)
        if self.indexer:
            scored = self.indexer.pair_flops * sparse_pairs(length, self.ratio, None)
        return 4 * self.heads / tp * self.head_dim * pairs + scored

    def decode_flops(self, context: float, tp: int) -> float:
        seen = min(context, self.window) + self._picked(context)
        scored = self.indexer.pair_flops * self._entries(context) if self.indexer else 0.0
        return 4 * self.heads / tp * self.head_dim * seen + scored

    def width(self, tp: int) -> float:
        outputs = self.output_groups * self.output_rank / tp
        return self.q_rank + self.head_dim + 2 * self.heads * self.head_dim / tp + outputs
