"""Softmax attention with grouped queries: of the whole context, of a sliding window, of chunks, or of picked blocks."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import model_validator

from specs.blocks.base import Mixer, Stored, Weight, causal_pairs, does_not_divide
from specs.fields import Count, Flag, Heads, Spec, Width


class BlockIndexer(Spec):
    """Picks the blocks of keys that a query attends to (MiniMax-M3): a score of every stored key by a few heads, which
    lie with the KV heads, on one key of their own."""

    heads: Heads
    """Heads."""
    head_dim: Width
    """Width of a head."""
    block: Count
    """Tokens of a block."""
    top_blocks: Count
    """Blocks that a query attends to at most."""

    @property
    def top_k(self) -> int:
        """Tokens that a query attends to at most."""
        return self.block * self.top_blocks


class GqaAttention(Mixer):
    """Grouped-query attention; multi-head attention is the case kv_heads == query_heads."""

    kind: Literal["gqa"]
    """Which kind of block this is."""
    query_heads: Heads
    """Query heads."""
    kv_heads: Heads
    """Key and value heads."""
    head_dim: Width
    """Width of a head."""
    value_dim: Width | None = None
    """Width of a value head; head_dim where it is not given."""
    bias: Flag = False
    """Bias of the query, key and value projections."""
    output_bias: Flag = False
    """Bias of the output projection."""
    qk_norm: Flag = False
    """Query and key norms; their weights span one head (shared by all heads) or all heads."""
    qk_norm_span: Literal["head", "all_heads"] = "head"
    """What the norms' weights span."""
    sinks: Flag = False
    """One learned sink logit per query head."""
    gate: Literal["none", "element", "head"] = "none"
    """A learned gate on the output: one for each element, one for each head, or none."""
    key_is_value: Flag = False
    """Values are the keys: there is no value projection."""
    window: Count | None = None
    """Tokens that a query sees at most, itself included; all where it is not given."""
    chunked: Flag = False
    """Windows lie side by side (Llama 4's chunks) instead of sliding."""
    q_rank: Width | None = None
    """Queries come from a vector of this width, with a norm (Step-3)."""
    indexer: BlockIndexer | None = None
    """What picks the entries that a query attends to."""

    @model_validator(mode="after")
    def _heads_divide(self) -> GqaAttention:
        if self.query_heads % self.kv_heads:
            raise ValueError(
                f"query_heads {self.query_heads} is not a multiple of kv_heads {self.kv_heads}; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_says_what_is_seen(self) -> GqaAttention:
        if self.window is not None and self.indexer is not None:
            raise ValueError("window and indexer both say what a query sees; leave one out")
        if self.chunked and self.window is None:
            raise ValueError("chunked needs window, the tokens of a chunk; add it")
        return self

    @property
    def _value_dim(self) -> int:
        return self.value_dim or self.head_dim

    @property
    def _gate(self) -> int:
        """Elements of a token's gate."""
        return {"none": 0, "element": self.query_heads * self._value_dim, "head": self.query_heads}[self.gate]

    def weights(self, hidden: int) -> tuple[Weight, ...]:
        queries, outputs = self.query_heads * self.head_dim, self.query_heads * self._value_dim
        keys = self.kv_heads * self.head_dim
        values = 0 if self.key_is_value else self.kv_heads * self._value_dim
        wide = self.qk_norm and self.qk_norm_span == "all_heads"
        rank, index, scores = self.q_rank or 0, 0, 0
        if self.indexer is not None:
            index, scores = self.indexer.head_dim, self.indexer.heads * self.indexer.head_dim
        return (
            Weight("q_a_proj", hidden * rank, 1),
            Weight("q_proj", (rank or hidden) * queries),
            Weight("k_proj", hidden * keys, self.kv_heads),
            Weight("v_proj", hidden * values, self.kv_heads),
            Weight("gate_proj", hidden * self._gate),
            Weight("o_proj", outputs * hidden),
            Weight("bias", queries * self.bias, plain=True),
            Weight("bias", (keys + values) * self.bias, self.kv_heads, plain=True),
            Weight("bias", hidden * self.output_bias, 1, plain=True),
            Weight("qk_norm", 2 * self.head_dim * (self.qk_norm and not wide), 1, plain=True),
            Weight("qk_norm", queries * wide, plain=True),
            Weight("qk_norm", keys * wide, self.kv_heads, plain=True),
            Weight("sinks", self.query_heads * self.sinks, plain=True),
            Weight("q_a_norm", rank, 1, plain=True),
            Weight("indexer.q_proj", hidden * scores, self.kv_heads),
            Weight("indexer.k_proj", hidden * index, 1),
            Weight("indexer.norms", 2 * index, 1, plain=True),
        )

    def tp_problem(self, tp: int) -> str:
        if self.query_heads % tp:
            return does_not_divide(tp, self.query_heads, "query heads")
        if self.kv_heads % tp and tp % self.kv_heads:
            return f"tp {tp} neither divides nor is a multiple of the {self.kv_heads} KV heads"
        return ""

    def _kept(self, context: float) -> float:
        return context if self.window is None else min(context, self.window)

    def stored(self, context: float, tp: int) -> Stored:
        """Keys and values of the GPU's heads; heads are repeated where tp exceeds their number. The indexer's key is
        whole on each GPU."""
        keys = self.indexer.head_dim if self.indexer else 0
        return Stored((self._entry(tp) + keys) * self._kept(context))

    def _entry(self, tp: int) -> int:
        """Elements of one token's keys and values."""
        return math.ceil(self.kv_heads / tp) * (self.head_dim + self._value_dim)

    def _seen(self, context: float) -> float:
        if self.chunked and self.window is not None and context > self.window:
            return (self.window + 1) / 2  # the mean over a chunk: sequences are at any place of theirs
        return min(self._kept(context), self.indexer.top_k) if self.indexer else self._kept(context)

    def read(self, context: float, tp: int) -> Stored:
        keys = self.indexer.head_dim * self._kept(context) if self.indexer else 0.0
        return Stored(self._entry(tp) * self._seen(context) + keys)

    def _score_flops(self, tp: int) -> float:
        """FLOPs of the indexer's score of one key."""
        return 2 * max(1.0, self.indexer.heads / tp) * self.indexer.head_dim if self.indexer else 0.0

    def _pair_flops(self, tp: int) -> float:
        """Products of a query with a key and with a value, 2 FLOPs an element."""
        return 2 * self.query_heads / tp * (self.head_dim + self._value_dim)

    def prefill_flops(self, length: float, tp: int) -> float:
        if self.indexer:
            scored = self._score_flops(tp) * causal_pairs(length)
            return self._pair_flops(tp) * causal_pairs(length, self.indexer.top_k) + scored
        return self._pair_flops(tp) * causal_pairs(length, self.window, self.chunked)

    def decode_flops(self, context: float, tp: int) -> float:
        return self._pair_flops(tp) * self._seen(context) + self._score_flops(tp) * self._kept(context)

    def width(self, tp: int) -> float:
        heads = self.query_heads / tp + math.ceil(self.kv_heads / tp)
        return self._gate / tp + (self.head_dim + self._value_dim) * heads
