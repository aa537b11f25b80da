"""Attention of a config: grouped queries, latent, and which layers see a window."""

from __future__ import annotations

from typing import Any

from specs.blocks.attention import GqaAttention
from specs.blocks.latent import Indexer, MlaAttention
from specs.huggingface.architecture import HIDDEN
from specs.huggingface.fields import Config

HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "kv_n_heads", "num_attention_groups", "n_kv_heads")
BIAS = ("attention_bias", "qkv_bias", "use_qkv_bias", "use_bias")

FULL = ("full_attention", "attention", "global", "full", "global_attention")
SLIDING = ("sliding_attention", "local", "sliding", "swa", "sliding_window", "local_attention")
CHUNKED = ("chunked_attention",)
LINEAR = ("linear_attention", "mamba", "mamba2", "linear", "conv", "kda")


def head_dim(config: Config, heads: int) -> int:
    """The width of a head: as stated, or the share of the hidden width."""
    stated = config.optional("head_dim", "attention_head_dim", "kv_channels")
    if stated is not None:
        return stated
    hidden = config.integer(*HIDDEN)
    if hidden % heads:
        raise config.error(config.raw(*HEADS)[0], f"{heads} does not divide hidden_size {hidden}", "add head_dim")
    return hidden // heads


def gqa(
    config: Config,
    *,
    bias: bool = False,
    output_bias: bool | None = None,
    qk_norm: str = "",
    **changes: Any,
) -> GqaAttention:
    """Grouped-query attention.

    Args:
        config: the config.
        bias: of query, key and value projections, where the config does not say.
        output_bias: of the output projection; None: as the others.
        qk_norm: span of the weights of query and key norms; "" without them.
        **changes: other fields of GqaAttention, which win over the config.
    """
    heads = changes.get("query_heads") or config.integer(*HEADS)
    stated = config.flag(*BIAS, default=bias)
    values: dict[str, Any] = {
        "kind": "gqa",
        "query_heads": heads,
        "kv_heads": config.optional(*KV_HEADS) or heads,
        "bias": stated,
        "output_bias": stated if output_bias is None else output_bias,
        "qk_norm": bool(qk_norm),
        "qk_norm_span": qk_norm or "head",
    }
    if "head_dim" not in changes:
        values["head_dim"] = head_dim(config, heads)
    return config.build(GqaAttention, config.raw(*HEADS)[0], **values | changes)


def mla(config: Config, **changes: Any) -> MlaAttention:
    """Latent attention; `index_topk` and its like make it sparse.

    Args:
        config: the config.
        **changes: other fields of MlaAttention, which win over the config.
    """
    values: dict[str, Any] = {
        "kind": "mla",
        "heads": config.integer(*HEADS),
        "q_rank": config.optional("q_lora_rank", least=0) or None,
        "kv_rank": config.integer("kv_lora_rank"),
        "rope_dim": config.integer("qk_rope_head_dim"),
        "nope_dim": config.integer("qk_nope_head_dim"),
        "value_dim": config.integer("v_head_dim"),
        "bias": config.flag("attention_bias"),
        "indexer": indexer(config),
    }
    return config.build(MlaAttention, "kv_lora_rank", **values | changes)


def indexer(config: Config) -> Indexer | None:
    """The indexer of DeepSeek's sparse attention; None where the config has none."""
    if not config.has("index_topk"):
        return None
    return config.build(
        Indexer,
        "index_topk",
        heads=config.integer("index_n_heads"),
        head_dim=config.integer("index_head_dim"),
        top_k=config.integer("index_topk"),
    )


def sparse_mla(config: Config, layers: int, usual: list[bool] | None = None, **changes: Any) -> list[MlaAttention]:
    """[layers] latent attention; where it is sparse, some layers may attend to what an earlier one picked.

    Args:
        config: the config.
        layers: how many.
        usual: [layers] which those are where the config does not say.
        **changes: as in `mla`.
    """
    picking = mla(config, **changes)
    if picking.indexer is None:
        return [picking] * layers
    sharing = picking.model_copy(update={"indexer": picking.indexer.model_copy(update={"shared": True})})
    words, pattern = config.kinds("indexer_types", layers=layers), config.text("index_topk_pattern")
    if words is not None:
        shared = [config.chosen("indexer_types", word, ("full", "shared")) == "shared" for word in words]
    elif pattern:
        shared = [letter == "S" for letter in pattern.ljust(layers, "F")[:layers]]
    elif usual is not None:
        shared = usual
    else:
        step = config.integer("index_topk_freq", default=1)
        offset = config.integer("index_skip_topk_offset", default=2, least=0)
        shared = [max(i - offset + 1, 0) % step != 0 for i in range(layers)]
    return [sharing if each else picking for each in shared]


def layer_kinds(config: Config, layers: int) -> list[str] | None:
    """[layers] full, sliding, chunked or linear, from `layer_types`; None where the config has none."""
    words = config.kinds("layer_types", "layers_block_type", "attn_layer_types", layers=layers)
    if words is None:
        return None
    found = []
    for word in words:
        for kind, known in (("full", FULL), ("sliding", SLIDING), ("chunked", CHUNKED), ("linear", LINEAR)):
            if word in known:
                found.append(kind)
                break
        else:
            raise config.error(
                "layer_types", f"has {word[:40]}, which is not known", f"use {', '.join(FULL + SLIDING)}"
            )
    return found


def every(step: int, layers: int, other: str = "sliding") -> list[str]:
    """[layers] full in every `step`-th layer, `other` in between; full everywhere where step is 0."""
    return ["full" if step < 1 or (i + 1) % step == 0 else other for i in range(layers)]


def window(config: Config) -> int | None:
    """The sliding window, or None where there is none."""
    width = config.optional("sliding_window", "sliding_window_size", "window_size", least=-1)
    return width if width is not None and width > 0 and config.flag("use_sliding_window", default=True) else None


def windows(config: Config, layers: int, usual: list[str] | None = None) -> list[int | None]:
    """[layers] the window of each layer, None where it sees everything.

    Args:
        config: the config.
        layers: how many.
        usual: [layers] full or sliding where the config does not list them.
    """
    width = window(config)
    kinds = layer_kinds(config, layers)
    if kinds is None:
        kinds = usual
    if kinds is None:
        first = config.optional("max_window_layers", least=0) or 0
        kinds = ["sliding" if i >= first else "full" for i in range(layers)]
    elif width is None and "sliding" in kinds and config.flag("use_sliding_window", default=True):
        raise config.error("sliding_window", "is missing, but layers slide", "write the window in tokens")
    return [width if kind == "sliding" else None for kind in kinds]
