"""Hybrids of attention and state-space or convolution layers: Jamba, Nemotron-H, LFM2."""

from __future__ import annotations

from specs.blocks.recurrent import Mamba, Mamba2, ShortConv
from specs.huggingface.architecture import (
    HIDDEN,
    Architecture,
    Family,
    Ffn,
    Layer,
    Mixer,
    modules_left_out,
    next_token_modules,
    stack,
)
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import gqa, layer_kinds
from specs.huggingface.parts.experts import dense, first_dense, mixed, moe

#: Letters of `hybrid_override_pattern`; also the words of `layers_block_type`.
_NEMOTRON = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
_SAME = {"linear_attention": "mamba", "full_attention": "attention"}


def _jamba(config: Config) -> Architecture:
    layers, hidden = config.layers(), config.integer(*HIDDEN)
    rank = config.raw("mamba_dt_rank")[1]
    mamba = config.build(
        Mamba,
        "mamba_expand",
        kind="mamba",
        inner=config.integer("mamba_expand", default=2) * hidden,
        state=config.integer("mamba_d_state", default=16),
        step_rank=-(-hidden // 16) if rank in (None, "auto") else config.integer("mamba_dt_rank"),
        conv=config.integer("mamba_d_conv", default=4),
        inner_norms=True,
    )
    period = config.integer("attn_layer_period", default=8)
    offset = config.integer("attn_layer_offset", default=4, least=0)
    full = gqa(config)
    mixers: list[Mixer] = [full if i % period == offset else mamba for i in range(layers)]
    period = config.integer("expert_layer_period", default=2)
    offset = config.integer("expert_layer_offset", default=1, least=0)
    plain = {i for i in range(layers) if i % period != offset}
    ffns = mixed(config, moe(config), plain, layers)
    return Architecture(stack(mixers, ffns, mixer_path="mamba|self_attn", ffn_path="feed_forward"))


def _nemotron(config: Config) -> Architecture:
    """A layer is one part: Mamba-2, attention, experts or a dense block."""
    name, words = "layers_block_type", config.texts("layers_block_type", "layer_types")
    if not words:
        name, words = "hybrid_override_pattern", list(config.text("hybrid_override_pattern"))
        if not words:
            raise config.error(name, "is missing", "name the complete config.json of the model")
    wide = "relu2" not in config.text("mlp_hidden_act", default="relu2")
    mamba = config.build(
        Mamba2,
        "mamba_num_heads",
        kind="mamba2",
        heads=config.integer("mamba_num_heads"),
        head_dim=config.integer("mamba_head_dim"),
        state=config.integer("ssm_state_size", "mamba_d_state"),
        groups=config.integer("n_groups", "mamba_n_groups", default=8),
        conv=config.integer("conv_kernel", "mamba_d_conv", default=4),
        conv_bias=config.flag("use_conv_bias", "mamba_conv_bias", default=True),
        bias=config.flag("use_bias"),
    )
    parts: dict[str, tuple[Mixer | None, Ffn | None]] = {"mamba": (mamba, None), "attention": (gqa(config), None)}
    kinds = [_NEMOTRON.get(word, _SAME.get(word, word)) for word in words]
    if "moe" in kinds:
        parts["moe"] = None, moe(config, gated=wide, latent=config.optional("moe_latent_size"), router_bias=True)
    if "mlp" in kinds:
        parts["mlp"] = None, dense(config, gated=wide)
    for kind in kinds:
        config.chosen(name, kind, parts)
    path = "mixer|mlp|self_attn|mamba"
    layout = tuple(Layer(i, *parts[kind], mixer_path=path, ffn_path=path) for i, kind in enumerate(kinds))
    left_out = modules_left_out(next_token_modules(config))
    return Architecture(layout, left_out=left_out)


def _lfm2(config: Config) -> Architecture:
    layers = config.layers()
    kinds = layer_kinds(config, layers)
    if kinds is None:
        raise config.error("layer_types", "is missing", "name the complete config.json of the model")
    conv = config.build(
        ShortConv,
        "conv_L_cache",
        kind="short_conv",
        inner=config.integer(*HIDDEN),
        conv=config.integer("conv_L_cache", default=3),
        bias=config.flag("conv_bias"),
    )
    full = gqa(config, qk_norm="head")
    mixers: list[Mixer] = [conv if kind == "linear" else full for kind in kinds]
    experts = moe(config, router_bias=config.flag("use_expert_bias", default=True))
    ffns = mixed(config, experts, first_dense(config, layers, 2), layers)
    return Architecture(stack(mixers, ffns, mixer_path="conv|self_attn", ffn_path="feed_forward"), tied=True)


FAMILIES = (
    Family(("jamba",), _jamba, ("JambaForCausalLM",)),
    Family(("nemotron_h", "nemotron_h_moe"), _nemotron, ("NemotronHForCausalLM",)),
    Family(("lfm2_moe",), _lfm2, ("Lfm2MoeForCausalLM",)),
)
