"""Ling and Ring (`bailing_*`): grouped queries, or linear layers with latent or grouped attention in every n-th."""

from __future__ import annotations

from specs.blocks.recurrent import KimiDelta, Lightning
from specs.huggingface.architecture import Architecture, Family, Mixer, next_token_modules, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import HEADS, every, gqa, head_dim, layer_kinds, mla
from specs.huggingface.parts.experts import first_dense, mixed, moe


def _layout(config: Config, mixers: list[Mixer]) -> Architecture:
    layers = len(mixers)
    experts = moe(config, router_bias=config.flag("moe_router_enable_expert_bias"))
    ffns = mixed(config, experts, first_dense(config, layers), layers)
    layout = stack(mixers, ffns, mixer_path="attention|self_attn")
    return Architecture(layout, next_token=next_token_modules(config))


def _full(config: Config) -> Mixer:
    if config.optional("kv_lora_rank", least=0):
        return mla(config)
    bias = config.flag("use_bias")
    norm = "head" if config.flag("use_qk_norm") else ""
    return gqa(config, bias=bias or config.flag("use_qkv_bias"), output_bias=bias, qk_norm=norm)


def _moe(config: Config) -> Architecture:
    return _layout(config, [_full(config)] * config.layers())


def _param2(config: Config) -> Architecture:
    """Param-2 (BharatGen): as Ling, with a correction in the router and one dense layer unless said otherwise."""
    layers = config.layers()
    experts = moe(config, router_bias=config.flag("moe_router_enable_expert_bias", default=True))
    ffns = mixed(config, experts, first_dense(config, layers, 1), layers)
    return Architecture(stack([_full(config)] * layers, ffns, mixer_path="attention|self_attn"))


def _linear(config: Config) -> Architecture:
    """Lightning attention; the last layer of each group is full, and all of an unfinished last group."""
    heads = config.integer(*HEADS)
    linear = config.build(
        Lightning,
        "num_attention_heads",
        kind="lightning",
        heads=heads,
        head_dim=head_dim(config, heads),
        qk_norm=config.flag("use_qk_norm"),
    )
    return _grouped(config, linear)


def _hybrid(config: Config) -> Architecture:
    """Both generations have this type: Ling 3 has Kimi Delta Attention, with a short convolution, 2.5 lightning."""
    return _delta(config) if config.has("short_conv_kernel_size") else _linear(config)


def _delta(config: Config) -> Architecture:
    """Kimi Delta Attention instead."""
    heads = config.integer(*HEADS)
    linear = config.build(
        KimiDelta,
        "num_attention_heads",
        kind="kda",
        heads=heads,
        head_dim=config.integer("head_dim", default=128),
        conv=config.integer("short_conv_kernel_size", default=4),
        full_rank_gate=config.flag("no_kda_lora", default=True),
        full_rank_forget=config.flag("no_kda_lora", default=True),
    )
    return _grouped(config, linear)


def _grouped(config: Config, linear: Mixer) -> Architecture:
    layers = config.layers()
    kinds = layer_kinds(config, layers)
    if kinds is None:
        size = config.integer("layer_group_size", default=1)
        kinds = every(size, layers, other="linear")
        whole = layers // size * size
        kinds[whole:] = ["full"] * (layers - whole)
    full = _full(config)
    return _layout(config, [linear if kind == "linear" else full for kind in kinds])


FAMILIES = (
    Family(("bailing_moe", "bailing_moe_v2"), _moe, ("BailingMoeForCausalLM", "BailingMoeV2ForCausalLM")),
    Family(
        ("bailing_moe_linear", "bailing_moe_v2_5", "bailing_moe_linear_v2"),
        _linear,
        ("BailingMoeLinearForCausalLM", "BailingMoeLinearV2ForCausalLM", "BailingMoeV2_5ForCausalLM"),
    ),
    Family(("bailing_hybrid",), _hybrid),
    Family(("bailing_moe_v3",), _delta, ("BailingMoeV3ForCausalLM",)),
    Family(("param2moe",), _param2, ("Param2MoEForCausalLM",)),
)
