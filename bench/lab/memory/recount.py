"""Parameters and cache bytes counted again, from a model's dimensions alone: shares no code with specs.parameters.

Large matrices only: biases, norms and convolution taps are far below the 1% that two counts may differ by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specs.model import Model

#: Bits of an element, block scales counted in (OCP Microscaling: 32 share 8 bits; NVFP4: 16 share 8; int4: groups).
BITS = {
    "fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "int8": 8.0, "mxfp8": 8.25, "mxfp4": 4.25, "nvfp4": 4.5,
    "int4": 4.0, "int4_g32": 4.5, "int4_g128": 4.125,
}  # fmt: skip


def parameters(model: Model) -> float:
    """Elements of all weights: embedding and head, and of each block its mixer and feed-forward matrices."""
    h = model.hidden
    total = float(model.vocabulary * h * (1 if model.tied_embedding else 2))
    for block in model.layout:
        if block.mixer is not None:
            mixer = model.mixers[block.mixer]
            total += _MIXERS[mixer.kind](mixer, h)
        if block.ffn is not None:
            total += _ffn(model.ffns[block.ffn], h)
    return total


def _ffn(ffn: Any, h: int) -> float:
    matrices = 3 if ffn.gated else 2
    if ffn.kind == "dense":
        return float(matrices * h * ffn.width)
    width = ffn.latent or h
    routed = ffn.experts * matrices * width * ffn.expert_width
    shared = matrices * h * ffn.shared_experts * (ffn.shared_width or ffn.expert_width)
    router = (ffn.experts + ffn.zero_experts) * h
    return float(routed + shared + router + 2 * h * (ffn.latent or 0))


def _gqa(a: Any, h: int) -> float:
    values = a.value_dim or a.head_dim
    queries = a.query_heads * a.head_dim
    asked = h * a.q_rank + a.q_rank * queries if a.q_rank else h * queries
    kept = h * a.kv_heads * (a.head_dim + (0 if a.key_is_value else values))
    gate = {"none": 0, "element": a.query_heads * values, "head": a.query_heads}[a.gate]
    index = 0 if a.indexer is None else h * (a.indexer.heads + 1) * a.indexer.head_dim
    return float(asked + kept + h * gate + a.query_heads * values * h + index)


def _indexer(i: Any, h: int, rank: int) -> float:
    return 0.0 if i is None or i.shared else float(rank * i.heads * i.head_dim + h * (i.head_dim + i.heads))


def _mla(a: Any, h: int) -> float:
    each = a.nope_dim + a.rope_dim
    asked = h * a.q_rank + a.q_rank * a.heads * each if a.q_rank else h * a.heads * each
    kept = h * (a.kv_rank + a.rope_dim) + a.kv_rank * a.heads * (a.nope_dim + a.value_dim)
    out = a.heads * a.value_dim * h * (2 if a.gate else 1)
    return float(asked + kept + out) + _indexer(a.indexer, h, a.q_rank or h)


def _compressed(a: Any, h: int) -> float:
    twice = 2 if a.overlap else 1
    asked = h * a.q_rank + a.q_rank * a.heads * a.head_dim
    out = a.heads * a.head_dim * a.output_rank + a.output_groups * a.output_rank * h
    entries = 2 * h * twice * a.head_dim if a.ratio else 0
    keys = 0.0
    if a.indexer is not None and not a.indexer.shared:
        i = a.indexer
        keys = a.q_rank * i.heads * i.head_dim + h * i.heads + 2 * h * twice * i.head_dim
    return float(asked + h * a.head_dim + out + entries) + keys


def _gated_delta(a: Any, h: int) -> float:
    values, keys = a.value_heads * a.value_dim, a.key_heads * a.key_dim
    return float(h * (2 * keys + 2 * values + 2 * a.value_heads) + values * h)


def _kda(a: Any, h: int) -> float:
    inner, low = a.heads * a.head_dim, a.head_dim
    forget = h * inner if a.full_rank_forget else h * low + low * inner
    gate = h * inner if a.full_rank_gate else h * low + low * inner
    return float(4 * h * inner + forget + gate + h * a.heads)


def _mamba2(a: Any, h: int) -> float:
    inner = a.heads * a.head_dim
    return float(h * (3 * inner + 2 * a.groups * a.state + a.heads))


def _mamba(a: Any, h: int) -> float:
    return float(3 * h * a.inner + a.inner * (2 * a.step_rank + 3 * a.state))


_MIXERS: dict[str, Callable[[Any, int], float]] = {
    "gqa": _gqa, "mla": _mla, "compressed": _compressed, "gated_delta": _gated_delta, "kda": _kda, "mamba2": _mamba2,
    "mamba": _mamba, "lightning": lambda a, h: 5.0 * h * a.heads * a.head_dim,
    "short_conv": lambda a, h: 4.0 * h * a.inner,
}  # fmt: skip


def cache_bytes(model: Model, context: int) -> float:
    """Bytes that one sequence of `context` tokens keeps in all layers: keys and values, or states."""
    kv, state = BITS[model.types.kv_cache] / 8, BITS[model.types.state] / 8
    total = 0.0
    for block in model.layout:
        if block.mixer is None:
            continue
        a: Any = model.mixers[block.mixer]
        window = getattr(a, "window", None)
        tokens = min(context, window) if window else context
        if a.kind == "gqa":
            keys = 0 if a.indexer is None else a.indexer.head_dim
            total += kv * tokens * (a.kv_heads * (a.head_dim + (a.value_dim or a.head_dim)) + keys)
        elif a.kind == "mla" and a.indexer is None:
            total += kv * tokens * (a.kv_rank + a.rope_dim)
        elif a.kind == "mla":
            # The rotary part stays in 16 bits; an 8-bit vector has a 4-byte scale for every 128 elements.
            scales = 4 * a.kv_rank / 128 if kv == 1 else 0
            keys = 0 if a.indexer.shared else a.indexer.head_dim + 4 * a.indexer.head_dim / 128
            total += context * (kv * a.kv_rank + scales + 2 * a.rope_dim + keys)
        elif a.kind == "compressed":
            total += _compressed_bytes(a, context, kv)
        else:
            heads, rows, columns = a.state_shape
            taps = getattr(a, "conv", 1) - 1
            total += state * heads * rows * columns + 2 * a.local_channels(1) * taps
    return total


def _compressed_bytes(a: Any, context: int, kv: float) -> float:
    """The window's vectors, one for every `ratio` tokens, the indexer's keys, and 32-bit halves that wait."""
    entries = context // a.ratio if a.ratio else 0
    key = 0 if a.indexer is None or a.indexer.shared else a.indexer.head_dim
    kept = kv * a.head_dim * (min(context, a.window) + entries) + entries * (key + 4 * key / 128)
    twice = 2 if a.overlap else 1
    return float(kept + 8.0 * a.ratio * twice**2 * (a.head_dim + key))
