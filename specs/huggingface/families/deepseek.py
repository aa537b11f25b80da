"""DeepSeek's line of latent attention, and models built on it: V2, V3, V3.2, Kimi K2, GLM-5, Mistral Large 3."""

from __future__ import annotations

from functools import partial

from specs.huggingface.architecture import Architecture, Family, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import gqa, sparse_mla
from specs.huggingface.parts.experts import corrected, first_dense, mixed, moe


def _moe_16b(config: Config) -> Architecture:
    layers = config.layers()
    ffns = mixed(config, moe(config), first_dense(config, layers), layers)
    return Architecture(stack([gqa(config)] * layers, ffns))


def _v2(config: Config) -> Architecture:
    if not config.flag("use_mla", default=True) or not config.has("kv_lora_rank"):
        return _moe_16b(config)  # DeepSeek-OCR: the architecture's name, with plain attention.
    return _latent(config, correction="greedy")


def _latent(config: Config, correction: str = "noaux_tc", dense: int = 0) -> Architecture:
    """Latent attention in every layer, experts after the first ones.

    Args:
        config: the config.
        correction: `topk_method` where the config does not say: noaux_tc has the router's correction.
        dense: how many layers are dense where the config does not say.
    """
    layers = config.layers()
    experts = moe(config, router_bias=corrected(config, correction))
    ffns = mixed(config, experts, first_dense(config, layers, dense), layers)
    layout = stack(sparse_mla(config, layers), ffns)
    return Architecture(layout, next_token=next_token_modules(config), unquantized=UNQUANTIZED)


def _hunyuan4(config: Config) -> Architecture:
    """Hunyuan 4: a gate on the output, several residual streams, an indexer in every fourth layer."""
    layers = config.layers()
    shared = [i > 0 and (i - 1) % 4 != 0 for i in range(layers)]
    ffns = mixed(config, moe(config, router_bias=True), first_dense(config, layers, 1), layers)
    return Architecture(
        stack(sparse_mla(config, layers, shared, gate=True), ffns),
        streams=config.integer("hc_mult", default=4),
        next_token=next_token_modules(config),
        unquantized=UNQUANTIZED,
    )


#: Two small projections of the indexer, which engines load as one and never quantize.
UNQUANTIZED = ("indexer.k_proj", "indexer.weights_proj")


FAMILIES = (
    Family(("deepseek",), _moe_16b, ("DeepseekForCausalLM",)),
    Family(("deepseek_v2", "deepseek_vl_v2", "deepseekocr", "DeepseekOCR"), _v2, ("DeepseekV2ForCausalLM",)),
    Family(
        (
            "deepseek_v3",
            "deepseek_v32",
            "kimi_k2",
            "kimi_vl",
            "glm_moe_dsa",
            "mistral_large_3",
            "sarvam_mla",
            "pangu_ultra_moe",
        ),
        _latent,
        (
            "DeepseekV3ForCausalLM",
            "DeepseekV32ForCausalLM",
            "KimiK2ForCausalLM",
            "GlmMoeDsaForCausalLM",
            "MistralLarge3ForCausalLM",
            "PanguUltraMoEForCausalLM",
        ),
    ),
    Family(("AXK1", "axk1", "glm4_moe_lite"), partial(_latent, dense=1), ("AXK1ForCausalLM", "Glm4MoeLiteForCausalLM")),
    Family(("hy_v4",), _hunyuan4, ("HYV4ForCausalLM",)),
    # Mistral Small 4: the router has no correction (mistral4 in transformers).
    Family(("mistral4",), partial(_latent, correction="greedy"), ("Mistral4ForCausalLM",)),
)
