"""LongCat-Flash: a layer is two blocks; experts run beside the first block's dense part, some compute nothing."""

from __future__ import annotations

from specs.fields import MAX_LAYERS
from specs.huggingface.architecture import Architecture, Family, Layer, modules_left_out, next_token_modules
from specs.huggingface.fields import Config
from specs.huggingface.parts.attention import mla
from specs.huggingface.parts.experts import dense, moe


def _longcat(config: Config) -> Architecture:
    layers = config.optional("num_layers", most=MAX_LAYERS // 2) or config.layers() // 2
    plain = dense(config, "ffn_hidden_size", "intermediate_size")
    experts = moe(
        config,
        expert_width=config.integer("expert_ffn_hidden_size", "moe_intermediate_size"),
        zero_experts=config.optional("zero_expert_num", least=0) or 0,
        router_bias=True,
        shared_experts=1,
        shared_width=plain.width,
    )
    mixer, blocks = mla(config), []
    for i in range(layers):
        blocks.append(Layer(i, mixer, experts, "self_attn.0", "mlp", "mlps.0"))
        blocks.append(Layer(i, mixer, plain, "self_attn.1", "mlps.1"))
    left_out = modules_left_out(next_token_modules(config))
    return Architecture(tuple(blocks), blocks_per_layer=2, left_out=left_out)


FAMILIES = (Family(("longcat_flash",), _longcat, ("LongcatFlashForCausalLM",)),)
