"""Llama 4: chunked attention in three layers of four, experts in some layers, a shared expert of the same width."""

from __future__ import annotations

from specs.huggingface.architecture import Architecture, Family, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import every, gqa, layer_kinds
from specs.huggingface.parts.experts import mixed, moe


def _llama4(config: Config) -> Architecture:
    layers = config.layers()
    kinds = layer_kinds(config, layers)
    if kinds is None:
        without_rotation = config.has("no_rope_layers") and config.integers("no_rope_layers")
        kinds = (
            ["chunked" if each else "full" for each in config.by_layer("no_rope_layers", layers=layers)]
            if without_rotation
            else every(config.integer("no_rope_layer_interval", default=4), layers, other="chunked")
        )
    chunk = config.optional("attention_chunk_size")
    # The norm of queries and keys has no weights.
    full = gqa(config)
    chunked = gqa(config, window=chunk, chunked=chunk is not None)
    mixers = [chunked if kind == "chunked" else full for kind in kinds]
    step = config.integer("interleave_moe_layer_step", default=1)
    sparse = config.integers("moe_layers") or list(range(step - 1, layers, step))
    dense_layers = set(range(layers)) - set(sparse)
    experts = moe(config, shared_experts=1, expert_width=config.integer("intermediate_size"))
    ffns = mixed(config, experts, dense_layers, layers, "intermediate_size_mlp")
    return Architecture(stack(mixers, ffns, ffn_path="feed_forward"))


FAMILIES = (Family(("llama4", "llama4_text"), _llama4, ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")),)
