"""Mixtral, and what is like it: experts in every layer, in place of a dense block of the same width."""

from __future__ import annotations

from functools import partial
from typing import Any

from specs.huggingface.architecture import Architecture, Family, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import gqa, windows
from specs.huggingface.parts.experts import mixed, moe


def _mixtral(config: Config, **attention: Any) -> Architecture:
    """Grouped queries with an optional window, and experts.

    Args:
        config: the config.
        **attention: what `gqa` takes.
    """
    layers = config.layers()
    mixers = [gqa(config, window=each, **attention) for each in windows(config, layers)]
    return Architecture(stack(mixers, [moe(config)] * layers, ffn_path="block_sparse_moe|mlp"))


def _dbrx(config: Config) -> Architecture:
    """Dimensions lie in two sections, and attention in one matrix."""
    layers = config.layers()
    attention, ffn = config.section("attn_config"), config.section("ffn_config")
    if ffn is None:
        raise config.error("ffn_config", "is missing", "name the complete config.json of the model")
    kv_heads = (attention.optional("kv_n_heads") if attention else None) or 1
    experts = moe(ffn)
    return Architecture(
        stack(
            [gqa(config, kv_heads=kv_heads)] * layers,
            [experts] * layers,
            mixer_path="norm_attn_norm.attn|self_attn",
            ffn_path="ffn",
        )
    )


def _grok(config: Config) -> Architecture:
    """Grok-2 has a dense block beside the experts (`residual_moe`), as wide as `intermediate_size`."""
    layers = config.layers()
    beside: dict[str, Any] = {}
    if config.flag("residual_moe"):
        beside = {"shared_experts": 1, "shared_width": config.integer("intermediate_size")}
    experts = moe(config, **beside)
    return Architecture(
        stack(
            [gqa(config)] * layers,
            [experts] * layers,
            ffn_path="block_sparse_moe",
            shared_path="mlp",
        )
    )


def _arctic(config: Config) -> Architecture:
    """A dense block of the hidden width beside the experts of every layer that has them."""
    layers = config.layers()
    step = config.integer("moe_layer_frequency", default=2)
    hidden = config.integer("hidden_size")
    beside = {"shared_experts": 1, "shared_width": hidden} if config.flag("parallel_attn_mlp_res") else {}
    plain = {i for i in range(layers) if (i + 1) % step}
    ffns = mixed(config, moe(config, **beside), plain, layers)
    return Architecture(stack([gqa(config)] * layers, ffns, ffn_path="block_sparse_moe", shared_path="residual_mlp"))


def _aria(config: Config) -> Architecture:
    layers = config.layers()
    return Architecture(stack([gqa(config)] * layers, [moe(config)] * layers))


FAMILIES = (
    Family(("mixtral",), _mixtral, ("MixtralForCausalLM",)),
    Family(("phimoe",), _mixtral, ("PhiMoEForCausalLM", "PhimoeForCausalLM")),
    Family(("olmoe",), partial(_mixtral, qk_norm="all_heads"), ("OlmoeForCausalLM",)),
    Family(("flex_olmo",), partial(_mixtral, qk_norm="all_heads"), ("FlexOlmoForCausalLM",)),
    Family(("dbrx",), _dbrx, ("DbrxForCausalLM",)),
    Family(("grok", "grok-1", "grok-2", "git"), _grok, ("Grok1ForCausalLM", "Grok1ModelForCausalLM")),
    Family(("arctic",), _arctic, ("ArcticForCausalLM",)),
    Family(("aria", "aria_text"), _aria, ("AriaForConditionalGeneration",)),
)
