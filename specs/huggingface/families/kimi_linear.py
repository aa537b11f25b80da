"""Kimi Linear and Kimi K3: Kimi Delta Attention, latent attention in some layers, experts that may be latent."""

from __future__ import annotations

from specs.blocks.recurrent import KimiDelta
from specs.huggingface.architecture import Architecture, Family, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import mla
from specs.huggingface.parts.experts import first_dense, mixed, moe


def _kimi_linear(config: Config) -> Architecture:
    layers = config.layers()
    linear = config.section("linear_attn_config")
    if linear is None:
        raise config.error("linear_attn_config", "is missing", "name the complete config.json of the model")
    delta = config.build(
        KimiDelta,
        "linear_attn_config",
        kind="kda",
        heads=linear.integer("num_heads"),
        head_dim=linear.integer("head_dim"),
        conv=linear.integer("short_conv_kernel_size", default=4),
        full_rank_gate=linear.flag("use_full_rank_gate"),
    )
    full = mla(config, gate=config.flag("mla_use_output_gate"))
    # These lists count layers from 1.
    names = set(linear.integers("kda_layers", least=1))
    unknown = [i for i in names if i > layers]
    if unknown:
        raise linear.error("kda_layers", f"names layer {unknown[0]} of {layers}", "count from 1 to the last layer")
    mixers = [delta if i + 1 in names else full for i in range(layers)]
    experts = moe(config, latent=config.optional("routed_expert_hidden_size"), router_bias=True)
    ffns = mixed(config, experts, first_dense(config, layers), layers)
    return Architecture(
        stack(mixers, ffns, ffn_path="block_sparse_moe|mlp"),
        next_token=next_token_modules(config),
        unquantized=("latent",),
    )


FAMILIES = (Family(("kimi_linear", "kimi_k3"), _kimi_linear, ("KimiLinearForCausalLM",)),)
