"""Granite MoE, with shared experts or Mamba-2 layers in the later ones. Experts' width is `intermediate_size`."""

from __future__ import annotations

from specs.blocks.recurrent import Mamba2
from specs.huggingface.architecture import HIDDEN, Architecture, Family, Mixer, stack
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import gqa, layer_kinds
from specs.huggingface.parts.experts import moe

#: Positions of the full layers where a config leaves `layer_types` out are those of Granite 4.0: one in ten.
FULL = (5, 15, 25, 35)


def _granite(config: Config) -> Architecture:
    layers = config.layers()
    layout = stack(
        [gqa(config)] * layers, [moe(config)] * layers, ffn_path="block_sparse_moe", shared_path="shared_mlp"
    )
    return Architecture(layout)


def _hybrid(config: Config) -> Architecture:
    layers = config.layers()
    kinds = layer_kinds(config, layers) or ["full" if i in FULL else "linear" for i in range(layers)]
    full, linear = gqa(config), mamba2(config)
    mixers: list[Mixer] = [linear if kind == "linear" else full for kind in kinds]
    layout = stack(
        mixers,
        [moe(config)] * layers,
        mixer_path="mamba|self_attn",
        ffn_path="block_sparse_moe",
        shared_path="shared_mlp",
    )
    return Architecture(layout)


def mamba2(config: Config) -> Mamba2:
    """Mamba-2 by the `mamba_*` fields: heads share `mamba_expand` times the hidden width."""
    inner = config.integer("mamba_expand", default=2) * config.integer(*HIDDEN)
    heads = config.integer("mamba_n_heads", default=128)
    width = config.raw("mamba_d_head")[1]
    if width in (None, "auto") and inner % heads:
        raise config.error("mamba_n_heads", f"{heads} does not divide the inner width {inner}", "correct one of them")
    return config.build(
        Mamba2,
        "mamba_n_heads",
        kind="mamba2",
        heads=heads,
        head_dim=inner // heads if width in (None, "auto") else config.integer("mamba_d_head"),
        state=config.integer("mamba_d_state", default=256),
        groups=config.integer("mamba_n_groups", default=1),
        conv=config.integer("mamba_d_conv", default=4),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        bias=config.flag("mamba_proj_bias"),
    )


FAMILIES = (
    Family(("granitemoe", "granitemoeshared"), _granite, ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")),
    Family(("granitemoehybrid",), _hybrid, ("GraniteMoeHybridForCausalLM",)),
)
